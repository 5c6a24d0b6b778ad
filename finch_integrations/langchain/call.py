"""One call: from LangChain's messages to a request, from the answer's pieces to chunks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk

from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.langchain.citations import PROVIDER, document_scores, make_citations
from finch_integrations.langchain.detection import ContextDetection, DocumentsFrom, detect
from finch_integrations.langchain.documents import as_documents, with_unique_ids
from finch_integrations.langchain.messages import to_turns
from finch_integrations.langchain.options import Options
from finch_integrations.pipeline.ask import AnswerPiece, AnswerReport, AskRequest
from finch_integrations.types import Document

# The prompt of a chain that wrote the documents into its messages has its own instruction.
_CHAINS_OWN = "Question:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompting:
    """How documents are found and presented; fields as in `ChatFinch`."""

    context_detection: ContextDetection
    context_patterns: Sequence[re.Pattern[str]]
    strict: bool
    instruction: str | None
    chat_template_kwargs: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.context_detection not in get_args(ContextDetection):
            raise ConfigurationError(
                f"context_detection must be one of {', '.join(get_args(ContextDetection))}, "
                f"got {self.context_detection!r}"
            )
        for pattern in self.context_patterns:
            if "context" not in pattern.groupindex:
                raise ConfigurationError(
                    f"the context pattern {pattern.pattern!r} has no group named 'context'. "
                    "Name the part that is documents: (?P<context>…)"
                )


@dataclass(frozen=True, slots=True)
class Call:
    """A request and what its answer's chunks report.

    Attributes:
        request: For the pipeline.
        model_name: Named in the answer's metadata.
        source: Where the documents were found.
    """

    request: AskRequest
    model_name: str
    source: DocumentsFrom

    def make_chunk(self, piece: AnswerPiece) -> ChatGenerationChunk | None:
        """Make a chunk; pieces without text have none, except for the last one."""
        report = piece.report
        if report is None:
            if not piece.text:
                return None
            message = AIMessageChunk(
                content=piece.text, response_metadata={"model_provider": PROVIDER}
            )
            return ChatGenerationChunk(message=message)
        message = AIMessageChunk(
            content=piece.text,
            chunk_position="last",
            usage_metadata=UsageMetadata(
                input_tokens=report.prompt_tokens,
                output_tokens=report.generation_tokens,
                total_tokens=report.prompt_tokens + report.generation_tokens,
            ),
            # Only here: LangChain joins the strings and adds the numbers of all chunks.
            response_metadata={
                "model_provider": PROVIDER,
                "model_name": self.model_name,
                "finish_reason": report.finish_reason,
                "citations": make_citations(
                    report.quotes, self.request.documents, report.documents
                ),
                "finch": self._statistics(report),
            },
        )
        return ChatGenerationChunk(message=message)

    def _statistics(self, report: AnswerReport) -> dict[str, Any]:
        statistics: dict[str, Any] = {
            "documents_from": self.source,
            "documents": len(self.request.documents),
            "decode_s": report.generation_seconds,
        }
        if stats := report.compression:
            statistics |= {
                "document_tokens": stats.document_tokens,
                "kept_tokens": stats.kept_tokens,
                "compression_ratio": stats.compression_ratio,
                "peak_kv_tokens": stats.peak_kv_tokens,
                "kv_bytes": stats.kv_bytes,
                "compress_s": stats.seconds,
                "document_scores": document_scores(report.documents),
            }
        return statistics


def make_call(
    messages: Sequence[BaseMessage],
    documents: object,
    prompting: Prompting,
    options: Options,
    model_name: str,
) -> Call:
    """Take the documents out of a call's messages.

    Args:
        messages: The chat.
        documents: The call's `documents=…`, if there are any.
        prompting: How documents are found and presented.
        options: For the engine.
        model_name: Named in the answer's metadata.

    Raises:
        InvalidInputError: Messages or documents are unusable.
    """
    found = detect(
        to_turns(messages),
        *_handed_over(messages, documents),
        mode=prompting.context_detection,
        patterns=prompting.context_patterns,
        strict=prompting.strict,
    )
    instruction = prompting.instruction
    if instruction is None and found.source in ("marked", "pattern"):
        instruction = _CHAINS_OWN
    request = AskRequest(
        messages=found.messages,
        documents=with_unique_ids(found.documents),
        instruction=instruction,
        chat_template_kwargs=prompting.chat_template_kwargs,
        compression=options.compression,
        sampling=options.sampling,
    )
    return Call(request, model_name, found.source)


def _handed_over(
    messages: Sequence[BaseMessage], documents: object
) -> tuple[tuple[Document, ...], Literal["kwarg", "message"]]:
    """Documents of the call, or of the last human message's `additional_kwargs`."""
    human = [message for message in messages if message.type == "human"]
    beside = human[-1].additional_kwargs.get("documents") if human else None
    if documents is not None and beside is not None:
        raise InvalidInputError(
            "documents are given twice: with documents=… and in the last human message's "
            "additional_kwargs. Give them in one way"
        )
    if beside is not None:
        return as_documents(beside, "additional_kwargs['documents']"), "message"
    if documents is not None:
        return as_documents(documents, "documents"), "kwarg"
    return (), "kwarg"
