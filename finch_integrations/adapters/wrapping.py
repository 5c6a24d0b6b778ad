"""What adapters around another model have in common: it answers, a model here chooses for it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

from finch_integrations.adapters.llm import LLMAdapter
from finch_integrations.config import DEFAULT_TARGET_SIZE, CompressionConfig
from finch_integrations.engine.prompt import follow_up
from finch_integrations.errors import ConfigurationError, ContextTooLongError
from finch_integrations.pipeline.ask import split_question
from finch_integrations.pipeline.chooser import Chooser, TokenCount, check_elsewhere, token_count
from finch_integrations.pipeline.history import report_trimmed, trim_history
from finch_integrations.pipeline.misses import report_miss
from finch_integrations.pipeline.options import SAMPLING, make_options
from finch_integrations.pipeline.placement import Placement, place
from finch_integrations.pipeline.request import PromptOptions
from finch_integrations.pipeline.turns import Detected

_PROMPT = ("context_detection", "strict", "instruction")
_OWN = {"documents", *_PROMPT, *(field.name for field in fields(CompressionConfig))}


@dataclass(frozen=True, slots=True)
class WrappedArguments:
    """What a call is to be answered with.

    Attributes:
        documents: The call's `documents=…`, or None.
        prompt: How documents are found and presented.
        chooser: Chooses passages of them.
        rest: The call's other options, for the model that answers.
    """

    documents: object
    prompt: PromptOptions
    chooser: Chooser
    rest: Mapping[str, Any]

    def place(self, texts: Sequence[str], found: Detected) -> Placement:
        """Choose from what was found in messages, and say what changes in them.

        Args:
            texts: The messages' texts.
            found: Their documents.

        Raises:
            FinchError: As `Chooser.choose` raises it.
        """
        if not found.documents:
            return Placement(missed=found.missed)
        choice = self.chooser.choose(found.documents, _question(found))
        return place(texts, found, choice, self.prompt)

    async def aplace(self, texts: Sequence[str], found: Detected) -> Placement:
        """Like `place`, without blocking the event loop."""
        if not found.documents:
            return Placement(missed=found.missed)
        choice = await self.chooser.achoose(found.documents, _question(found))
        return place(texts, found, choice, self.prompt)


def _question(found: Detected) -> str:
    return follow_up(*split_question(found.messages))


class WrappingAdapter(LLMAdapter):
    """An adapter around another model, which answers and gets every option that is not ours.

    `scorer` names the model that chooses; so do `model` and `engine`, in which it is kept.
    """

    # To be said by the framework's side

    _advice: ClassVar[str]

    def _wrapped_window(self) -> int | None:
        """Tokens that the wrapped model takes, if it says so."""
        raise NotImplementedError

    def _wrapped_tokenizer(self) -> TokenCount | None:
        """The wrapped model's own tokenizer, if it has one that downloads nothing."""
        raise NotImplementedError

    @classmethod
    def _arguments(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        if values.get("scorer") is not None:
            if values.get("model") is not None or values.get("engine") is not None:
                raise ConfigurationError(
                    "with llm=… the model that chooses is given once, as scorer=…; got model=… or "
                    "engine=…, too"
                )
            values = {**values, "model": values["scorer"], "scorer": None}
        return super()._arguments(values)

    def _check_options(self) -> None:
        names = {*SAMPLING, "stop", "chat_template_kwargs"} & set(type(self).model_fields)
        if given := sorted(name for name in names if getattr(self, name)):
            raise ConfigurationError(
                f"{', '.join(given)}: with llm=… the wrapped model generates. Set it there"
            )
        self._compression_of({})
        self._prompt_of({})
        token_count(self.handle, self.count_tokens, self.token_ratio)

    def _read_wrapped(self, kwargs: Mapping[str, Any]) -> WrappedArguments:
        """Apply a call's options over the adapter's.

        Raises:
            ConfigurationError: An option is wrong.
        """
        call = {name: value for name, value in kwargs.items() if name in _OWN}
        compression, most = self._with_budget(self._compression_of(call))
        return WrappedArguments(
            documents=call.get("documents"),
            prompt=self._prompt_of(call),
            chooser=Chooser(self.handle, compression, self._token_count(), most),
            rest={name: value for name, value in kwargs.items() if name not in _OWN},
        )

    def _compression_of(self, call: Mapping[str, Any]) -> Mapping[str, Any]:
        options = make_options(self._budgets(), self.compression, call).compression
        check_elsewhere(options)
        return options

    def _prompt_of(self, call: Mapping[str, Any]) -> PromptOptions:
        prompt = {name: getattr(self, name) for name in _PROMPT}
        prompt |= {name: call[name] for name in _PROMPT if call.get(name) is not None}
        return PromptOptions(
            context_patterns=self.context_patterns, chat_template_kwargs={}, **prompt
        )

    def _with_budget(self, options: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
        """Without a budget keep half of what a small wrapped model takes; `auto` keeps no more."""
        options, window = dict(options), self._wrapped_window()
        if not window:
            return options, DEFAULT_TARGET_SIZE
        most = max(1, min(DEFAULT_TARGET_SIZE, window // 2))
        if all(options.get(name) is None for name in ("target_size", "compression_ratio")):
            options["target_size"] = most
        return options, most

    def _token_count(self) -> TokenCount | None:
        stated = token_count(self.handle, self.count_tokens, self.token_ratio)
        return stated or self._wrapped_tokenizer()

    def _fit(
        self,
        roles: Sequence[str],
        texts: Sequence[str],
        placement: Placement,
        arguments: WrappedArguments,
        answer: int = 1,
    ) -> list[int]:
        """Leave out the oldest turns of a chat that does not fit; warn of missed documents.

        What was chosen stays.

        Args:
            roles: Of all messages.
            texts: Their texts.
            placement: What was changed in them.
            arguments: Of the call.
            answer: Tokens that the answer needs.

        Returns:
            Numbers of the messages that stay.

        Raises:
            ContextTooLongError: The wrapped model's window is smaller; some servers would cut.
        """
        if placement.missed:
            target = arguments.chooser.compression.get("target_size")
            fixed = None if target == "auto" else target
            report_miss(texts, lambda: _about(texts), fixed, self._advice)
        window = self._wrapped_window()
        # A token has at least one byte: most prompts need not be counted.
        if window is None or sum(len(text.encode()) for text in texts) + answer <= window:
            return [*range(len(texts))]
        counts = [arguments.chooser.count(text) if text else 0 for text in texts]

        def tokens(numbers: Iterable[int]) -> int:
            return sum(counts[number] for number in numbers)

        kept = trim_history(
            roles,
            lambda numbers: tokens(numbers) + answer <= window,
            at_most=placement.first_changed(len(texts)),
        )
        if (needed := tokens(kept)) + answer > window:
            raise ContextTooLongError(
                f"after compression the prompt has {needed} tokens (not counting its template), "
                f"and with {answer} for the answer it does not fit the wrapped model's window of "
                f"{window}. Keep fewer (target_size), shorten the rest of the prompt, or say how "
                "the wrapped model counts (count_tokens, token_ratio)"
                + (f". {self._advice}" if placement.missed else "")
            )
        report_trimmed(texts, len(texts) - len(kept))
        return kept


def _about(texts: Sequence[str]) -> int:
    """Estimate tokens without a model: none is loaded for a prompt that has no documents."""
    return sum(len(text.encode("utf-8", "surrogatepass")) for text in texts) // 4
