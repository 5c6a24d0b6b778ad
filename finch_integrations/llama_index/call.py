"""One call: from LlamaIndex's messages to a request, from the answer's pieces to responses."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
)

from finch_integrations.adapters.llm import CallArguments
from finch_integrations.errors import FinchError
from finch_integrations.llama_index.documents import as_documents, place_in_node
from finch_integrations.llama_index.evidence import is_retrieving
from finch_integrations.llama_index.messages import shows_a_chat, to_turns
from finch_integrations.llama_index.tools import make_message
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece, AskRequest
from finch_integrations.pipeline.quotes import Quote, find_quotes
from finch_integrations.pipeline.request import describe, make_request
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.turns import DocumentsFrom
from finch_integrations.types import Document, DocumentShare, TokenLogprob, ToolCall

ADVICE = (
    "If it has documents, say where: pass them with documents=…, name your template's variables "
    "with template_variables, mark the texts as format_docs does (<document>…</document>), or "
    "describe your prompt with context_patterns. Nodes that a retriever of the same task returned "
    "are found by themselves, as evidence, unless configure_evidence turned that off or they were "
    "rewritten"
)


@dataclass(frozen=True, slots=True)
class AnswerSoFar:
    """What has been answered so far."""

    text: str = ""
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()

    def and_then(self, piece: AnswerPiece) -> "AnswerSoFar":
        """Add a piece."""
        return AnswerSoFar(
            self.text + piece.text, self.reasoning + piece.reasoning, self.calls + piece.calls
        )


@dataclass(frozen=True, slots=True)
class Call:
    """A request and what its responses details.

    Attributes:
        handle: The model.
        request: For the pipeline.
        source: Where the documents were found.
    """

    handle: SharedEngine
    request: AskRequest
    source: DocumentsFrom

    def respond(self, answer: AnswerSoFar, piece: AnswerPiece) -> ChatResponse:
        """Make a response from a piece of the answer; the last one has plain data in `raw`.

        Args:
            answer: The answer so far, including the piece.
            piece: The newest piece.
        """
        return ChatResponse(
            message=make_message(answer.text, answer.reasoning, answer.calls),
            delta=piece.text,
            raw=None if piece.details is None else self._describe(piece.details),
            logprobs=None if piece.details is None else _logprobs(piece.details.logprobs),
            additional_kwargs={"thinking_delta": piece.reasoning} if piece.reasoning else {},
        )

    def _describe(self, details: AnswerDetails) -> dict[str, Any]:
        return {
            "model": self.handle.label,
            "finish_reason": details.finish_reason,
            "invalid_tool_calls": [asdict(call) for call in details.invalid_calls],
            "usage": {
                "prompt_tokens": details.prompt_tokens,
                "completion_tokens": details.generation_tokens,
                "total_tokens": details.prompt_tokens + details.generation_tokens,
            },
            "citations": make_citations(
                details.text, self.request.documents, details.document_shares
            ),
            "finch": describe(details, self.request.documents, self.source),
        }


def _logprobs(tokens: Sequence[TokenLogprob]) -> list[list[LogProb]] | None:
    """For every token the most likely ones at its place; itself, if only that was asked for."""

    def written(one: TokenLogprob) -> LogProb:
        return LogProb(token=one.token, logprob=one.logprob, bytes=list(one.token.encode()))

    return [[written(other) for other in one.top or (one,)] for one in tokens] or None


def make_citations(
    text: str, documents: Sequence[Document], shares: Sequence[DocumentShare]
) -> list[dict[str, Any]]:
    """What an answer repeats of its documents, with the places in their nodes."""
    return [
        _cite(quote, text, documents[quote.document], shares[quote.document])
        for quote in find_quotes(text, documents)
    ]


def _cite(quote: Quote, text: str, document: Document, share: DocumentShare) -> dict[str, Any]:
    place = place_in_node(document, quote.source_start, quote.source_end)
    start, end = place or (None, None)
    return {
        "text": text[quote.start : quote.end],
        "start": quote.start,
        "end": quote.end,
        "document_id": share.id,
        "source_start": start,
        "source_end": end,
    }


def make_call(
    messages: Sequence[ChatMessage], arguments: CallArguments, run: Hashable = None
) -> Call:
    """Take the documents out of a call's messages.

    Args:
        messages: The chat.
        arguments: What to answer it with.
        run: The task or thread that it belongs to.

    Raises:
        InvalidInputError: Messages or documents are unusable.
    """
    documents, prompt = arguments.documents, arguments.prompt
    given = None if documents is None else as_documents(documents, "documents")
    if shows_a_chat(messages) or is_retrieving():
        prompt = replace(prompt, strict=False)
    turns = to_turns(messages, read_templates=prompt.context_detection != "off")
    request, source = make_request(
        turns,
        given,
        prompt,
        arguments.options,
        arguments.answer,
        run=run,
        advice=ADVICE,
        trim_history=True,
    )
    return Call(arguments.handle, request, source)


def as_completion(response: ChatResponse) -> CompletionResponse:
    """The same response, for a prompt that is one text."""
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        logprobs=response.logprobs,
    )


@contextmanager
def never_a_value_error(what: str) -> Iterator[None]:
    """Raise as a `FinchError` what LlamaIndex would read as an empty answer."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise FinchError(f"{what}: {type(error).__name__}: {error}") from error
