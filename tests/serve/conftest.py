"""A server on a Unix socket, with a tiny model; no network."""

import contextlib
import threading
import time

import httpx
import openai
import pytest
import uvicorn

from finch_integrations import FinchEngine
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.serve import ServerSettings, make_app
from finch_integrations.serve.run import make_config
from tests.tiny import make_model, make_tokenizer


class Running:
    """A server in a thread.

    Attributes:
        app: The application.
        socket: The path of its socket.
        engine: Its model.
    """

    def __init__(self, app, socket, engine):
        self.app, self.socket, self.engine = app, socket, engine

    @property
    def service(self):
        return self.app.state.service

    def client(self, **options):
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return httpx.Client(transport=transport, base_url="http://localhost", timeout=60, **options)

    def openai(self):
        """OpenAI's own client; to be closed."""
        transport = httpx.HTTPTransport(uds=str(self.socket))
        return openai.OpenAI(
            base_url="http://localhost/v1",
            api_key="none",
            max_retries=0,
            http_client=httpx.Client(transport=transport),
        )

    def post(self, body, path="/v1/chat/completions", **options):
        with self.client() as client:
            return client.post(path, json=body, **options)


@contextlib.contextmanager
def serving(folder, model=None, retriever=None, encoder=None, around=None, **settings):
    """Run a server until the block ends; `around`: makes what is served of its application."""
    engine = FinchEngine(make_model(), make_tokenizer())
    shared = SharedEngine(engine)
    shared.name = "tiny"
    options = ServerSettings(**settings)
    app = make_app(
        shared if model is None else model,
        retriever=retriever,
        encoder=encoder,
        settings=options,
    )
    socket = folder / "s"
    served = app if around is None else around(app)
    server = uvicorn.Server(make_config(served, options, uds=str(socket), log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until(lambda: server.started and app.state.service.problem is None)
        running = Running(app, socket, engine)
        running.server = server
        yield running
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not end"


def until(condition, seconds=20):
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def until_free(service):
    """Wait until nothing runs; in time of this process, because others may have the processor."""
    started = time.process_time()
    until(lambda: service.active == 0)
    assert time.process_time() - started < 2


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("socket"), max_documents=50, max_tokens=200) as running:
        yield running


@pytest.fixture
def client(server):
    with server.openai() as client:
        yield client


@pytest.fixture
def reachable():
    """A server on a port of this machine: its address, and what answers."""
    engine = FinchEngine(make_model(), make_tokenizer())
    shared = SharedEngine(engine)
    shared.name = "tiny"
    settings = ServerSettings(max_tokens=4000, default_tokens=30)
    app = make_app(shared, settings=settings)
    server = uvicorn.Server(make_config(app, settings, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    until(lambda: server.started and app.state.service.problem is None)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/", app.state.service
    server.should_exit = True
    thread.join(30)
