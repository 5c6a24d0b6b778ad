"""Running the application until it is told to stop."""

import logging
from typing import Any

import uvicorn

from finch_integrations.pipeline.rag import Retriever
from finch_integrations.serve.app import make_app
from finch_integrations.serve.settings import ServerSettings


def run_server(
    model: Any, *, port: int, retriever: Retriever | None, settings: ServerSettings
) -> None:
    """Listen until a signal comes; running answers are finished first.

    Args:
        model: As for `make_app`.
        port: Where to listen; 0: any free one.
        retriever: As for `make_app`.
        settings: As for `make_app`.
    """
    logging.getLogger("finch_integrations").setLevel(logging.INFO)
    uvicorn.run(
        make_app(model, retriever=retriever, settings=settings),
        host=settings.host,
        port=port,
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=64 << 10,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=int(settings.timeout),
    )
