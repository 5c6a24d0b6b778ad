"""What was retrieved in this process: the frameworks report it, detection looks for it in prompts.

Texts are in memory only, up to a size and for a time. What the run retrieved that a prompt belongs
to is known exactly; the rest of the memory recognises what later turns of a chat quote.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.known_texts import KnownText, KnownTexts, Match
from finch_integrations.types import Document

_MAX_BYTES, _MAX_SECONDS = 32 * 2**20, 3600.0
# A text may come from several places; runs that do not end are forgotten.
_MAX_SOURCES, _MAX_RUNS = 16, 1000
# What is ready to be looked for, for runs that ask several times.
_MAX_RECALLED = 8


@dataclass(frozen=True, slots=True)
class Retrieved:
    """A text that was retrieved.

    Attributes:
        known: The text.
        documents: What it is the text of.
        own: Whether the run retrieved it that asks.
    """

    known: KnownText
    documents: tuple[Document, ...]
    own: bool


@dataclass(frozen=True)
class Evidence:
    """What a run can expect in its prompts.

    Attributes:
        texts: Retrieved by it, and by others.
        queries: What it asked its retrievers.
    """

    texts: tuple[Retrieved, ...] = ()
    queries: tuple[str, ...] = ()

    @cached_property
    def own(self) -> "Evidence":
        """What the run itself retrieved."""
        return Evidence(tuple(one for one in self.texts if one.own), self.queries)

    @cached_property
    def known(self) -> KnownTexts:
        """The texts, ready to be looked for; those that the run retrieved are expected."""
        return KnownTexts(
            [one.known for one in self.texts], expected=[one.own for one in self.texts]
        )

    def text(self, match: Match) -> str:
        """Which text was found."""
        return self.texts[match.number].known.text


NO_EVIDENCE = Evidence()


@dataclass(slots=True)
class _Entry:
    """A text, when it is forgotten, and its documents by run and id."""

    known: KnownText
    expires: float = 0.0
    documents: OrderedDict[tuple[Hashable, str | None], Document] = field(
        default_factory=OrderedDict
    )


class RetrievedTexts:
    """Remembers what was retrieved; safe under threads."""

    def __init__(self, *, max_bytes: int = _MAX_BYTES, max_seconds: float = _MAX_SECONDS) -> None:
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._queries: OrderedDict[Hashable, dict[str, None]] = OrderedDict()
        # Valid until a text is remembered or forgotten.
        self._recalled: dict[Hashable, Evidence] = {}
        self._nbytes = 0
        self.configure(max_bytes=max_bytes, max_seconds=max_seconds)

    @property
    def nbytes(self) -> int:
        """Size in memory."""
        return self._nbytes

    @property
    def enabled(self) -> bool:
        """Whether anything is remembered."""
        return self._max_bytes > 0 and self._max_seconds > 0

    def configure(self, *, max_bytes: int, max_seconds: float) -> None:
        """Change how much is remembered, and for how long; 0 turns it off.

        Raises:
            ConfigurationError: A value is wrong.
        """
        for name, value in (("max_bytes", max_bytes), ("max_seconds", max_seconds)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise ConfigurationError(f"{name} must be a number of at least 0, got {value!r}")
        with self._lock:
            self._max_bytes, self._max_seconds = max_bytes, max_seconds
            if not self.enabled:
                self._queries.clear()
            self._shrink()

    def forget(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries.clear()
            self._queries.clear()
            self._recalled.clear()
            self._nbytes = 0

    def remember(self, documents: Iterable[Document], run: Hashable = None) -> None:
        """Remember documents that a run has retrieved."""
        if not self.enabled:
            return
        for document in documents:
            text = document.text.strip()
            if not text:
                continue
            with self._lock:
                entry = self._entries.pop(text, None)
                if entry is None:
                    entry = _Entry(KnownText(text))
                    self._nbytes += entry.known.nbytes
                entry.expires = time.monotonic() + self._max_seconds
                entry.documents[run, document.id] = document
                entry.documents.move_to_end((run, document.id))
                while len(entry.documents) > _MAX_SOURCES:
                    entry.documents.popitem(last=False)
                self._entries[text] = entry
                self._recalled.clear()
                self._shrink()

    def remember_query(self, query: str, run: Hashable) -> None:
        """Remember what a run asks its retrievers."""
        if not self.enabled or not query.strip():
            return
        with self._lock:
            self._queries.setdefault(run, {})[query.strip()] = None
            self._queries.move_to_end(run)
            while len(self._queries) > _MAX_RUNS:
                self._queries.popitem(last=False)

    def end_run(self, run: Hashable) -> None:
        """Forget what a run asked; what it retrieved may be quoted later."""
        with self._lock:
            self._queries.pop(run, None)
            self._recalled.pop(run, None)

    def recall(self, run: Hashable = None) -> Evidence:
        """What to look for in a prompt of a run, most recent first."""
        with self._lock:
            self._shrink()
            queries = tuple(self._queries.get(run, ()))
            found = self._recalled.get(run)
            if found is None or found.queries != queries:
                texts = [_of(entry, run) for entry in reversed(self._entries.values())]
                if len(self._recalled) >= _MAX_RECALLED:
                    self._recalled.clear()
                found = self._recalled[run] = Evidence(tuple(texts), queries)
            return found

    def _shrink(self) -> None:
        now = time.monotonic()
        while self._entries:
            text, oldest = next(iter(self._entries.items()))
            if oldest.expires > now and self._nbytes <= self._max_bytes:
                return
            del self._entries[text]
            self._recalled.clear()
            self._nbytes -= oldest.known.nbytes


def _of(entry: _Entry, run: Hashable) -> Retrieved:
    own = [one for (of, _), one in entry.documents.items() if of == run and run is not None]
    if own:
        return Retrieved(entry.known, tuple(own), own=True)
    # Of another run a prompt that quotes its text learns the names, no other metadata.
    last = next(reversed(entry.documents.values()))
    id = last.id or last.metadata.get("source")
    other = Document(last.text, id=None if id is None else str(id), title=last.title)
    return Retrieved(entry.known, (other,), own=False)


# Frameworks have one list of listeners per process, so there is one memory.
RETRIEVED = RetrievedTexts()


def configure_evidence(*, max_bytes: int = _MAX_BYTES, max_seconds: float = _MAX_SECONDS) -> None:
    """Change how much of what was retrieved is remembered in this process, and for how long.

    The adapters recognise retrieved documents in prompts by their texts. These are in memory only.

    Args:
        max_bytes: Upper limit of their size; the oldest are forgotten first. 0 turns it off.
        max_seconds: For how long they are remembered. 0 turns it off.

    Raises:
        ConfigurationError: A value is wrong.
    """
    RETRIEVED.configure(max_bytes=max_bytes, max_seconds=max_seconds)
