"""Shared fixtures: tiny random models and a byte tokenizer, both made in memory."""

import asyncio
import os

# Before transformers is imported: tests never reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["LANGSMITH_TRACING"] = "false"

import pytest
import torch

from finch_integrations import FinchEngine, ModelLoadError
from tests.tiny import make_model, make_tokenizer


@pytest.fixture(autouse=True)
def nothing_retrieved():
    """What other tests retrieved is no evidence."""
    from finch_integrations.pipeline.evidence import RETRIEVED
    from finch_integrations.pipeline.history import TRIMMED
    from finch_integrations.pipeline.misses import MISSED

    RETRIEVED.forget()
    MISSED.forget()
    TRIMMED.forget()


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture
def model():
    return make_model("llama")


@pytest.fixture
def engine(model, tokenizer):
    return FinchEngine(model, tokenizer)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Two models on disk: one to use, and a smaller one."""
    made = []
    for name, layers in (("model", 2), ("small", 1)):
        made.append(tmp_path_factory.mktemp(name))
        make_model(num_hidden_layers=layers).save_pretrained(made[-1])
        make_tokenizer().save_pretrained(made[-1])
    return made


@pytest.fixture
def folder(folders):
    return folders[0]


@pytest.fixture(scope="session")
def embedded_model():
    """Where the embedded model's real weights are; tests of it carry the marker `model`."""
    from finch_integrations.engine import embedded

    try:
        return embedded.MODEL.path()
    except ModelLoadError as error:
        pytest.fail(f"{error} (make test does that)")


@pytest.fixture(scope="session")
def embedded_engine(embedded_model):
    """The embedded model, loaded; it stays loaded for all tests that follow."""
    with FinchEngine.from_pretrained("embedded", device="cpu", dtype=torch.float32) as engine:
        yield engine


@pytest.fixture(scope="session")
def embedded_encoder():
    """The embedded embedding model's real weights; marker `model` as above."""
    from finch_integrations.retrieval import embedder
    from finch_integrations.retrieval.encoders import SentenceTransformerEncoder

    try:
        embedder.MODEL.path()
    except ModelLoadError as error:
        pytest.fail(f"{error} (make test does that)")
    return SentenceTransformerEncoder(device="cpu")


@pytest.fixture(scope="session")
def walk():
    """A new clone to walk through, and environments for it."""
    from tests.walk import obstacle, walking

    if reason := obstacle():
        # Where everything must be tested, an index that does not answer is no excuse.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"no walk: {reason}")
    with walking() as new:
        yield new


@pytest.fixture
def thread_loop():
    """LlamaIndex runs coroutines in the thread's event loop; one that it makes is never closed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()
