"""The options of adapters that answer, and what they make of a call's options."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_serializer

from finch_integrations.adapters.model import Adapter
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.answer_options import AnswerOptions, read_answer_options
from finch_integrations.pipeline.options import (
    SAMPLING,
    CallOptions,
    check_call,
    make_options,
)
from finch_integrations.pipeline.request import PromptOptions
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.turns import ContextDetection


@dataclass(frozen=True, slots=True)
class CallArguments:
    """What a call is to be answered with.

    Attributes:
        handle: The model.
        documents: The call's `documents=…`, or None.
        prompt: How documents are found and presented.
        options: For the engine.
        answer: What the answer may consist of.
    """

    handle: SharedEngine
    documents: object
    prompt: PromptOptions
    options: CallOptions
    answer: AnswerOptions


class LLMAdapter(Adapter):
    """An adapter that answers. All of its options but the model's can be changed for a call.

    Attributes:
        max_tokens: Upper limit of generated tokens.
        temperature: 0 is deterministic.
        top_p: Sample from the smallest set of tokens with this probability.
        top_k: Sample from this many most likely tokens; 0 means all.
        min_p: Sample from tokens with at least this share of the most likely one's probability.
        repetition_penalty: Above 1 makes tokens of the answer less likely to come again.
        presence_penalty: Taken off the logits of tokens that the answer has.
        frequency_penalty: The same, times how often it has them.
        logprobs: Report the log-probability of every token.
        top_logprobs: And of so many of the most likely tokens at its place.
        seed: Makes sampling repeatable.
        stop: Strings that end the answer and are left out of it.
        context_detection: `auto` uses everything that says where documents are, including
            well-known prompts, `marked` does not use well-known prompts, `off` uses only documents
            that are passed.
        context_patterns: Regular expressions for your own prompts: the group `context` is the
            documents, the group `question`, if there is one, the question.
        strict: Raise if no documents are found, and do not use well-known prompts.
        instruction: Text between the documents and the question. Default: the prompt's own, or
            the engine's.
        chat_template_kwargs: Further variables for the chat template.
        reasoning: Whether a model that can think does so before it answers; its thoughts are split
            from the answer. None: as its chat template has it.
        count_tokens: Counts a text's tokens as a wrapped model (`llm`) does, so that the budget is
            in its tokens. Default: as the model that chooses does.
        token_ratio: Or: tokens of the wrapped model per token of the one that chooses.
    """

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    seed: int | None = None
    stop: list[str] | None = None
    context_detection: ContextDetection = "auto"
    context_patterns: list[re.Pattern[str]] = Field(default_factory=list)
    strict: bool = False
    instruction: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    reasoning: bool | None = None
    count_tokens: Callable[[str], int] | None = Field(default=None, exclude=True, repr=False)
    token_ratio: float | None = None

    @classmethod
    def _arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        values = super()._arguments(values)
        if isinstance(stop := values.get("stop"), str):
            values["stop"] = [stop]
        return values

    def _check_options(self) -> None:
        if self.count_tokens is not None or self.token_ratio is not None:
            raise ConfigurationError(
                "count_tokens and token_ratio say how a wrapped model counts (llm=…). A model here "
                "counts for itself; leave them out"
            )
        self._read_call({})

    def _read_call(self, kwargs: Mapping[str, Any]) -> CallArguments:
        """Apply a call's options over the adapter's.

        Raises:
            InvalidInputError: A tool or the choice of one is unusable.
            ConfigurationError: An option is unknown or wrong.
        """
        call = check_call(kwargs)
        handle = self.handle.named(call.get("model"), call.get("revision"))
        names = ("context_detection", "strict", "instruction", "chat_template_kwargs")
        prompt = {name: call.get(name, getattr(self, name)) for name in names}
        own = {**{name: getattr(self, name) for name in SAMPLING}, **self._budgets()}
        return CallArguments(
            handle,
            call.get("documents"),
            PromptOptions(context_patterns=self.context_patterns, **prompt),
            make_options(own, self.compression, call, has_scorer=handle.has_scorer),
            read_answer_options({"reasoning": self.reasoning, **call}),
        )

    @field_serializer("context_patterns")
    def _as_texts(self, patterns: list[re.Pattern[str]]) -> list[str]:
        return [_with_inline_flags(pattern) for pattern in patterns]


def _with_inline_flags(pattern: re.Pattern[str]) -> str:
    missing = pattern.flags & ~re.compile(pattern.pattern).flags
    letters = ((re.I, "i"), (re.M, "m"), (re.S, "s"), (re.X, "x"))
    flags = "".join(letter for flag, letter in letters if missing & flag)
    return f"(?{flags}){pattern.pattern}" if flags else pattern.pattern
