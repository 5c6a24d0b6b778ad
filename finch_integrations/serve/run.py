"""Running the application until it is told to stop."""

import asyncio
import logging
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from finch_integrations.pipeline.rag import Retriever
from finch_integrations.retrieval.encoders import Encoder
from finch_integrations.serve.app import make_app
from finch_integrations.serve.settings import ServerSettings

_LARGEST_HEADERS = 64 << 10
# Seconds that a connection may stay open without a request.
_IDLE = 15


def run_server(
    model: Any,
    *,
    port: int,
    retriever: Retriever | None,
    encoder: Encoder | None,
    settings: ServerSettings,
) -> None:
    """Listen until a signal comes; running answers are finished first.

    Args:
        model: As for `make_app`.
        port: Where to listen; 0: any free one.
        retriever: As for `make_app`.
        encoder: As for `make_app`.
        settings: As for `make_app`.
    """
    logging.getLogger("finch_integrations").setLevel(logging.INFO)
    app = make_app(model, retriever=retriever, encoder=encoder, settings=settings)
    uvicorn.Server(make_config(app, settings, host=settings.host, port=port)).run()


def make_config(app: FastAPI, settings: ServerSettings, **place: Any) -> uvicorn.Config:
    """Configure a server.

    Args:
        app: What it serves.
        settings: Of the application.
        place: Where it listens, as `uvicorn.Config` takes it.
    """

    class Impatient(_Impatient):
        seconds = settings.body_timeout

    return uvicorn.Config(
        app,
        http=Impatient,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=_LARGEST_HEADERS,
        timeout_keep_alive=_IDLE,
        timeout_graceful_shutdown=int(settings.timeout),
        **place,
    )


class _Impatient(H11Protocol):
    """Closes connections whose headers do not come; uvicorn would wait for ever."""

    seconds: float
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Begin to wait when headers are due, and not again when a part of them comes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, self.transport.close)

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
