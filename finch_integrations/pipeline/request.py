"""From a chat as an adapter reads it to a request for the engine."""

import re
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from finch_integrations.documents import with_unique_ids
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.answer_options import AnswerOptions
from finch_integrations.pipeline.ask import AnswerDetails, AskRequest
from finch_integrations.pipeline.detection import detect
from finch_integrations.pipeline.document_tags import join_texts
from finch_integrations.pipeline.evidence import NO_EVIDENCE, RETRIEVED
from finch_integrations.pipeline.options import CallOptions
from finch_integrations.pipeline.turns import ContextDetection, Detected, DocumentsFrom, Turn
from finch_integrations.types import CompressionStats, Document, DocumentShare, Message

# A prompt that contains the documents has its own instruction.
_PROMPTS_OWN = "Question:"
_ANY_ANSWER = AnswerOptions()
_WRITTEN_IN = ("mark", "evidence", "longest", "pattern", "template")


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOptions:
    """How documents are found and presented.

    Attributes:
        context_detection: Which sources of documents count; see `detect`.
        context_patterns: The user's own patterns; see `detect`.
        strict: Whether documents are required; see `detect`.
        instruction: Goes between the documents and the question; None: the prompt's own, or
            the engine's.
        chat_template_kwargs: Further variables for the chat template.
    """

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


def make_request(
    turns: Sequence[Turn],
    given: Sequence[Document] | None,
    prompt: PromptOptions,
    options: CallOptions,
    answer: AnswerOptions = _ANY_ANSWER,
    *,
    run: Hashable = None,
    advice: str = "",
    trim_history: bool = False,
) -> tuple[AskRequest, DocumentsFrom]:
    """Take the documents out of a chat.

    Args:
        turns: The chat.
        given: Documents that the caller gave in addition to it, or None.
        prompt: How documents are found and presented.
        options: For the engine.
        answer: What it may consist of.
        run: What it is a part of; retrieved documents are known by it.
        advice: How documents can be found that were not.
        trim_history: Leave out the oldest turns of a chat that does not fit the window.

    Returns:
        The request, and where its documents were found.

    Raises:
        InvalidInputError: Messages or documents are unusable.
    """
    found = find_documents(turns, given, prompt, run=run, keep_calls=bool(answer.tools))
    instruction = join_texts(found.instruction, prompt.instruction or "") or None
    # With tools the text above need not be all that there is to answer from.
    if instruction is None and (found.source in _WRITTEN_IN or answer.tools):
        instruction = _PROMPTS_OWN
    request = AskRequest(
        messages=_with_note(found.messages, answer.note) if answer.note else found.messages,
        documents=with_unique_ids(found.documents),
        instruction=instruction,
        closing=found.closing,
        result=found.result,
        answer=answer,
        advice=advice if found.missed else "",
        trim_history=trim_history,
        chat_template_kwargs=prompt.chat_template_kwargs,
        compression=options.compression,
        sampling=options.sampling,
    )
    return request, found.source


def _with_note(messages: tuple[Message, ...], note: str) -> tuple[Message, ...]:
    """Add a note to the end of the system text."""
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else ""
    rest = messages[1:] if system else messages
    return (Message(role="system", content=join_texts(system, note)), *rest)


def find_documents(
    turns: Sequence[Turn],
    given: Sequence[Document] | None,
    prompt: PromptOptions,
    *,
    run: Hashable = None,
    keep_calls: bool = False,
) -> Detected:
    """Find the documents of a chat; arguments and errors as for `make_request` and `detect`."""
    return detect(
        turns,
        given,
        mode=prompt.context_detection,
        patterns=prompt.context_patterns,
        strict=prompt.strict,
        # Given documents are all there are.
        evidence=NO_EVIDENCE if given else RETRIEVED.recall(run),
        keep_calls=keep_calls,
    )


def describe(
    details: AnswerDetails, documents: Sequence[Document], source: DocumentsFrom
) -> dict[str, Any]:
    """Describe an answer's documents and costs in plain data.

    What was kept of a document need not be what the answer says, so it is not a citation and is
    reported separately.
    """
    statistics: dict[str, Any] = {
        "documents_from": source,
        "documents": len(documents),
        "document_characters": sum(len(document.text) for document in documents),
        "decode_s": details.generation_seconds,
    }
    if details.trimmed_messages:
        statistics["trimmed_messages"] = details.trimmed_messages
    if stats := details.compression:
        statistics |= {
            "document_tokens": stats.document_tokens,
            "kept_tokens": stats.kept_tokens,
            "limited_by": stats.limited_by,
            "rated_tokens": stats.rated_tokens,
            "read_tokens": stats.read_tokens,
            "compression_ratio": stats.compression_ratio,
            "peak_kv_tokens": stats.peak_kv_tokens,
            "compress_s": stats.seconds,
            "document_scores": describe_shares(details.document_shares),
        }
    if isinstance(stats, CompressionStats):
        statistics["kv_bytes"] = stats.kv_bytes
    return statistics


def describe_shares(shares: Sequence[DocumentShare]) -> list[dict[str, Any]]:
    """How much of each document was kept, in plain data."""
    return [
        {
            "document_id": share.id,
            "title": share.title,
            "tokens": share.tokens,
            "kept_tokens": share.kept_tokens,
            "kept_share": share.kept_share,
        }
        for share in shares
    ]
