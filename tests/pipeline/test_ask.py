"""One question from start to end, on tiny models."""

import asyncio
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from finch_integrations import (
    Document,
    FinchEngine,
    InvalidInputError,
    PassageStore,
)
from finch_integrations.pipeline.ask import AskRequest, convert
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.waiting import waiting_for
from tests.busy import busy_until
from tests.tiny import text_of

DOCUMENTS = (Document(text_of(300, seed=1), id="a"), Document(text_of(200, seed=2), id="b"))


CHAT = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello."},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "What is new?"},
)


SMALL = {"target_size": 60, "chunk_length": 50, "read_size": "all"}


@pytest.fixture
def handle(engine):
    return SharedEngine(engine)


@pytest.fixture
def forwards(model):
    """The lengths of the sequences fed to the model."""
    lengths = []
    hook = model.register_forward_pre_hook(
        lambda _, args, kwargs: lengths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    yield lengths
    hook.remove()


def request(**changes):
    options = {"messages": CHAT, "sampling": {"max_tokens": 12}}
    return AskRequest(**options | changes)


def user(content):
    return ({"role": "user", "content": content},)


def text(pieces):
    return "".join(piece.text for piece in pieces)


async def collect(items):
    return [item async for item in items]


def test_an_answer_over_documents_is_the_engines(engine, handle):
    pieces = list(handle.stream(request(documents=DOCUMENTS, compression=SMALL)))
    context = engine.compress(
        DOCUMENTS, "What is new?", system="Be brief.", history=CHAT[1:3], **SMALL
    )
    answer = engine.generate(context, max_tokens=12)
    assert text(pieces) == answer.text
    assert [piece.details for piece in pieces[:-1]] == [None] * (len(pieces) - 1)
    details = pieces[-1].details
    assert details.finish_reason == answer.finish_reason
    assert (details.prompt_tokens, details.generation_tokens) == (context.prompt_tokens, 12)
    assert details.document_shares == context.document_shares
    assert details.compression.kept_tokens == 60


def test_an_answer_without_documents_is_the_plain_chats(engine, handle):
    pieces = list(handle.stream(request()))
    assert text(pieces) == text(engine.chat(CHAT, max_tokens=12))
    assert pieces[-1].details.compression is None
    assert pieces[-1].details.document_shares == ()


def test_async_and_sync_say_the_same(handle):
    asked = request(documents=DOCUMENTS, compression=SMALL)
    pieces = asyncio.run(collect(handle.astream(asked)))
    assert text(pieces) == text(handle.stream(asked))


def test_the_instruction_can_be_changed(engine, handle):
    asked = request(documents=DOCUMENTS, compression=SMALL, instruction="Question:")
    details = list(handle.stream(asked))[-1].details
    suffix = "\n\nQuestion: What is new?<|im_end|>\n<|im_start|>assistant\n"
    assert details.compression.suffix_tokens == len(engine.backbone.tokenizer(suffix).input_ids)


@pytest.mark.parametrize("messages", [(), CHAT[:3], CHAT[:1]])
def test_documents_need_a_question(handle, messages):
    with pytest.raises(InvalidInputError, match="must end with the user's question, got the"):
        list(handle.stream(request(messages=messages, documents=DOCUMENTS)))


@pytest.mark.parametrize("last", ["What is new?", {"content": "What is new?"}])
def test_a_malformed_question_is_named(handle, last):
    with pytest.raises(InvalidInputError, match="must end with the user's question, got the"):
        list(handle.stream(request(messages=(*CHAT[:1], last), documents=DOCUMENTS)))
    with pytest.raises(InvalidInputError, match="the question must be a string, got NoneType"):
        list(handle.stream(request(messages=({"role": "user"},), documents=DOCUMENTS)))


def test_leaving_stops_the_decoding_within_a_token(model, handle, forwards):
    model.register_forward_pre_hook(lambda *_: time.sleep(0.005))
    pieces = handle.stream(request(sampling={"max_tokens": 1000}))
    next(pieces)
    pieces.close()
    begun = len(forwards)
    list(handle.stream(request(sampling={"max_tokens": 1})))  # its turn comes after
    assert len(forwards) <= begun + 1 + 1  # the token under way, and this answer's only one


def test_leaving_stops_a_compression_at_the_next_chunk(model, handle, forwards):
    inside, go_on = threading.Event(), threading.Event()

    def pause(*_):
        inside.set()
        go_on.wait(10)

    hook = model.register_forward_pre_hook(pause)
    asked = request(
        messages=CHAT[-1:],
        documents=DOCUMENTS,
        compression={"target_size": 60, "chunk_length": 50},
    )

    async def main():
        task = asyncio.create_task(collect(handle.astream(asked)))
        await asyncio.to_thread(inside.wait, 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    go_on.set()
    hook.remove()
    begun = len(forwards)
    list(handle.stream(request(sampling={"max_tokens": 1})))
    assert begun == 1
    # Of 11 chunks only the first was read, followed by two questions; then the other answer.
    assert len(forwards) <= begun + 4


def test_concurrent_questions_do_not_disturb_each_other(handle):
    asked = [
        request(
            documents=DOCUMENTS,
            compression=SMALL,
            messages=({"role": "user", "content": f"What is {number}?"},),
        )
        for number in range(4)
    ]
    alone = [text(handle.stream(one)) for one in asked]
    assert len(set(alone)) > 1
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda one: text(handle.stream(one)), asked))
    assert together == alone


def test_questions_that_wait_share_a_reading(model, tokenizer):
    """While the model is busy, several questions over two document sets arrive."""
    engine = FinchEngine(model, tokenizer, store=PassageStore(memory_bytes=0))
    handle = SharedEngine(engine)
    others = (*DOCUMENTS, Document("Another one. " * 30))
    asked = [
        request(documents=documents, compression=SMALL, messages=user(f"What is {number}?"))
        for number, documents in enumerate((DOCUMENTS, others, DOCUMENTS, DOCUMENTS))
    ]
    # It has the same documents, and is not a question: it fails alone.
    broken = request(documents=DOCUMENTS, compression=SMALL, messages=({"role": "user"},))
    alone = [text(handle.stream(one)) for one in asked]
    engine = FinchEngine(model, tokenizer, store=PassageStore(memory_bytes=0))
    handle = SharedEngine(engine)

    async def main():
        with busy_until(model, waiting=7):
            tasks = [asyncio.create_task(collect(handle.astream(one))) for one in (*asked, broken)]
            leaving = asyncio.create_task(collect(handle.astream(asked[2])))
            while len(waiting_for(model)) < 6:
                await asyncio.sleep(0.01)
            leaving.cancel()
            while len(waiting_for(model)) > 5:
                await asyncio.sleep(0.01)
            tasks += [asyncio.create_task(collect(handle.astream(request()))) for _ in range(2)]
            found = await asyncio.gather(*tasks, return_exceptions=True)
        return found[:-2]

    *found, error = asyncio.run(main())
    assert not len(waiting_for(model))
    assert [text(pieces) for pieces in found] == alone
    assert isinstance(error, InvalidInputError)
    read = [pieces[-1].details.compression.read_tokens for pieces in found]
    assert [bool(tokens) for tokens in read] == [True, True, False, False]


def test_progress_is_reported_and_the_context_kept_only_if_asked_for(engine, handle):
    seen = []
    asked = request(documents=DOCUMENTS, compression=SMALL)
    assert list(handle.stream(asked))[-1].details.context is None
    pieces = list(handle.stream(asked, progress=seen.append, keep_context=True))
    assert [state.tokens for state in seen] == sorted({state.tokens for state in seen})
    assert seen[-1].tokens == seen[-1].total_tokens
    assert engine.generate(pieces[-1].details.context, max_tokens=12).text == text(pieces)
    assert pieces[-1].details.text == text(pieces)


def test_a_request_is_plain_data():
    asked = request(documents=DOCUMENTS, compression=SMALL)
    assert pickle.loads(pickle.dumps(asked)) == asked


async def test_only_the_last_piece_is_converted_in_another_thread(handle):
    pieces = list(handle.stream(request()))
    threads = [await convert(lambda _: threading.current_thread(), piece) for piece in pieces]
    assert set(threads[:-1]) == {threading.current_thread()} != {threads[-1]}
