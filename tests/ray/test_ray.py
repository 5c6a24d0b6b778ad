"""The server on a cluster: where requests go, and what is left of them when a process is killed."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from tests import peer
from tests.ray.conftest import serving
from tests.tiny import text_of

pytestmark = [pytest.mark.server, pytest.mark.allow_hosts(["127.0.0.1"]), pytest.mark.slow]

PATH = "/v1/chat/completions"
SETS = [[text_of(250, seed=seed), text_of(120, seed=seed + 100)] for seed in range(6)]


def chat(cluster, number=0, question="What is it?", **changes):
    return {
        "model": cluster.model,
        "messages": [{"role": "user", "content": question}],
        "documents": SETS[number],
        "target_size": 60,
        "max_tokens": 60,
        **changes,
    }


def ask(cluster, body):
    """Status and text of an answer, whole or streamed."""
    with cluster.client() as client:
        response = client.post(PATH, json=body)
    if response.status_code != 200:
        return response.status_code, response.text
    if not body.get("stream"):
        return 200, response.json()["choices"][0]["message"]["content"]
    lines = [line[6:] for line in response.text.split("\n") if line.startswith("data: ")]
    assert lines.pop() == "[DONE]", response.text
    deltas = [json.loads(line)["choices"][0]["delta"] for line in lines]
    return 200, "".join(delta.get("content", "") for delta in deltas)


def load(cluster, bodies, clients=8, ask=ask):
    with ThreadPoolExecutor(clients) as pool:
        return list(pool.map(lambda body: ask(cluster, body), bodies))


def test_questions_about_the_same_documents_go_to_where_they_were_read(cluster):
    with cluster.client() as client:

        def reused(number, question):
            body = chat(cluster, number, question, max_tokens=3)
            usage = client.post(PATH, json=body).json()["usage"]
            return usage["prompt_tokens_details"]["cached_tokens"]

        # A process that is still starting takes over some of the documents when it is there.
        sets = range(len(SETS))
        until(lambda: all([reused(number, f"Was it {time.monotonic()}?") for number in sets]))
        for number in sets:
            found = [reused(number, f"What is it, {n}?") for n in range(3)]
            assert all(found), found


def test_the_same_application_answers_as_elsewhere(cluster):
    with cluster.client() as client:
        listed = client.get("/v1/models").json()
        assert [entry["id"] for entry in listed["data"]] == [cluster.model]
        assert client.get("/").headers["content-type"].startswith("text/html")
        refused = client.post(PATH, json=chat(cluster, logit_bias={"1": 5}))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logit_bias")
        # What only the process with the model can know.
        body = chat(cluster, question="What? " * 1000)
        del body["documents"]
        long = client.post(PATH, json=body)
        assert (long.status_code, long.json()["error"]["code"]) == (400, "context_length_exceeded")
        other = client.get("/health", headers={"Host": "example.org"})
        assert other.status_code == 421


def kill_under_load(running, kind, count, *, after, ask=ask):
    """Kill a process while requests are answered; they and their answers."""
    victim = running.processes(kind)[0]
    bodies = [chat(running, n % len(SETS), stream=n % 2 == 0) for n in range(count)]
    killing = threading.Timer(after, victim.kill)
    killing.start()
    answers = load(running, bodies, ask=ask)
    killing.join()
    assert not victim.is_running()
    return bodies, answers


def test_no_request_is_lost_with_a_process_that_reads_and_answers(cluster):
    alone = [ask(cluster, chat(cluster, number)) for number in range(len(SETS))]
    assert [status for status, _ in alone] == [200] * len(SETS)
    bodies, answers = kill_under_load(cluster, "Reader", 60, after=1.0)
    assert answers == [alone[n % len(SETS)] for n in range(60)]
    # Another one takes its place.
    until(lambda: len(cluster.processes("Reader")) == 2)
    assert ask(cluster, bodies[0]) == alone[0]


def as_openai(max_retries, outcomes):
    """A way to ask with OpenAI's client, which says in the end what it had to deal with."""

    def ask(cluster, body):
        body = dict(body)
        extra = {name: body.pop(name) for name in ("documents", "target_size")}
        with openai.OpenAI(
            base_url=f"{cluster.url}/v1", api_key="none", max_retries=max_retries, timeout=600
        ) as client:
            text = ""
            try:
                answer = client.chat.completions.create(**body, extra_body=extra)
                if not body["stream"]:
                    return 200, answer.choices[0].message.content
                for chunk in answer:
                    text += chunk.choices[0].delta.content or ""
                return 200, text
            except openai.APIError as error:  # a broken connection would be one, too
                outcomes.append((body["stream"], type(error), error.code))
            return 503, text

    return ask


@pytest.mark.parametrize("max_retries", [0, 2])
def test_no_request_is_lost_with_a_process_that_speaks_http(cluster, max_retries):
    until(lambda: len(cluster.processes("Front")) == 2)
    alone = [ask(cluster, chat(cluster, number)) for number in range(len(SETS))]
    outcomes = []
    _, answers = kill_under_load(
        cluster, "Front", 60, after=1.0, ask=as_openai(max_retries, outcomes)
    )
    for number, (status, text) in enumerate(answers):
        expected = alone[number % len(SETS)]
        if status == 200:
            assert (status, text) == expected
        else:
            # What there is of a stream whose end is missing is right.
            assert number % 2 == 0
            assert text
            assert expected[1].startswith(text)
    # Events of streams that had begun, at most of the eight that ran; the others were sent again.
    assert set(outcomes) <= {(True, openai.APIError, "front_lost")}
    assert len(outcomes) <= 8
    until(lambda: len(cluster.processes("Front")) == 2)


def test_the_only_process_that_speaks_http_is_waited_for(apart):
    assert len(apart.processes("Front")) == 1
    alone = [ask(apart, chat(apart, number)) for number in range(len(SETS))]
    outcomes = []
    _, answers = kill_under_load(apart, "Front", 16, after=0.5, ask=as_openai(2, outcomes))
    whole = [answers[number] for number in range(1, 16, 2)]  # not streamed
    assert whole == [alone[number % len(SETS)] for number in range(1, 16, 2)]


@pytest.fixture(scope="module")
def apart(folders, tmp_path_factory):
    """One that chooses and one that writes, of which there may be two each."""
    place = tmp_path_factory.mktemp("apart")
    with serving(place, folders[0], scorer=folders[1], max_replicas=2) as running:
        yield running


def test_choosing_and_writing_are_processes_of_their_own_and_neither_loses_a_request(apart):
    assert len(apart.processes("Scorer")) == len(apart.processes("Generator")) == 1
    alone = [ask(apart, chat(apart, number)) for number in range(len(SETS))]
    assert [status for status, _ in alone] == [200] * len(SETS)
    for kind in ("Generator", "Scorer"):
        _, answers = kill_under_load(apart, kind, 24, after=0.5)
        assert answers == [alone[n % len(SETS)] for n in range(24)]


def test_there_are_more_processes_when_there_is_more_to_do(apart):
    stop = threading.Event()

    def keep_asking(number):
        while not stop.is_set():
            assert ask(apart, chat(apart, number % len(SETS), max_tokens=200))[0] == 200

    with ThreadPoolExecutor(12) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(12)]
        try:
            until(lambda: len(apart.processes("Generator")) == 2)
        finally:
            stop.set()
        for future in asking:
            future.result()


def test_the_generator_may_be_any_server(folders, tmp_path):
    reply = peer.Reply(pieces=("It is ", "7316."))
    with (
        peer.serving(reply) as there,
        serving(tmp_path, "far", base_url=there.url, scorer=folders[1]) as running,
    ):
        assert not running.processes("Generator")
        assert ask(running, chat(running)) == (200, "It is 7316.")
        assert "<document" in there.requests[0]["body"]["messages"][-1]["content"]


def until(condition, seconds=180):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)
