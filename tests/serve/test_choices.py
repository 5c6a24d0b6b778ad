"""Several answers to a question, and how likely their tokens were."""

import asyncio
import json

import pytest

from finch_integrations.pipeline.ask import AskRequest
from tests.serve.conftest import serving
from tests.serve.test_chat import CITED, SAID, Saying, chat, events_of
from tests.tiny import text_of

DOCUMENTS = [text_of(150, seed=1), text_of(90, seed=2)]
WARM = {"temperature": 1.5, "documents": DOCUMENTS, "target_size": 60}


def said(response):
    choices = response.json()["choices"]
    assert [choice["index"] for choice in choices] == list(range(len(choices)))
    return [choice["message"]["content"] for choice in choices]


def streamed(response):
    """The texts of a stream's answers, by their index."""
    texts, ended = {}, []
    for event in events_of(response):
        for choice in event["choices"]:
            index = choice["index"]
            assert index not in ended
            delta = choice.get("delta", {"content": choice.get("text")})
            texts[index] = texts.get(index, "") + (delta.get("content") or "")
            if choice["finish_reason"]:
                ended.append(index)
    assert sorted(ended) == sorted(texts)
    return [texts[index] for index in sorted(texts)]


def test_several_answers_are_those_of_seeds_that_follow_each_other(server):
    alone = [said(server.post(chat(**WARM, seed=5 + number)))[0] for number in range(3)]
    assert len(set(alone)) == 3
    whole = server.post(chat(**WARM, seed=5, n=3))
    assert said(whole) == alone
    assert streamed(server.post(chat(**WARM, seed=5, n=3, stream=True))) == alone
    usage, one = whole.json()["usage"], server.post(chat(**WARM, seed=5)).json()["usage"]
    assert usage["completion_tokens"] == 3 * 12
    assert usage["prompt_tokens"] == one["prompt_tokens"]
    assert usage["total_tokens"] == one["prompt_tokens"] + 36
    assert server.service.active == 0


def test_several_answers_without_a_seed_differ_and_greedy_ones_do_not(server):
    assert len(set(said(server.post(chat(**WARM, n=4))))) > 1
    greedy = said(server.post(chat(documents=DOCUMENTS, target_size=60, n=2)))
    assert greedy[0] == greedy[1]
    assert said(server.post(chat(**WARM, seed=2**64 - 1, n=2)))


def test_a_stream_of_several_says_the_tokens_of_all(server):
    options = {"stream_options": {"include_usage": True}, "stream": True}
    *_, last = events_of(server.post(chat(**WARM, n=3, **options)))
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 36


def test_each_of_several_answers_has_its_citations(tmp_path):
    with serving(tmp_path, model=Saying(SAID)) as running:
        body = chat(documents=CITED, n=2, citations="inline")
        whole = running.post(body).json()["choices"]
        assert whole[0]["message"] == whole[1]["message"]
        assert " [1]" in whole[0]["message"]["content"]
        texts = streamed(running.post({**body, "stream": True}))
        assert texts == [choice["message"]["content"] for choice in whole]


def test_a_completion_is_marked_in_the_whole_as_in_a_stream(tmp_path):
    with serving(tmp_path, model=Saying(SAID)) as running:
        body = {"model": "tiny", "prompt": "What?", "documents": CITED, "citations": "inline"}
        whole = running.post(body, path="/v1/completions").json()["choices"][0]["text"]
        stream = running.post({**body, "stream": True}, path="/v1/completions")
        assert streamed(stream) == [whole]
        assert whole.count(" [1]") == whole.count(" [2]") == 1


def test_if_one_of_several_fails_the_request_fails_and_the_others_end(tmp_path):
    class Half(Saying):
        began = ended = 0

        async def astream(self, request, *, progress=None):
            self.began += 1
            if self.began == 2:
                raise ValueError("no")
            try:
                while True:
                    async for piece in super().astream(request, progress=progress):
                        await asyncio.sleep(0.01)
                        if piece.details is None:
                            yield piece
            finally:
                self.ended += 1

    model = Half(SAID)
    with serving(tmp_path, model=model) as running:
        assert running.post(chat(n=3)).status_code == 500
        assert model.ended == model.began - 1
        assert running.service.active == 0


def test_several_answers_need_room_for_all(tmp_path):
    with serving(tmp_path) as running:
        asked = AskRequest(
            messages=({"role": "user", "content": "What is it?"},), sampling={"max_tokens": 12}
        )
        needed = running.service.model.bytes_needed(asked)
    folder = tmp_path / "small"
    folder.mkdir()
    with serving(folder, memory_bytes=needed * 2) as running:
        assert running.post(chat(n=2)).status_code == 200
        refused = running.post(chat(n=3))
        assert refused.status_code == 400
        assert f"{3 * needed:,} bytes" in refused.json()["error"]["message"]


def expected_logprobs(server, **options):
    return server.engine.generate(
        server.engine.compress(DOCUMENTS, "What is it?", target_size=60),
        max_tokens=12,
        logprobs=True,
        **options,
    ).logprobs


def test_openai_gets_how_likely_the_tokens_of_a_chat_were(server, client):
    options = {"model": "tiny", "max_tokens": 12, "logprobs": True, "top_logprobs": 2}
    options["messages"] = [{"role": "user", "content": "What is it?"}]
    options["extra_body"] = {"documents": DOCUMENTS, "target_size": 60}
    whole = client.chat.completions.create(**options).choices[0].logprobs.content
    expected = expected_logprobs(server, top_logprobs=2)
    assert [(one.token, one.bytes) for one in whole] == [
        (one.token, list(one.token.encode())) for one in expected
    ]
    assert [one.logprob for one in whole] == pytest.approx([one.logprob for one in expected])
    assert [[other.token for other in one.top_logprobs] for one in whole] == [
        [other.token for other in one.top] for one in expected
    ]
    pieces = []
    for chunk in client.chat.completions.create(**options, stream=True):
        if chunk.choices[0].logprobs:
            pieces.append(chunk.choices[0].logprobs.content)
    assert len(pieces) == 12  # each token's comes with it
    assert [one.token for piece in pieces for one in piece] == [one.token for one in whole]
    options["logprobs"] = False
    del options["top_logprobs"]
    assert client.chat.completions.create(**options).choices[0].logprobs is None


def test_openai_gets_how_likely_the_tokens_of_a_completion_were(server, client):
    options = {"model": "tiny", "prompt": "What is it?", "max_tokens": 12, "logprobs": 2}
    options["extra_body"] = {"documents": DOCUMENTS, "target_size": 60}
    whole = client.completions.create(**options).choices[0].logprobs
    expected = expected_logprobs(server, top_logprobs=2)
    assert whole.tokens == [one.token for one in expected]
    assert whole.token_logprobs == pytest.approx([one.logprob for one in expected])
    for found, one in zip(whole.top_logprobs, expected, strict=True):
        best = {other.token: [] for other in one.top}
        for other in one.top:
            best[other.token].append(other.logprob)
        assert found == pytest.approx({token: max(all_of) for token, all_of in best.items()})
    assert whole.text_offset == [len("".join(whole.tokens[:n])) for n in range(12)]
    parts = [
        chunk.choices[0].logprobs
        for chunk in client.completions.create(**options, stream=True)
        if chunk.choices[0].logprobs
    ]
    assert [token for part in parts for token in part.tokens] == whole.tokens
    assert [place for part in parts for place in part.text_offset] == whole.text_offset
    bare = client.completions.create(**{**options, "logprobs": 0}).choices[0].logprobs
    assert bare.top_logprobs == [{}] * 12


def test_a_response_says_how_likely_its_tokens_were_if_asked(server, client):
    options = {"model": "tiny", "input": "What is it?", "max_output_tokens": 12}
    options["extra_body"] = {"documents": DOCUMENTS, "target_size": 60}
    options["include"] = ["message.output_text.logprobs"]
    part = client.responses.create(**options, top_logprobs=1).output[0].content[0]
    expected = expected_logprobs(server, top_logprobs=1)
    assert [one.token for one in part.logprobs] == [one.token for one in expected]
    assert [len(one.top_logprobs) for one in part.logprobs] == [1] * 12
    stream = client.responses.create(**options, stream=True)
    tokens = [
        one.token
        for event in stream
        if event.type == "response.output_text.delta"
        for one in event.logprobs
    ]
    assert tokens == [one.token for one in expected]
    body = {"model": "tiny", "input": "What?", "top_logprobs": 1}
    refused = server.post(body, path="/v1/responses")
    assert refused.json()["error"]["param"] == "top_logprobs"
    assert json.loads(refused.text)["error"]["message"] == "top_logprobs needs include"


def test_the_documents_are_read_once_for_all_answers(tmp_path):
    read = []
    for number in (1, 3):
        folder = tmp_path / str(number)
        folder.mkdir()
        with serving(folder) as running:  # nothing is known of the documents
            assert running.post(chat(**WARM, n=number)).status_code == 200
            with running.client() as client:
                lines = client.get("/metrics").text.splitlines()
        (line,) = [line for line in lines if line.startswith('finch_tokens_total{kind="read"}')]
        read.append(float(line.split()[1]))
    assert read[0] == read[1] > 0
