"""What can be behind the server: a generator elsewhere, an index on disk."""

import json

import pytest

from finch_integrations import ChooseThenGenerate, Document, FinchEngine, OpenAIServer
from finch_integrations.config import RetrievalConfig
from finch_integrations.retrieval import HybridRetriever
from tests import peer
from tests.serve.conftest import serving
from tests.serve.test_chat import events_of
from tests.tiny import make_model, make_tokenizer

pytestmark = pytest.mark.allow_hosts(["127.0.0.1"])

FILLER = "Nothing of that kind is said in here today. "
DOCUMENTS = [
    FILLER * 4 + "The code of the store is 7316.\n\n" + FILLER * 3,
    "Ask for the store code at the gate. " + FILLER,
]
SAID = "The code of the store is 7316."


def chat(**changes):
    messages = [{"role": "user", "content": "What is the code of the store?"}]
    return {"model": "far", "messages": messages, "documents": DOCUMENTS, **changes}


def far_from(url):
    scorer = FinchEngine(make_model(), make_tokenizer())
    model = ChooseThenGenerate(OpenAIServer(url, "far", max_retries=0), scorer)
    return model


def test_a_generator_elsewhere_writes_the_answer_from_what_was_chosen(tmp_path):
    pieces = ("The code of the store ", "is 7316.")
    with (
        peer.serving(peer.Reply(pieces=pieces)) as there,
        serving(tmp_path, model=far_from(there.url)) as running,
    ):
        whole = running.post(chat(target_size=200)).json()
        streamed = events_of(running.post(chat(target_size=200, stream=True)))
        listed = running.service.names
    assert listed == ["far"]
    message = whole["choices"][0]["message"]
    assert message["content"] == SAID
    assert message["annotations"][0]["url_citation"]["title"] == "doc-1"
    assert "".join(e["choices"][0]["delta"].get("content", "") for e in streamed) == SAID
    # The other server got the chosen passages as text, and no field that it does not know.
    body = there.requests[0]["body"]
    assert "documents" not in body
    prompt = body["messages"][-1]["content"]
    assert prompt.endswith("What is the code of the store?")
    assert "<document" in prompt
    assert not all(text in prompt for text in DOCUMENTS)


def test_what_a_generator_elsewhere_cannot_be_asked_for_is_refused(tmp_path):
    with (
        peer.serving(peer.Reply(pieces=("It is.",))) as there,
        serving(tmp_path, model=far_from(there.url)) as running,
    ):
        refused = running.post(chat(target_size=200, logprobs=True))
        assert refused.status_code == 400
        assert "cannot be asked for logprobs" in refused.json()["error"]["message"]
        assert there.requests == []
        several = running.post(chat(target_size=200, n=2))
        texts = [choice["message"]["content"] for choice in several.json()["choices"]]
        assert texts == ["It is."] * 2
        assert len(there.requests) == 2


@pytest.mark.parametrize(
    ("reply", "status"),
    [
        (peer.Reply(status=500), 502),
        (peer.Reply(status=400, content={"error": {"message": "no"}}), 502),
        (peer.Reply(hang_up=True), 502),
    ],
)
def test_a_generator_that_fails_is_named_in_a_typed_error(tmp_path, reply, status):
    with (
        peer.serving(reply) as there,
        serving(tmp_path, model=far_from(there.url)) as running,
    ):
        failed = running.post(chat(target_size=200))
        assert failed.status_code == status, failed.text
        assert failed.json()["error"]["type"] == "server_error"
        assert running.service.active == 0


def test_a_generator_that_is_killed_in_an_answer_ends_the_stream_with_an_error(tmp_path):
    broken = peer.Reply(raw=b'data: {"choices": [{"index": 0, "delta": {"content": "The"}}]}\n\n')
    with (
        peer.serving(broken) as there,
        serving(tmp_path, model=far_from(there.url)) as running,
    ):
        response = running.post(chat(target_size=200, stream=True))
        lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
        assert json.loads(lines[-1])["error"]["code"] == "generator_failed"
        assert "[DONE]" not in response.text
        assert running.service.active == 0


def test_an_index_on_disk_is_searched(tmp_path):
    documents = [Document(text, id=f"page-{n}") for n, text in enumerate(DOCUMENTS)]
    built = HybridRetriever.from_documents(documents, encoder=None)
    built.save(tmp_path / "index")
    config = RetrievalConfig(top_k=20, max_document_tokens=16384, return_parents=True)
    shelf = HybridRetriever.load(tmp_path / "index", config=config)
    folder = tmp_path / "s"
    folder.mkdir()
    with serving(folder, retriever=shelf, max_tokens=50) as running:
        body = chat(model="tiny", max_tokens=5)
        del body["documents"]
        found = running.post(body)
        assert found.status_code == 200, found.text
        scores = found.json()["finch"]["document_scores"]
        assert scores[0]["document_id"].startswith("page-0")
        assert running.post({**body, "retrieve": False}).json()["finch"]["documents"] == 0
