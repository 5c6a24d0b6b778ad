"""One call: from LangChain's messages to a request, from the answer's pieces to chunks."""

from collections.abc import Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk

from finch_integrations.adapters.logprobs import as_openai_logprobs
from finch_integrations.errors import InvalidInputError
from finch_integrations.langchain.citations import PROVIDER, make_citations
from finch_integrations.langchain.documents import as_documents
from finch_integrations.langchain.tools import to_chunk, to_invalid_chunk
from finch_integrations.pipeline.ask import AnswerPiece, AskRequest
from finch_integrations.pipeline.quotes import find_quotes
from finch_integrations.pipeline.request import describe
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.turns import DocumentsFrom
from finch_integrations.types import Document

ADVICE = (
    "If it has documents, say where: pass them with documents=…, write them with format_docs or "
    "document_prompt, or describe your prompt with context_patterns. Documents that a retriever "
    "of the same run returned are found by themselves, as evidence, unless configure_evidence "
    "turned that off or they were rewritten"
)


@dataclass(frozen=True, slots=True)
class Call:
    """A request, and what the chunks of its answer report.

    Attributes:
        handle: The model.
        request: For the pipeline.
        source: Where the documents were found.
    """

    handle: SharedEngine
    request: AskRequest
    source: DocumentsFrom

    def make_chunk(self, piece: AnswerPiece) -> ChatGenerationChunk | None:
        """Make a chunk; pieces without text have none, except for the last one."""
        details = piece.details
        if details is None:
            if not (piece.text or piece.reasoning or piece.calls):
                return None
            message = AIMessageChunk(
                content=piece.text,
                additional_kwargs=_thoughts(piece),
                tool_call_chunks=[to_chunk(call) for call in piece.calls],
                response_metadata={"model_provider": PROVIDER},
            )
            return ChatGenerationChunk(message=message)
        documents = self.request.documents
        likely = {"logprobs": as_openai_logprobs(details.logprobs)} if details.logprobs else {}
        quotes = find_quotes(details.text, documents)
        message = AIMessageChunk(
            content=piece.text,
            additional_kwargs=_thoughts(piece),
            tool_call_chunks=[
                *(to_chunk(call) for call in piece.calls),
                *(to_invalid_chunk(call) for call in details.invalid_calls),
            ],
            chunk_position="last",
            usage_metadata=UsageMetadata(
                input_tokens=details.prompt_tokens,
                output_tokens=details.generation_tokens,
                total_tokens=details.prompt_tokens + details.generation_tokens,
            ),
            # Only here: LangChain joins the strings and adds the numbers of all chunks.
            response_metadata={
                "model_provider": PROVIDER,
                "model_name": self.handle.label,
                "finish_reason": details.finish_reason,
                "citations": make_citations(quotes, documents, details.document_shares),
                "finch": describe(details, documents, self.source),
                **likely,
            },
        )
        return ChatGenerationChunk(message=message)


def _thoughts(piece: AnswerPiece) -> dict[str, str]:
    return {"reasoning_content": piece.reasoning} if piece.reasoning else {}


def given_documents(
    messages: Sequence[BaseMessage], documents: object
) -> tuple[Document, ...] | None:
    """Take the documents of the call, or of the last human message's `additional_kwargs`.

    Args:
        messages: The chat.
        documents: The call's `documents=…`, or None.

    Returns:
        The documents; none at all: there are none in the chat, either. None: none are given.

    Raises:
        InvalidInputError: They are given in both ways, or are unusable.
    """
    human = [message for message in messages if message.type == "human"]
    in_message = human[-1].additional_kwargs.get("documents") if human else None
    if documents is not None and in_message is not None:
        raise InvalidInputError(
            "documents are given twice: with documents=… and in the last human message's "
            "additional_kwargs. Give them in one way"
        )
    if in_message is not None:
        return as_documents(in_message, "additional_kwargs['documents']")
    if documents is not None:
        return as_documents(documents, "documents")
    return None
