"""The server on a cluster of Ray's: `serve run finch_integrations.serve.ray:app`.

Needs the extra `ray`. Three kinds of processes, each of which grows by itself: those that speak
HTTP, without a model (`Front`); those that read documents, where requests over the same documents
come to the same one (`Scorer`, or `Reader` where it answers too); and those that write answers
from what was chosen (`Generator`).
"""

import logging
import os
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field
from ray import serve
from ray.exceptions import RayActorError
from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter

from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.elsewhere import ChooseThenGenerate
from finch_integrations.pipeline.openai_server import OpenAIServer
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.worker import PLACES
from finch_integrations.serve.app import make_app
from finch_integrations.serve.errors import as_api_error
from finch_integrations.serve.remote import (
    ATTEMPTS,
    PAUSE,
    Event,
    ProcessLostError,
    RemoteModel,
    documents_key,
)
from finch_integrations.serve.service import Model, Service
from finch_integrations.serve.settings import ServerSettings

_log = logging.getLogger(__name__)
# Where the processes of Ray that have the connections look for what goes before applications.
_CALLBACK = "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH"
_REPEATING = "finch_integrations.serve.repeating:middlewares"


class RayOptions(BaseModel):
    """What `serve run … NAME=VALUE` may set."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    model: str = "embedded"
    """Answers, as `finch serve` takes it."""
    scorer: str | None = None
    """Chooses passages in processes of its own; without it the model reads and answers."""
    base_url: str | None = None
    """Of an OpenAI-compatible server that has the model; `scorer` is then `embedded` by default."""
    device: str | None = None
    """Where the models run."""
    dtype: str = "auto"
    """Of the models' weights."""
    target_size: int | Literal["auto"] | None = None
    """Document tokens to keep; `auto`: as many as the passages' scores call for."""
    min_replicas: int = Field(default=1, ge=1)
    """Processes of each kind that there are at least."""
    max_replicas: int = Field(default=4, ge=1)
    """Processes of each kind that there are at most."""
    cpus: float = Field(default=1, ge=0)
    """Processor cores of each process with a model."""
    gpus: float = Field(default=0, ge=0)
    """GPUs of each process with a model."""


class Replica:
    """Answers requests with a model of this process; the limits of a server hold for each."""

    async def __init__(  # type: ignore[misc]  # Ray waits for it
        self, make_model: Callable[..., Model], settings: ServerSettings, *behind: Any
    ) -> None:
        """Make the model and load it.

        Args:
            make_model: Makes it, given what is behind it.
            settings: The limits.
            behind: Handles of deployments that the model needs.
        """
        self._service = Service(make_model(*behind), settings)
        await _load(self._service)

    async def answer(self, request: AskRequest) -> AsyncGenerator[Event, None]:
        """Answer a request; an error is the last thing that comes."""
        try:
            async with aclosing(self._service.events([request])) as events:
                async for _, said in events:
                    yield said
        except Exception as error:
            yield as_api_error(error)

    def count_tokens(self, text: str) -> int:
        """Measure a text."""
        return self._service.model.count_tokens(text)


class Front:
    """Speaks HTTP: the application of `make_app`, whose model is in other processes."""

    async def __init__(  # type: ignore[misc]  # Ray waits for it
        self, name: str, settings: ServerSettings, handle: Any
    ) -> None:
        """Take a handle of the replicas that answer, and wait for one of them."""
        if os.environ.get(_CALLBACK) != _REPEATING:
            _log.warning(
                "requests are lost when a process that speaks HTTP is killed. Set %s=%s where Ray "
                "is started, on every machine",
                _CALLBACK,
                _REPEATING,
            )
        self._app = make_app(remote_model(name, handle), settings=settings)
        await _load(self._app.state.service)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._app


def app(options: RayOptions) -> Any:
    """Make the application for Ray Serve.

    A Ray that is started after this in the same process or by it repeats the requests of a `Front`
    that is killed (`serve.repeating`).

    Raises:
        ConfigurationError: An option is wrong.
    """
    os.environ.setdefault(_CALLBACK, _REPEATING)
    key = os.environ.get("FINCH_SERVE_KEY") or None
    target = {} if options.target_size is None else {"target_size": options.target_size}
    settings = ServerSettings(
        host="0.0.0.0" if key else "127.0.0.1", api_key=key, compression=target
    )
    place: dict[str, Any] = {"device": options.device, "dtype": options.dtype}
    make_model = partial(SharedEngine, options.model, **place)
    make_scorer = partial(SharedEngine, options.scorer or "embedded", **place)
    if options.base_url is not None:
        server = OpenAIServer(options.base_url, options.model)
        choosing = partial(_choosing, make_scorer, server)
        reader = _deployed("Scorer", choosing, options, settings)
    elif options.scorer is not None:
        generator = _deployed("Generator", make_model, options, settings)
        choosing = partial(_choosing_for_replicas, make_scorer, options.model)
        reader = _deployed("Scorer", choosing, options, settings, generator)
    else:
        reader = _deployed("Reader", make_model, options, settings)
    front = serve.deployment(
        serve.ingress()(Front),
        name="Front",
        max_ongoing_requests=settings.max_requests,
        autoscaling_config=_growing(options),
        graceful_shutdown_timeout_s=settings.timeout,
    )
    return front.bind(options.model, settings, reader)


def remote_model(name: str, handle: Any) -> RemoteModel:
    """Make a model of a handle of replicas."""

    async def send(request: AskRequest) -> AsyncGenerator[Event, None]:
        key = documents_key(request)
        answer = handle.options(method_name="answer", stream=True, session_id=key)
        events = answer.remote(request)
        try:
            async for event in events:
                yield event
        except RayActorError as error:
            raise ProcessLostError from error
        finally:
            events.cancel()  # does nothing if it has ended

    def count_tokens(text: str) -> int:
        for _ in range(ATTEMPTS - 1):
            try:
                return int(handle.count_tokens.remote(text).result())
            except RayActorError:
                time.sleep(PAUSE)
        return int(handle.count_tokens.remote(text).result())

    return RemoteModel(name, send, count_tokens)


async def _load(service: Service) -> None:
    """Make a service ready; Ray tries again what fails."""
    await service.load()
    if service.problem is not None:
        raise RuntimeError(service.problem)


def _deployed(
    kind: str,
    make_model: Callable[..., Model],
    options: RayOptions,
    settings: ServerSettings,
    *behind: Any,
) -> Any:
    """Replicas of one kind, where requests over the same documents come to the same one."""
    deployment = serve.deployment(
        Replica,
        name=kind,
        autoscaling_config=_growing(options),
        max_ongoing_requests=2 * PLACES,
        graceful_shutdown_timeout_s=settings.timeout,
        ray_actor_options={"num_cpus": options.cpus, "num_gpus": options.gpus},
        request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),
    )
    return deployment.bind(make_model, settings, *behind)


def _growing(options: RayOptions) -> dict[str, Any]:
    return {
        "min_replicas": options.min_replicas,
        "max_replicas": max(options.min_replicas, options.max_replicas),
        "target_ongoing_requests": PLACES // 2,
    }


def _choosing(make_scorer: Callable[[], SharedEngine], generator: Any) -> ChooseThenGenerate:
    return ChooseThenGenerate(generator, make_scorer())


def _choosing_for_replicas(
    make_scorer: Callable[[], SharedEngine], name: str, handle: Any
) -> ChooseThenGenerate:
    return _choosing(make_scorer, remote_model(name, handle))
