"""The next steps of running answers: waited for one by one, run together.

An answer announces its next step as soon as it has chosen a token. Whoever first needs the logits
of a step runs all that are announced by then as one batch. So answers that take turns, in one
thread or in several, share their forward passes without knowing of each other, and one that is
alone runs as if there were no others.
"""

import threading
import weakref
from typing import Protocol

from torch import Tensor

from finch_integrations.engine.cache import KVCache, cache_length, shorten_cache


class Model(Protocol):
    """What runs steps."""

    def forward_each(self, tokens: list[int], caches: list[KVCache]) -> Tensor:
        """Feed one token after each cache, which grows by it; return logits [B, vocabulary]."""
        ...


class Step:
    """A token to be fed after a cache."""

    def __init__(self, steps: "Steps", model: Model, token: int, cache: KVCache) -> None:
        self.model = model
        self.token = token
        self.cache = cache
        self.result: Tensor | None = None
        self.error: BaseException | None = None
        self._steps = steps

    @property
    def done(self) -> bool:
        """Whether it was run."""
        return self.result is not None or self.error is not None

    def logits(self) -> Tensor:
        """Logits for the token after this one, float32, [vocabulary]; the cache has grown by one.

        Raises:
            Exception: As the model raises it for this step by itself.
        """
        if not self.done:
            self._steps.run(self)
        result, error, self.result, self.error = self.result, self.error, None, None
        if error is not None:
            raise error
        assert result is not None, "a step that was run has a result or an error"
        return result

    def cancel(self) -> None:
        """Take the step back; nothing happens if it was run."""
        self._steps.remove(self)


class Steps:
    """The announced steps of one model; safe to use from several threads."""

    def __init__(self) -> None:
        """Start with none."""
        self._waiting: list[Step] = []
        self._guard = threading.Lock()
        self._running = threading.Lock()

    def announce(self, model: Model, token: int, cache: KVCache) -> Step:
        """Announce that a token will be fed after a cache.

        The cache must be left alone until the step's logits are there or it is cancelled.

        Args:
            model: Runs it; the same for all steps.
            token: What to feed.
            cache: After what; grows when the step is run.
        """
        step = Step(self, model, token, cache)
        with self._guard:
            self._waiting.append(step)
        return step

    def remove(self, step: Step) -> None:
        """Forget a step that is not needed any more."""
        with self._guard:
            if step in self._waiting:
                self._waiting.remove(step)

    def run(self, step: Step) -> None:
        """Run a step, and with it all that are announced."""
        with self._running:
            with self._guard:
                if step not in self._waiting:  # it was run while this thread waited
                    return
                batch, self._waiting = self._waiting, []
            try:
                self._run(batch)
            except BaseException:  # this thread is to end; others run what is left
                with self._guard:
                    self._waiting += [one for one in batch if one is not step and not one.done]
                raise

    def _run(self, batch: list[Step]) -> None:
        tokens, caches = [step.token for step in batch], [step.cache for step in batch]
        lengths = [cache_length(cache) for cache in caches]
        try:
            logits = batch[0].model.forward_each(tokens, caches)
        except BaseException as error:
            for cache, length in zip(caches, lengths, strict=True):
                shorten_cache(cache, length)
            if not isinstance(error, Exception):
                raise
            if len(batch) == 1:
                batch[0].error = error
                return
        else:
            for step, row in zip(batch, logits, strict=True):
                step.result = row
            return
        # The batch may be too large, or one step at fault: the others go on.
        for step in batch:
            self._run([step])


_by_model: "weakref.WeakKeyDictionary[object, Steps]" = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def steps_of(model: object) -> Steps:
    """Return the steps of a transformers model, the same for all who run it."""
    with _guard:
        return _by_model.setdefault(model, Steps())
