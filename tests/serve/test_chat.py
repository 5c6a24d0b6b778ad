"""Answers over HTTP: those of the engine, whole and streamed, with documents of every kind."""

import json

import pytest

from finch_integrations import Document
from finch_integrations.engine.selector import Selector
from finch_integrations.pipeline.ask import AnswerDetails, AnswerPiece
from tests.serve.conftest import serving
from tests.tiny import text_of

DOCUMENTS = [text_of(150, seed=1), text_of(90, seed=2), text_of(60, seed=3)]
QUESTION = [{"role": "user", "content": "What is it?"}]


def chat(**changes):
    return {"model": "tiny", "messages": QUESTION, "max_tokens": 12, **changes}


def expected(engine, documents, **options):
    context = engine.compress(documents, "What is it?", **options)
    return engine.generate(context, max_tokens=12).text


def events_of(response):
    """The data of a stream's events, without the end mark."""
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def test_an_answer_is_the_engines_and_says_what_it_cost(server):
    response = server.post(chat(documents=DOCUMENTS, target_size=60))
    assert response.status_code == 200
    body = response.json()
    choice = body["choices"][0]
    assert choice["message"]["content"] == expected(server.engine, DOCUMENTS, target_size=60)
    assert choice["finish_reason"] == "length"
    assert (body["object"], body["model"]) == ("chat.completion", "tiny")
    assert body["finch"]["kept_tokens"] == 60
    ids = [score["document_id"] for score in body["finch"]["document_scores"]]
    assert ids == ["doc-1", "doc-2", "doc-3"]
    usage = body["usage"]
    assert usage["completion_tokens"] == 12
    assert usage["prompt_tokens"] > sum(map(len, DOCUMENTS))
    assert usage["total_tokens"] == usage["prompt_tokens"] + 12


@pytest.mark.parametrize("count", [0, 3])
def test_a_stream_says_the_same_piece_by_piece(server, count):
    documents = {"documents": DOCUMENTS, "target_size": 60} if count else {}
    whole = server.post(chat(**documents)).json()
    response = server.post(chat(**documents, stream=True, stream_options={"include_usage": True}))
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, last, usage = events_of(response)
    text = "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks)
    assert text == whole["choices"][0]["message"]["content"]
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert last["choices"][0]["finish_reason"] == "length"
    assert last["finch"]["documents"] == count
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 12
    assert len({chunk["id"] for chunk in [*chunks, last, usage]}) == 1


def test_the_scores_can_decide_how_much_is_kept(server):
    body = server.post(chat(documents=DOCUMENTS, target_size="auto")).json()
    stats = server.engine.compress(DOCUMENTS, "What is it?", target_size="auto").stats
    assert body["finch"]["kept_tokens"] == stats.kept_tokens < stats.document_tokens
    assert body["finch"]["limited_by"] == stats.limited_by
    text = expected(server.engine, DOCUMENTS, target_size="auto")
    assert body["choices"][0]["message"]["content"] == text


def test_how_to_choose_reaches_the_engine(server, monkeypatch):
    asked, select = [], Selector.select

    def watched(self, backbone, find_reader, inputs, targets, method, config, tracker):
        asked.append((config.method, config.read_size))
        return select(self, backbone, find_reader, inputs, targets, method, config, tracker)

    monkeypatch.setattr(Selector, "select", watched)
    few = {"documents": DOCUMENTS, "target_size": 60}
    for more in ({}, {"read_size": 99}, {"method": "contrast"}):
        assert server.post(chat(**few, **more)).status_code == 200
    assert asked == [("likelihood", "auto"), ("likelihood", 99), ("contrast", "auto")]


FORMS = {
    "texts": DOCUMENTS,
    "fields": [{"text": text} for text in DOCUMENTS],
    "vllm": [{"title": f"T{n}", "text": text} for n, text in enumerate(DOCUMENTS)],
    "snippets": [{"id": f"d{n}", "snippet": text} for n, text in enumerate(DOCUMENTS)],
    "cohere": [
        {"id": f"d{n}", "data": {"title": "T", "snippet": text}} for n, text in enumerate(DOCUMENTS)
    ],
    "cohere texts": [{"id": f"d{n}", "data": text} for n, text in enumerate(DOCUMENTS)],
    "cohere fields": [{"data": {"place": text, "year": "1990"}} for text in DOCUMENTS],
}


@pytest.mark.parametrize("form", FORMS)
def test_documents_are_taken_in_the_forms_of_several_clients(server, form):
    response = server.post(chat(documents=FORMS[form], target_size=80))
    assert response.status_code == 200, response.text
    scores = response.json()["finch"]["document_scores"]
    assert len(scores) == 3
    assert all(score["tokens"] >= len(text) for score, text in zip(scores, DOCUMENTS, strict=True))
    if form in ("snippets", "cohere", "cohere texts"):
        assert [score["document_id"] for score in scores] == ["d0", "d1", "d2"]


def test_documents_in_the_prompt_are_found(server):
    prompt = "".join(f"<document>{text}</document>\n" for text in DOCUMENTS)
    messages = [{"role": "user", "content": f"<documents>\n{prompt}</documents>\n\nWhat is it?"}]
    body = server.post(chat(messages=messages, target_size=60)).json()
    assert body["finch"]["documents"] == 3
    assert body["finch"]["documents_from"] == "mark"
    off = server.post(chat(messages=messages, context_detection="off")).json()
    assert off["finch"]["documents"] == 0


class Saying:
    """A model that says what it is told to; nothing else of it is of interest here."""

    name = "tiny"

    def __init__(self, text):
        self._text = text

    def count_tokens(self, text):
        return len(text)

    def bytes_needed(self, request):
        return 0

    def free_bytes(self):
        return 1

    def close(self):
        pass

    async def astream(self, request, *, progress=None):
        details = AnswerDetails(
            text=self._text,
            finish_reason="stop",
            prompt_tokens=5,
            generation_tokens=3,
            generation_seconds=0.1,
            compression=None,
            document_shares=(),
        )
        yield AnswerPiece(text=self._text, details=details)


CITED = [
    {"id": "rules", "text": "The door code is 4711 until noon.", "url": "https://example.org/a"},
    {"title": "Menu", "text": "Soup is served at one o'clock sharp."},
]
SAID = "Note: the door code is 4711 until noon, and soup is served at one o'clock sharp."


def test_quotes_are_cited_in_annotations_with_an_address_that_is_never_empty(tmp_path):
    with serving(tmp_path, model=Saying(SAID)) as running:
        plain = running.post(chat(documents=CITED)).json()["choices"][0]["message"]
        inline = running.post(chat(documents=CITED, citations="inline")).json()
        off = running.post(chat(documents=CITED, citations="off")).json()
        chunks = events_of(running.post(chat(documents=CITED, stream=True)))
        marked = events_of(running.post(chat(documents=CITED, stream=True, citations="inline")))
    cited = [annotation["url_citation"] for annotation in plain["annotations"]]
    assert [one["url"] for one in cited] == ["https://example.org/a", "urn:document:doc-2"]
    assert [one["title"] for one in cited] == ["rules", "Menu"]
    assert SAID[cited[0]["start_index"] : cited[0]["end_index"]].lower().startswith("the door code")
    message = inline["choices"][0]["message"]
    assert message["content"].count(" [1]") == message["content"].count(" [2]") == 1
    for one, annotation in zip(cited, message["annotations"], strict=True):
        place = annotation["url_citation"]
        quoted = SAID[one["start_index"] : one["end_index"]]
        assert message["content"][place["start_index"] : place["end_index"]] == quoted
    assert off["choices"][0]["message"]["annotations"] == []
    assert chunks[-1]["choices"][0]["delta"]["annotations"] == plain["annotations"]
    *texts, last = (chunk["choices"][0]["delta"] for chunk in marked)
    assert "".join(delta["content"] for delta in texts) == message["content"]
    assert last["annotations"] == message["annotations"]


def test_what_was_read_for_another_question_is_counted_as_cached(server):
    other = [{"role": "user", "content": "Who was there?"}]
    documents = [text_of(150, seed=8), text_of(90, seed=9)]
    options = {"documents": documents, "target_size": 60, "read_size": "all"}
    first = server.post(chat(**options)).json()["usage"]
    second = server.post(chat(**options, messages=other)).json()["usage"]
    assert first["prompt_tokens_details"]["cached_tokens"] == 0
    assert second["prompt_tokens_details"]["cached_tokens"] > 200


def test_completions_answer_a_prompt(server):
    body = {"model": "tiny", "prompt": "What is it?", "max_tokens": 12, "documents": DOCUMENTS}
    whole = server.post(body, path="/v1/completions").json()
    assert whole["choices"][0]["text"] == expected(server.engine, DOCUMENTS)
    chunks = events_of(server.post({**body, "stream": True}, path="/v1/completions"))
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == whole["choices"][0]["text"]


class Shelf:
    """A retriever that always finds the same."""

    def __init__(self, documents):
        self.documents, self.asked = documents, []

    def retrieve(self, query, *, count_tokens, **options):
        self.asked.append((query, options))
        return self.documents


def test_an_index_is_searched_for_questions_without_documents(tmp_path):
    shelf = Shelf([Document(text, id=f"s{n}") for n, text in enumerate(DOCUMENTS)])
    with serving(tmp_path, retriever=shelf) as running:
        found = running.post(chat(retrieval_top_k=7)).json()
        given = running.post(chat(documents=["Own."])).json()
        none = running.post(chat(retrieve=False)).json()
    assert [d["document_id"] for d in found["finch"]["document_scores"]] == ["s0", "s1", "s2"]
    assert shelf.asked == [("What is it?", {"top_k": 7})]
    assert given["finch"]["documents"] == 1
    assert none["finch"]["documents"] == 0


def test_the_model_is_listed_and_the_state_is_shown(server):
    with server.client() as client:
        assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"
        assert client.get("/v1/models/tiny").json()["object"] == "model"
        assert client.get("/v1/models/other").status_code == 404
        assert client.get("/health").json() == {"status": "ok"}
        assert client.get("/ready").json() == {"status": "ready"}
        server.post(chat(documents=DOCUMENTS, target_size=60))
        metrics = client.get("/metrics").text
        assert 'finch_requests_total{path="/v1/chat/completions",status="200"}' in metrics
        assert 'finch_tokens_total{kind="kept"}' in metrics
        assert "/v1/chat/completions" in client.get("/openapi.json").json()["paths"]
