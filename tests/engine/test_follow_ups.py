"""Chats about documents: passages are read once for all turns, some of them before a question."""

import pytest

from finch_integrations import ConfigurationError, Document, FinchEngine, PassageStore
from finch_integrations.engine.prompt import Prompt, rating_prompt
from tests.tiny import make_model, make_tokenizer, text_of

FIRST, SECOND = "Where is the lamp oil?", "And who may take it?"
DOCUMENTS = [
    Document("The tide turns at nine. Bring the ropes. " * 6 + "The lamp oil is in the shed."),
    Document("Nobody rows alone! " * 9 + "Ask for the keys. " + "The oil is old. " * 8, title="T"),
]
# No passage is there twice.
DISTINCT = [text_of(300, seed=1), text_of(300, seed=2)]
OPTIONS = {"target_size": 60, "read_size": "all"}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


CHAT = (user(FIRST), assistant("In the shed."))


@pytest.fixture
def engine():
    return FinchEngine(make_model(), make_tokenizer())


def test_a_follow_up_reads_nothing_that_an_earlier_turn_has_read(engine):
    first = engine.select(DOCUMENTS, FIRST, system="Be brief.", **OPTIONS)
    second = engine.select(DOCUMENTS, SECOND, system="Be brief.", history=CHAT, **OPTIONS)
    assert first.stats.read_tokens == second.stats.rated_tokens == second.stats.document_tokens
    assert second.stats.read_tokens == 0


def test_a_follow_up_is_chosen_for_together_with_the_question_before_it(engine):
    expected = engine.select(DOCUMENTS, f"{FIRST}\n{SECOND}", **OPTIONS)
    found = engine.select(DOCUMENTS, SECOND, history=CHAT, **OPTIONS)
    assert found.positions == expected.positions
    assert found.excerpts == expected.excerpts
    assert found.question == SECOND
    assert found.positions != engine.select(DOCUMENTS, SECOND, **OPTIONS).positions


def test_the_answer_still_sees_the_whole_chat(engine):
    alone = engine.compress(DOCUMENTS, SECOND, **OPTIONS)
    found = engine.compress(DOCUMENTS, SECOND, history=CHAT, **OPTIONS)
    turns = engine.count_chat_tokens(CHAT)
    assert found.stats.prefix_tokens > alone.stats.prefix_tokens + len("In the shed.")
    assert found.stats.prefix_tokens - alone.stats.prefix_tokens <= turns


@pytest.mark.parametrize(
    ("history", "rated"),
    [
        ((), SECOND),
        (CHAT, f"{FIRST}\n{SECOND}"),
        ((user("Hello."), assistant("Hi."), *CHAT), f"{FIRST}\n{SECOND}"),
        ((user(f" {SECOND} "), assistant("Nobody.")), SECOND),
        ((*CHAT, user(SECOND), assistant("Nobody.")), f"{FIRST}\n{SECOND}"),
        ((assistant("Ask me anything."),), SECOND),
        ((user(f"{'x ' * 500}{FIRST}"), assistant("Yes.")), None),
    ],
)
def test_only_the_last_other_question_is_asked_again(history, rated):
    found = rating_prompt(Prompt(question=SECOND, history=history, system="S", closing="C"))
    assert (found.history, found.system, found.closing) == ((), "S", "C")
    if rated is not None:
        assert found.question == rated
    else:  # a long one's end
        assert found.question.endswith(f"x {FIRST}\n{SECOND}")
        assert len(found.question) <= 400 + 1 + len(SECOND)


def test_a_history_that_fills_the_window_does_not_keep_passages_from_being_read(engine):
    history = (user(text_of(3000)), assistant("Yes."))
    found = engine.select(DOCUMENTS, SECOND, history=history, **OPTIONS)
    assert found.stats.read_tokens == found.stats.document_tokens


@pytest.mark.parametrize("read_size", ["auto", "all", 150])
def test_after_reading_ahead_a_question_reads_nothing_and_the_choice_is_the_same(engine, read_size):
    options = {"target_size": 60, "read_size": read_size}
    plain = FinchEngine(engine.backbone.model, engine.backbone.tokenizer)
    expected = plain.select(DOCUMENTS, FIRST, system="Be brief.", **options)
    read = engine.read_ahead(DOCUMENTS, system="Be brief.", **options)
    found = engine.select(DOCUMENTS, FIRST, system="Be brief.", **options)
    assert read == found.stats.document_tokens
    assert expected.stats.read_tokens == found.stats.rated_tokens > 0
    assert found.stats.read_tokens == 0
    assert (found.positions, found.excerpts) == (expected.positions, expected.excerpts)


def test_only_what_no_question_has_read_is_read_ahead(engine):
    first = engine.select(DISTINCT, FIRST, target_size=60, read_size=150).stats
    reports = []
    read = engine.read_ahead(DISTINCT, target_size=60, progress=reports.append)
    assert read == first.document_tokens - first.read_tokens
    assert (reports[-1].tokens, reports[-1].total_tokens) == (read, read)
    assert engine.read_ahead(DISTINCT, target_size=60) == 0


def test_the_model_that_chooses_reads_ahead(engine):
    chooser = FinchEngine(make_model(kv_heads=1), make_tokenizer())
    both = FinchEngine(engine.backbone.model, engine.backbone.tokenizer, scorer=chooser)
    assert both.read_ahead(DOCUMENTS, target_size=60) > 0
    assert both.select(DOCUMENTS, FIRST, **OPTIONS).stats.read_tokens == 0
    assert len(chooser.store) > 0 == len(both.store)


def test_no_more_is_read_ahead_than_the_store_has_room_for(engine):
    whole = engine.read_ahead(DISTINCT, target_size=60)
    room = engine.store.nbytes // 2
    small = FinchEngine(
        engine.backbone.model, engine.backbone.tokenizer, store=PassageStore(memory_bytes=room)
    )
    read = small.read_ahead(DISTINCT, target_size=60)
    assert 0.3 * whole < read < 0.6 * whole
    assert small.store.nbytes > 0.7 * room
    assert small.read_ahead(DISTINCT, target_size=60) == 0
    none = PassageStore(memory_bytes=0)
    without = FinchEngine(engine.backbone.model, engine.backbone.tokenizer, store=none)
    assert without.read_ahead(DISTINCT, target_size=60) == 0


def test_reading_ahead_pushes_out_others_before_what_it_finds_in_the_store(tokenizer):
    first, second, other = ([text_of(300, seed=seed)] for seed in (1, 2, 3))
    with FinchEngine(make_model(), tokenizer) as engine:
        engine.read_ahead(first + second, target_size=20)
        room = engine.store.nbytes
    store = PassageStore(memory_bytes=room)
    with FinchEngine(make_model(), tokenizer, store=store) as engine:
        for documents in (first, other, first + second):
            assert engine.read_ahead(documents, target_size=20)
        assert engine.read_ahead(first + second, target_size=20) == 0
        assert engine.read_ahead(other, target_size=20)


def test_documents_that_fit_the_budget_are_not_read_ahead(engine):
    assert engine.read_ahead(DOCUMENTS) == len(engine.store) == 0


def test_reading_ahead_can_be_ended_and_what_was_read_stays(engine):
    class Enough(Exception):
        pass

    def stop(progress):
        raise Enough

    options = {"target_size": 60, "chunk_length": 100}
    with pytest.raises(Enough):
        engine.read_ahead(DOCUMENTS, progress=stop, **options)
    assert len(engine.store) > 0
    stats = engine.select(DOCUMENTS, FIRST, read_size="all", **options).stats
    assert 0 < stats.read_tokens < stats.document_tokens


@pytest.mark.parametrize("method", ["contrast", "finch"])
def test_methods_that_keep_nothing_cannot_read_ahead(engine, method):
    with pytest.raises(ConfigurationError, match=f"'{method}' keeps nothing .* Use likelihood"):
        engine.read_ahead(DOCUMENTS, method=method)
