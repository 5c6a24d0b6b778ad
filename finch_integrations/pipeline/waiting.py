"""Requests whose turn has not come yet: those over the same documents are chosen for together.

Reading is most of what a question costs, and several questions can share one reading. So when a
request's turn comes, it also chooses for others that wait with the same documents and settings.
They wait until that is done, even if their turn comes before.
"""

import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from finch_integrations.pipeline.ask import AskRequest, Turn, question_of

# More are left for later: their selections would be forgotten before their turn.
_TOGETHER = 32


@dataclass(slots=True, eq=False)
class _Place:
    """A request's place in the queue: the same request may be there twice."""

    request: AskRequest
    chosen: bool = False
    chosen_by: "_Place | None" = None


class Waiting:
    """The requests that wait for one model; thread-safe."""

    def __init__(self) -> None:
        """Start with none."""
        self._places: list[_Place] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Count the requests whose turn has not come."""
        return len(self._places)

    @contextmanager
    def queue(self, *requests: AskRequest) -> Iterator[list[Turn]]:
        """Have requests wait; they are gone in the end, whether their turn came or not."""
        places = [_Place(request) for request in requests]
        with self._lock:
            self._places += places
        try:
            yield [partial(self._take_turn, place) for place in places]
        finally:
            with self._lock:
                self._places = [place for place in self._places if place not in places]
            for place in places:
                place.chosen = True

    @contextmanager
    def _take_turn(self, place: _Place, check: Callable[[], None]) -> Iterator[list[str]]:
        while place.chosen_by is not None and not place.chosen_by.chosen:
            check()
        with self._lock:
            self._places = [other for other in self._places if other is not place]
            others: list[_Place] = []
            if place.request.documents and self._places:
                key = _beside_the_question(place.request)
                alike = (one for one in self._places if _beside_the_question(one.request) == key)
                others = list(islice(alike, _TOGETHER))
            for other in others:
                other.chosen_by = place
        try:
            asked = (question_of(other.request) for other in others)
            yield [question for question in asked if question is not None]
        finally:
            place.chosen = True


_by_model: "weakref.WeakKeyDictionary[object, Waiting]" = weakref.WeakKeyDictionary()
_guard = threading.Lock()


def waiting_for(model: object) -> Waiting:
    """Return the requests that wait for a loaded model."""
    with _guard:
        waiting = _by_model.get(model)
        if waiting is None:
            waiting = _by_model[model] = Waiting()
        return waiting


def _beside_the_question(request: AskRequest) -> AskRequest:
    """What must be the same; how an answer is decoded need not."""
    return replace(request, messages=request.messages[:-1], sampling={})
