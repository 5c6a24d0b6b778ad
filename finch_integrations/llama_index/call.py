"""One call: from LlamaIndex's messages to a request, from the answer's pieces to responses."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
)

from finch_integrations.errors import FinchError
from finch_integrations.llama_index.documents import as_documents, place_in_node
from finch_integrations.llama_index.messages import to_turns
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece, AskRequest
from finch_integrations.pipeline.detection import DocumentsFrom
from finch_integrations.pipeline.options import CallOptions
from finch_integrations.pipeline.quotes import Quote
from finch_integrations.pipeline.request import PromptOptions, describe, make_request
from finch_integrations.pipeline.shared_engine import SharedEngine


@dataclass(frozen=True, slots=True)
class Call:
    """A request and what its responses report.

    Attributes:
        handle: The model.
        request: For the pipeline.
        source: Where the documents were found.
    """

    handle: SharedEngine
    request: AskRequest
    source: DocumentsFrom

    def respond(self, said: str, piece: AnswerPiece) -> ChatResponse:
        """Make a response of a piece of the answer; `raw` is plain data and on the last one.

        Args:
            said: The answer so far, the piece included.
            piece: The newest piece.
        """
        return ChatResponse(
            message=ChatMessage(role=MessageRole.ASSISTANT, content=said),
            delta=piece.text,
            raw=None if piece.report is None else self._describe(said, piece.report),
        )

    def _describe(self, said: str, report: AnswerDetails) -> dict[str, Any]:
        return {
            "model": self.handle.name,
            "finish_reason": report.finish_reason,
            "usage": {
                "prompt_tokens": report.prompt_tokens,
                "completion_tokens": report.generation_tokens,
                "total_tokens": report.prompt_tokens + report.generation_tokens,
            },
            "citations": [self._cite(said, quote, report) for quote in report.quotes],
            "finch": describe(report, self.source),
        }

    def _cite(self, said: str, quote: Quote, report: AnswerDetails) -> dict[str, Any]:
        document = self.request.documents[quote.document]
        place = place_in_node(document, quote.source_start, quote.source_end)
        start, end = place or (None, None)
        return {
            "text": said[quote.start : quote.end],
            "start": quote.start,
            "end": quote.end,
            "document_id": report.documents[quote.document].id,
            "source_start": start,
            "source_end": end,
        }


def make_call(
    messages: Sequence[ChatMessage],
    documents: object,
    prompting: PromptOptions,
    options: CallOptions,
    handle: SharedEngine,
) -> Call:
    """Take the documents out of a call's messages.

    Args:
        messages: The chat.
        documents: The call's `documents=…`, or None.
        prompting: How documents are found and presented.
        options: For the engine.
        handle: The model.

    Raises:
        InvalidInputError: Messages or documents are unusable.
    """
    given = () if documents is None else as_documents(documents, "documents")
    turns = to_turns(messages, read_templates=prompting.context_detection != "off")
    request, source = make_request(turns, given, "kwarg", prompting, options)
    return Call(handle, request, source)


def as_completion(response: ChatResponse) -> CompletionResponse:
    """The same response to a prompt that is one text."""
    return CompletionResponse(
        text=response.message.content or "", delta=response.delta, raw=response.raw
    )


@contextmanager
def never_a_value_error(what: str) -> Iterator[None]:
    """Raise what LlamaIndex would take for an empty answer as a `FinchError`."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise FinchError(f"{what}: {type(error).__name__}: {error}") from error
