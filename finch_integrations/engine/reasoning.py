"""A model's thoughts before its answer: how its chat template marks them."""

import re
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from finch_integrations.errors import ConfigurationError

# How templates name the switch for thinking.
_SWITCHES = ("enable_thinking", "thinking")
# Marks that templates may have without showing thoughts of earlier turns.
_USUAL = (
    ("<think>", "</think>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("◁think▷", "◁/think▷"),
)


@dataclass(frozen=True, slots=True)
class Thoughts:
    """What is around a model's thoughts.

    Attributes:
        begin: Before them; empty: the model's template has no thoughts.
        end: After them.
        opened: Whether the generation prompt already begins them.
    """

    begin: str = ""
    end: str = ""
    opened: bool = False

    def split(self, text: str, *, final: bool = True) -> tuple[str, str]:
        """Split what a model wrote into its thoughts and what it said.

        Args:
            text: All of it so far.
            final: Whether it is complete: else what may become the first mark is not yet said.
        """
        if not self.begin:
            return "", text
        opened = self.opened
        if not opened:
            said = text.lstrip()
            if not said.startswith(self.begin):
                return "", "" if not final and self.begin.startswith(said) else text
            text = said[len(self.begin) :]
        thoughts, _, said = text.partition(self.end)
        return thoughts, said

    @property
    def marks(self) -> tuple[str, ...]:
        """Strings whose special tokens are a part of what the model writes."""
        return self.begin, self.end

    def begin_token(self, tokenizer: Any) -> int | None:
        """The token of the mark before thoughts, if it is one token."""
        token = tokenizer.convert_tokens_to_ids(self.begin) if self.begin else None
        return None if token in (None, tokenizer.unk_token_id) else int(token)


_CHANNEL, _MESSAGE, _START, _END = "<|channel|>", "<|message|>", "<|start|>", "<|end|>"


@dataclass(frozen=True, slots=True)
class Channels(Thoughts):
    """Thoughts in channels of their own, as gpt-oss writes them; the answer's is `final`.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…
    """

    begin: str = _CHANNEL
    end: str = f"{_CHANNEL}final{_MESSAGE}"

    @property
    def marks(self) -> tuple[str, ...]:
        """Strings whose special tokens are a part of what the model writes."""
        return self.begin, self.end, _START, _END

    def split(self, text: str, *, final: bool = True) -> tuple[str, str]:
        """Split what a model wrote into its thoughts and what it said; as `Thoughts.split`."""
        tail = text[max(text.rfind("<"), 0) :]
        if not final and any(mark.startswith(tail) and mark != tail for mark in self.marks):
            text = text[: len(text) - len(tail)]
        said = text.lstrip()
        if not said.startswith(_CHANNEL):
            return "", text
        thoughts: list[str] = []
        for part in said.split(_CHANNEL)[1:]:
            name, _, body = part.partition(_MESSAGE)
            body = body.split(_END)[0].split(_START)[0]
            if name.split()[:1] == ["final"]:
                return "\n\n".join(thoughts), body
            if body.strip():
                thoughts.append(body)
        return "\n\n".join(thoughts), ""


_found: "weakref.WeakKeyDictionary[Any, tuple[str, Thoughts]]" = weakref.WeakKeyDictionary()


def find_thoughts(tokenizer: Any, kwargs: Mapping[str, Any] | None = None) -> Thoughts:
    """Find out how a tokenizer's chat template marks thoughts.

    Args:
        tokenizer: Its template is rendered with an example.
        kwargs: Further variables for the template; one of them may turn thinking off.
    """
    template = tokenizer.chat_template
    if not template:
        return Thoughts()
    known = _found.get(tokenizer)
    if known is None or known[0] != template:
        known = _found[tokenizer] = (template, _probe(tokenizer))
    thoughts = known[1]
    if not thoughts.begin:
        return thoughts
    prompt = _prompt(tokenizer, kwargs or {}).rstrip()
    if prompt.endswith(thoughts.end):
        return Thoughts()  # they are over before the answer begins
    return replace(thoughts, opened=prompt.endswith(thoughts.begin))


def thinking_switch(tokenizer: Any, on: bool) -> dict[str, bool]:
    """Variables for the chat template that turn thinking on or off.

    Raises:
        ConfigurationError: The model thinks, and its template has no switch.
    """
    if not find_thoughts(tokenizer).begin:
        return {}
    template = str(tokenizer.chat_template)
    found = [name for name in _SWITCHES if re.search(rf"\b{name}\b", template)]
    if not found and not on:
        raise ConfigurationError(
            "this model's chat template has no switch that turns its thoughts off "
            f"(looked for {' and '.join(_SWITCHES)}). Leave reasoning out: the thoughts are "
            "split from the answer"
        )
    return dict.fromkeys(found, on)


def _probe(tokenizer: Any) -> Thoughts:
    template = str(tokenizer.chat_template)
    if _CHANNEL in template and _MESSAGE in template:
        return Channels()
    turn = {"role": "assistant", "content": "probe_text", "reasoning_content": "probe_thought"}
    try:
        shown = tokenizer.apply_chat_template(
            [{"role": "user", "content": "probe_question"}, turn], tokenize=False
        )
    except Exception:  # a template is somebody else's program
        shown = ""
    before, found, rest = shown.partition("probe_thought")
    between, said, _ = rest.partition("probe_text")
    tags = before.split()[-1:], between.split()[:1]
    if found and said and all(tags):
        return Thoughts(_tag(tags[0][0]), _tag(tags[1][0]))
    return next((Thoughts(*marks) for marks in _USUAL if marks[1] in template), Thoughts())


def _tag(word: str) -> str:
    """The mark at the end of a word: what is before it may belong to the turn's header."""
    return word[max(word.rfind("<"), word.rfind("["), 0) :]


def _prompt(tokenizer: Any, kwargs: Mapping[str, Any]) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": "probe_question"}],
                tokenize=False,
                add_generation_prompt=True,
                **kwargs,
            )
        )
    except Exception:  # a template is somebody else's program
        return ""
