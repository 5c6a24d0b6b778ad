"""The models in memory: each once in the process, for all callers that name the same.

A user of a model's weights leases them, and the last lease that ends frees them. A shared engine
is leased by the process itself: it stays until `unload` ends it for everyone.
"""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from finch_integrations.engine.backbone import Backbone


class _Engine(Protocol):
    @property
    def backbone(self) -> "Backbone": ...


Engine = TypeVar("Engine", bound=_Engine)


@dataclass(frozen=True, slots=True)
class Lease:
    """A claim on a model's weights; `release` it when done."""

    key: str
    backbone: "Backbone"


@dataclass(slots=True)
class _Shared:
    """A shared engine, and what ends its leases."""

    engine: Any
    leases: ExitStack


@dataclass(slots=True)
class _Entry:
    """A model's weights, how many lease them, and the shared engines among those by their keys."""

    backbone: "Backbone"
    leases: int = 0
    shared: dict[str, _Shared] = field(default_factory=dict)


_entries: dict[str, _Entry] = {}
_guard = threading.Lock()
# One load at a time: making a model, transformers changes the default dtype of the whole process.
_loading = threading.RLock()


def acquire(key: str, load: Callable[[], "Backbone"]) -> Lease:
    """Lease a model's weights; the first caller loads them, and the others wait.

    Args:
        key: Equal for equal weights.
        load: Loads them. Its errors are raised here and not remembered.
    """
    lease = _lease(key)
    if lease is None:
        with _loading:
            lease = _lease(key)
            if lease is None:
                lease = Lease(key, load())
                with _guard:
                    _entries[key] = _Entry(lease.backbone, leases=1)
    return lease


def release(lease: Lease) -> None:
    """End a lease; the last one frees the weights."""
    with _guard:
        entry = _entries[lease.key]
        entry.leases -= 1
        if not entry.leases:
            del _entries[lease.key]


def share(key: str, make: Callable[[ExitStack], Engine]) -> Engine:
    """Return a shared engine; the first caller makes it, and the others wait.

    Args:
        key: Equal for engines that are made in the same way.
        make: Makes the engine of leased weights, and puts what ends its leases on the stack.
    """
    engine: Engine | None = find(key)
    if engine is None:
        with _loading:
            engine = find(key)
            if engine is None:
                with ExitStack() as leases:
                    engine = make(leases)
                    with _guard:
                        _entry_of(engine.backbone).shared[key] = _Shared(engine, leases.pop_all())
    return engine


def find(key: str) -> Any:
    """Return the shared engine of a key, or None; loads nothing."""
    with _guard:
        found = (entry.shared[key] for entry in _entries.values() if key in entry.shared)
        shared = next(found, None)
    return None if shared is None else shared.engine


def unload(key: str) -> None:
    """End every shared engine that shares its weights with the one of this key."""
    with _guard:
        entry = next((entry for entry in _entries.values() if key in entry.shared), None)
        ended = list(entry.shared.values()) if entry else []
        if entry:
            entry.shared.clear()
    for shared in ended:
        shared.leases.close()


def _lease(key: str) -> Lease | None:
    with _guard:
        entry = _entries.get(key)
        if entry is None:
            return None
        entry.leases += 1
        return Lease(key, entry.backbone)


def _entry_of(backbone: "Backbone") -> _Entry:
    return next(entry for entry in _entries.values() if entry.backbone is backbone)
