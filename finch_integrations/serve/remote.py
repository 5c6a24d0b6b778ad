"""A model in other processes, some of which may be lost while they answer."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from finch_integrations.pipeline.ask import AnswerPiece, AskRequest, Progress
from finch_integrations.serve.errors import ApiError
from finch_integrations.types import CompressionProgress

# How often a request is sent until a process lives long enough to answer it.
ATTEMPTS = 4
PAUSE = 0.2  # seconds, in which it becomes known which process is gone


class ProcessLostError(Exception):
    """The process that answered is gone."""


Event = CompressionProgress | AnswerPiece | ApiError
Send = Callable[[AskRequest], AsyncGenerator[Event, None]]


class RemoteModel:
    """Answers requests elsewhere; one whose process is lost is sent again.

    What was passed on already is not passed on twice: requests are sent with a seed, so that the
    second answer is the first one again.

    Attributes:
        name: The model's.
    """

    takes_documents = True

    def __init__(self, name: str, send: Send, count_tokens: Callable[[str], int]) -> None:
        """Take the ways to the other processes.

        Args:
            name: The model's.
            send: Sends a request; yields what comes of it, an error as the last thing. Raises
                `ProcessLostError`.
            count_tokens: Measures a text there.
        """
        self.name = name
        self._send = send
        self._count_tokens = count_tokens

    async def astream(
        self, request: AskRequest, *, progress: Progress | None = None
    ) -> AsyncGenerator[AnswerPiece, None]:
        """Answer piece by piece; closing the generator stops the work.

        Args:
            request: What to answer.
            progress: Called when something was read.

        Raises:
            ApiError: As the other process raises it; or that one was lost, again and again or
                with an answer that is not the same a second time.
        """
        if request.sampling.get("seed") is None:
            request = replace(request, sampling={**request.sampling, "seed": secrets.randbits(32)})
        given: list[AnswerPiece] = []
        for _ in range(ATTEMPTS):
            number = 0
            try:
                async with aclosing(self._send(request)) as events:
                    async for event in events:
                        if isinstance(event, ApiError):
                            raise event
                        if not isinstance(event, AnswerPiece):
                            if progress is not None:
                                progress(event)
                            continue
                        number += 1
                        if number > len(given):
                            given.append(event)
                            yield event
                        elif not _same(event, given[number - 1]):
                            raise _lost()
                return
            except ProcessLostError:
                await asyncio.sleep(PAUSE)
        raise _lost()

    def count_tokens(self, text: str) -> int:
        """Measure a text."""
        return self._count_tokens(text)

    def bytes_needed(self, request: AskRequest) -> int:
        """No bytes of this process."""
        return 0

    def free_bytes(self) -> int:
        """No bytes that this process could give."""
        return 0

    def close(self) -> None:
        """Leave the other processes to who started them."""


def documents_key(request: AskRequest) -> str:
    """The same text for all requests over the same documents, in any order; without any: ''."""
    texts = sorted(
        hashlib.sha256(repr((document.title, document.text)).encode()).digest()
        for document in request.documents
    )
    return hashlib.sha256(b"".join(texts)).hexdigest() if texts else ""


def _same(piece: AnswerPiece, other: AnswerPiece) -> bool:
    def written(one: AnswerPiece) -> tuple[str, str, list[str]]:
        return one.text, one.reasoning, [call["name"] for call in one.calls]

    return written(piece) == written(other)


def _lost() -> ApiError:
    return ApiError(
        503,
        "the process that answered is gone, and the answer could not be repeated. Try again",
        "replica_lost",
        headers={"Retry-After": "5"},
    )
