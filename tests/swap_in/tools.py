"""A retriever as a tool, and a call of it."""

from langchain_core.tools import create_retriever_tool

from tests.swap_in.test_prompts import Fixed, Q


def retriever_tool(response_format="content_and_artifact", **fields):
    """LangChain's own tool over a retriever."""
    search = create_retriever_tool(
        Fixed(**fields), "search", "Search.", response_format=response_format
    )
    return search


def a_call(query=Q):
    """A call of it as a model makes it."""
    return {"name": "search", "args": {"query": query}, "id": "1", "type": "tool_call"}
