"""Retrieval for `create_agent`: documents go to the model beside the messages."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.documents import Document
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.runtime import Runtime

from finch_integrations.errors import InvalidInputError


class FinchDocumentsState(AgentState[Any]):
    """The agent's state with the retrieved documents."""

    documents: NotRequired[list[Document]]


class FinchDocumentsMiddleware(AgentMiddleware[FinchDocumentsState, Any, Any]):
    """Retrieves once per question and hands the documents to `ChatFinch`.

    The documents stay in the agent's state under `documents`. If nothing is found the model is
    asked without documents.

    Example:
        agent = create_agent(
            ChatFinch(), tools=[], middleware=[FinchDocumentsMiddleware(retriever)]
        )
    """

    state_schema = FinchDocumentsState

    def __init__(self, retriever: BaseRetriever) -> None:
        """Take the retriever; it sees the text of the last human message."""
        super().__init__()
        self.retriever = retriever

    def before_agent(
        self, state: FinchDocumentsState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Retrieve documents for the question."""
        return {"documents": self.retriever.invoke(_question(state["messages"]))}

    async def abefore_agent(
        self, state: FinchDocumentsState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Retrieve documents for the question."""
        return {"documents": await self.retriever.ainvoke(_question(state["messages"]))}

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Hand the documents over."""
        return handler(_with_documents(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Hand the documents over."""
        return await handler(_with_documents(request))


def _with_documents(request: ModelRequest[Any]) -> ModelRequest[Any]:
    documents: Any = request.state.get("documents")
    if not documents:
        return request
    return request.override(model_settings={**request.model_settings, "documents": documents})


def _question(messages: Sequence[AnyMessage]) -> str:
    for message in reversed(messages):
        if isinstance(message, HumanMessage) and message.text.strip():
            return str(message.text)
    raise InvalidInputError(
        "there is nothing to retrieve for: the agent's messages hold no human message with text"
    )
