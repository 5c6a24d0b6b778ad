"""From token ids to text that is safe to show while it is still growing."""

from collections.abc import Sequence
from typing import Any

from tokenizers.decoders import DecodeStream


class TextStream:
    """Decode tokens one at a time, watching for stop strings.

    Text is held back while it could still change: an unfinished UTF-8 sequence, or the beginning
    of a stop string.
    """

    def __init__(
        self, tokenizer: Any, stop: Sequence[str] = (), *, shown: Sequence[str] = ()
    ) -> None:
        """Start a text.

        Args:
            tokenizer: A fast Hugging Face tokenizer.
            stop: Strings that end the text and are left out of it.
            shown: Strings whose special tokens are part of the text; others are left out.
        """
        self._tokenizer = tokenizer.backend_tokenizer
        self._shown = _special_tokens(tokenizer, shown) if shown else {}
        self._decoder = DecodeStream(skip_special_tokens=True)
        self._stop = tuple(stop)
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """Add a token; return the text that is now certain. Sets `stopped` at a stop string."""
        if token in self._shown:
            self._held += self._shown[token]
        else:
            self._held += self._decode(token)
        hits = [(at, text) for text in self._stop if (at := self._held.find(text)) >= 0]
        if hits:
            self.stopped = True
            self._held = self._held[: min(hits)[0]]
            return self.finish()
        certain = len(self._held) - self._undecided()
        text, self._held = self._held[:certain], self._held[certain:]
        return text

    def _decode(self, token: int) -> str:
        try:
            return self._decoder.step(self._tokenizer, token) or ""
        except Exception:  # tokens for bytes that form no character; it raises nothing narrower
            self._decoder = DecodeStream(skip_special_tokens=True)
            return self._decoder.step(self._tokenizer, token) or ""

    def finish(self) -> str:
        """Return what was held back; an unfinished UTF-8 sequence is dropped."""
        text, self._held = self._held, ""
        return text

    def _undecided(self) -> int:
        """Length of the longest end of the held-back text that begins a stop string."""
        return max(
            (
                length
                for stop in self._stop
                for length in range(1, min(len(stop), len(self._held) + 1))
                if self._held.endswith(stop[:length])
            ),
            default=0,
        )


def _special_tokens(tokenizer: Any, texts: Sequence[str]) -> dict[int, str]:
    """The special tokens that are spelled in texts."""
    return {
        id: token.content
        for id, token in tokenizer.added_tokens_decoder.items()
        if token.special and any(token.content in text for text in texts)
    }
