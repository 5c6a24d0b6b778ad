"""Selecting, unless the same question was put to the same documents lately."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import Budget
from finch_integrations.engine.methods import Method, PassageMethod, check_method
from finch_integrations.engine.model_input import ModelInput
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.selecting import Reader, select_everything, select_passages
from finch_integrations.engine.selection import Selection
from finch_integrations.types import Document

_ENTRIES = 64


class Selector:
    """Makes selections and remembers the last ones; safe to use from several threads."""

    def __init__(self) -> None:
        """Start with nothing to remember."""
        self._made = SelectionCache()

    def select(
        self,
        backbone: Backbone,
        find_reader: Callable[[], Reader],
        inputs: Sequence[ModelInput],
        budgets: Sequence[Budget],
        method: Method,
        config: CompressionConfig,
        tracker: ProgressTracker,
    ) -> list[Selection]:
        """Select for every question; where everything is kept, no model is needed.

        Args:
            backbone: As for `select_passages`.
            find_reader: Returns the model that reads.
            inputs: As for `select_passages`.
            budgets: Tokens to keep for each question, at most all.
            method: Rates the passages.
            config: As for `select_passages`.
            tracker: As for `select_passages`.

        Raises:
            UnsupportedModelError: The model that reads lacks what the method needs.
            ContextTooLongError: As for `select_passages`.
        """
        if all(budget.least == len(inputs[0].tokens) for budget in budgets):
            seconds = tracker.seconds / len(inputs)
            return [select_everything(backbone, one, seconds) for one in inputs]
        assert isinstance(method, PassageMethod), "token methods do not select"
        reader = find_reader()
        check_method(config.method, reader.backbone.spec)
        models = (backbone.fingerprint, reader.backbone.fingerprint)
        documents = _digest(inputs[0].documents)
        keys = [
            repr((documents, one.prompt, config, budget, models))
            for one, budget in zip(inputs, budgets, strict=True)
        ]
        known = [self._made.get(key) for key in keys]
        new = [number for number, selection in enumerate(known) if selection is None]
        made: list[Selection] = []
        if new:
            made = select_passages(
                backbone,
                [inputs[number] for number in new],
                [budgets[number] for number in new],
                method,
                config,
                tracker,
                reader,
            )
        else:
            tracker.total = max(one.stats.rated_tokens for one in known if one is not None)
            tracker.chunk_done(tracker.total, 0)
        for number, selection in zip(new, made, strict=True):
            self._made.put(keys[number], selection)
        fresh = iter(made)
        return [
            next(fresh) if selection is None else _repeated(selection, tracker.seconds)
            for selection in known
        ]


class SelectionCache:
    """The last selections by what was asked; in memory, thread-safe."""

    def __init__(self, entries: int = _ENTRIES) -> None:
        """Start empty.

        Args:
            entries: How many selections to keep.
        """
        self._entries = entries
        self._lock = threading.Lock()
        self._selections: OrderedDict[str, Selection] = OrderedDict()

    def get(self, key: str) -> Selection | None:
        """Return the selection that was put under a key, or None."""
        with self._lock:
            if key in self._selections:
                self._selections.move_to_end(key)
            return self._selections.get(key)

    def put(self, key: str, selection: Selection) -> None:
        """Keep a selection; the one that was not used for longest goes."""
        with self._lock:
            self._selections[key] = selection
            self._selections.move_to_end(key)
            while len(self._selections) > self._entries:
                self._selections.popitem(last=False)


def _digest(documents: Sequence[Document]) -> str:
    """Hash what a selection depends on of its documents: ids, titles and texts."""
    digest = hashlib.sha256()
    for document in documents:
        for part in (document.id, document.title, document.text):
            content = b"-" if part is None else b"+" + part.encode()
            digest.update(len(content).to_bytes(8, "big") + content)
    return digest.hexdigest()


def _repeated(selection: Selection, seconds: float) -> Selection:
    """The same selection, made again: nothing was read for it."""
    stats = replace(selection.stats, read_tokens=0, peak_kv_tokens=0, seconds=seconds)
    return replace(selection, stats=stats)
