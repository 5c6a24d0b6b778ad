"""Retrieval for `create_agent`: documents go to the model along with the messages."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, NotRequired

from langchain.agents.middleware import AgentMiddleware, AgentState, ModelRequest, ModelResponse
from langchain_core.documents import Document
from langchain_core.messages import AnyMessage, HumanMessage
from langchain_core.retrievers import BaseRetriever
from langgraph.runtime import Runtime

from finch_integrations.errors import InvalidInputError
from finch_integrations.langchain.documents import to_langchain
from finch_integrations.pipeline.rag import FinchRAG
from finch_integrations.types import Document as FoundDocument


class FinchDocumentsState(AgentState[Any]):
    """The agent's state with the retrieved documents."""

    documents: NotRequired[list[Document]]


class FinchDocumentsMiddleware(AgentMiddleware[FinchDocumentsState, Any, Any]):
    """Retrieves once per question and passes the documents to `ChatFinch`.

    The documents stay in the agent's state under `documents`. If nothing is found the model is
    asked without documents.

    Example:
        rag = FinchRAG(HybridRetriever.load("handbook.index"))
        agent = create_agent(
            ChatFinch(engine=rag.handle), tools=[], middleware=[FinchDocumentsMiddleware(rag)]
        )
    """

    state_schema = FinchDocumentsState

    def __init__(self, retriever: BaseRetriever | FinchRAG) -> None:
        """Take the retriever; it gets the text of the last human message.

        Args:
            retriever: A retriever of LangChain; or a `FinchRAG`, which finds documents that fit
                its model's budget. The agent's model answers: make it from the same shared engine.
        """
        super().__init__()
        self.retriever = retriever

    def before_agent(
        self, state: FinchDocumentsState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Retrieve documents for the question."""
        question = _question(state["messages"])
        if isinstance(self.retriever, FinchRAG):
            return _found(self.retriever.retrieve(question))
        return {"documents": self.retriever.invoke(question)}

    async def abefore_agent(
        self, state: FinchDocumentsState, runtime: Runtime[Any]
    ) -> dict[str, Any] | None:
        """Retrieve documents for the question."""
        question = _question(state["messages"])
        if isinstance(self.retriever, FinchRAG):
            return _found(await self.retriever.aretrieve(question))
        return {"documents": await self.retriever.ainvoke(question)}

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Pass the documents."""
        return handler(_with_documents(request))

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """Pass the documents."""
        return await handler(_with_documents(request))


def _found(documents: Sequence[FoundDocument]) -> dict[str, Any]:
    return {"documents": [to_langchain(document) for document in documents]}


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
        "there is nothing to retrieve for: the agent's messages have no human message with text"
    )
