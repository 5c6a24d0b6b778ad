"""Models in other processes: what is lost is asked again, and nothing is passed on twice."""

import asyncio
import pickle
from contextlib import aclosing
from dataclasses import replace

import pytest

from finch_integrations import Document, FinchEngine
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.serve.errors import ApiError
from finch_integrations.serve.remote import ProcessLostError, RemoteModel, documents_key
from finch_integrations.types import CompressionProgress
from tests.tiny import make_model, make_tokenizer, text_of

QUESTION = {"role": "user", "content": "What is it?"}


@pytest.fixture(scope="module")
def shared():
    return SharedEngine(FinchEngine(make_model(), make_tokenizer()))


def request(**sampling):
    return AskRequest(
        messages=(QUESTION,),
        documents=(Document(text_of(200)),),
        compression={"target_size": 60},
        sampling={"max_tokens": 12, **sampling},
    )


class Processes:
    """Processes of which the first few are lost after so many events each."""

    def __init__(self, shared, *lives):
        self.shared, self.lives = shared, list(lives)
        self.asked, self.open = [], 0

    async def send(self, asked):
        self.asked.append(asked)
        life = self.lives.pop(0) if self.lives else None
        self.open += 1
        try:
            yield CompressionProgress(tokens=1, total_tokens=2, seconds=0.0)
            number = 0
            async with aclosing(self.shared.astream(asked)) as pieces:
                async for piece in pieces:
                    if number == life:
                        raise ProcessLostError
                    number += 1
                    yield piece
        finally:
            self.open -= 1

    @property
    def model(self):
        return RemoteModel("far", self.send, self.shared.count_tokens)


async def answer(model, asked, progress=None):
    return [piece async for piece in model.astream(asked, progress=progress)]


def texts(pieces):
    return [piece.text for piece in pieces]


@pytest.mark.parametrize("lives", [(), (0,), (5,), (3, 7), (5, 2), (11,)])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 1.5}])
async def test_an_answer_whose_process_is_lost_goes_on_where_it_was(shared, lives, sampling):
    processes = Processes(shared, *lives)
    seen = []
    pieces = await answer(processes.model, request(**sampling), seen.append)
    # The same request, answered by one process; a seed was added once, for all attempts.
    alone = await answer(shared, processes.asked[0])
    assert texts(pieces) == texts(alone)
    assert pieces[-1].details.text == alone[-1].details.text
    assert [piece.details is None for piece in pieces] == [True] * (len(pieces) - 1) + [False]
    assert len(processes.asked) == len(lives) + 1 == len(seen)
    assert len({one.sampling["seed"] for one in processes.asked}) == 1
    assert processes.open == 0


async def test_a_seed_that_was_given_is_kept(shared):
    processes = Processes(shared)
    await answer(processes.model, request(temperature=1.0, seed=7))
    assert processes.asked[0].sampling["seed"] == 7


async def test_it_is_not_tried_for_ever(shared):
    processes = Processes(shared, *[2] * 100)
    with pytest.raises(ApiError) as failed:
        await answer(processes.model, request())
    assert (failed.value.status, failed.value.code) == (503, "replica_lost")
    assert "Retry-After" in failed.value.headers
    assert len(processes.asked) < 10


async def test_an_answer_that_is_another_one_the_second_time_is_an_error(shared):
    processes = Processes(shared, 6)

    async def send(asked):
        changed = replace(asked, messages=({"role": "user", "content": "Who else?"},))
        async with aclosing(processes.send(changed if processes.asked else asked)) as events:
            async for event in events:
                yield event

    given = []

    async def read():
        async for piece in RemoteModel("far", send, len).astream(request()):
            given.append(piece.text)

    with pytest.raises(ApiError, match="could not be repeated"):
        await read()
    alone = texts(await answer(shared, request()))
    assert given == alone[: len(given)]
    assert processes.open == 0


async def test_an_error_of_the_other_process_is_passed_on_and_not_repeated(shared):
    asked = []

    async def send(request):
        asked.append(request)
        yield ApiError(429, "full", "queue_full", headers={"Retry-After": "5"})

    with pytest.raises(ApiError, match="full") as failed:
        await answer(RemoteModel("far", send, len), request())
    assert failed.value.headers == {"Retry-After": "5"}
    assert len(asked) == 1


async def test_whoever_leaves_ends_the_work_there(shared):
    processes = Processes(shared)
    async with aclosing(processes.model.astream(request(max_tokens=200))) as pieces:
        await anext(pieces)
        assert processes.open == 1
    await asyncio.sleep(0)
    assert processes.open == 0


def test_errors_can_be_sent_to_another_process():
    error = ApiError(429, "full", "queue_full", param="model", headers={"Retry-After": "5"})
    other = pickle.loads(pickle.dumps(error))
    assert type(other) is ApiError
    assert vars(other) == vars(error)
    assert other.body == error.body
    assert str(other) == "full"


def test_requests_over_the_same_documents_have_the_same_key():
    first, second = Document("one", id="a"), Document("two", title="Two", id="b")
    asked = AskRequest(messages=(QUESTION,), documents=(first, second))
    key = documents_key(asked)
    assert key.isascii()
    assert len(key) == 64
    # Neither the question, nor ids, nor the order change what is read.
    other = ({"role": "user", "content": "Something else?"},)
    assert documents_key(replace(asked, messages=other)) == key
    renamed = (replace(second, id="x"), replace(first, id="y"))
    assert documents_key(replace(asked, documents=renamed)) == key
    for changed in (
        (first,),
        (first, second, second),
        (first, replace(second, title=None)),
        (first, replace(second, text="two.")),
        (replace(first, title="one", text="one"), second),
    ):
        assert documents_key(replace(asked, documents=changed)) != key
    assert documents_key(replace(asked, documents=())) == ""
    # What cannot be encoded is refused later, and not here.
    assert documents_key(replace(asked, documents=(Document("\ud800"),)))
