"""Passages read side by side, for several questions, and kept: always as each one alone."""

import json
import platform

import pytest
import torch

from finch_integrations import (
    ConfigurationError,
    ContextTooLongError,
    Document,
    FinchEngine,
    InvalidInputError,
)
from finch_integrations.engine import passage_reader
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.batching import tokens_at_once
from finch_integrations.engine.cache import new_cache
from finch_integrations.engine.passage_folder import summarize
from finch_integrations.engine.passage_reader import PassageReader
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.engine.prompt import QuestionWindow
from tests.tiny import CONFIGS, SLIDING, make_model, make_tokenizer, text_of

PREFIX = tuple(range(7, 27))
# Of very different lengths, so that much is padded.
PASSAGES = [tuple(range(start, start + length)) for start, length in
            ((3, 5), (40, 33), (9, 1), (100, 17), (60, 60))]  # fmt: skip
INSTRUCTION = (5, 6, 7, 8)
WINDOWS = [
    QuestionWindow((*INSTRUCTION, *range(90, 99)), length=9),
    QuestionWindow((*INSTRUCTION, 33), length=1),
    QuestionWindow((*INSTRUCTION, *range(20, 220)), length=200),
]
ALL = torch.ones(len(WINDOWS), len(PASSAGES), dtype=torch.bool)
QUESTIONS = ["Where is the lamp oil?", "Who rows?", "When does the tide turn, and who says so?"]
DOCUMENTS = [
    Document("The tide turns at nine. Bring the ropes. " * 6 + "The lamp oil is in the shed."),
    Document("Nobody rows alone! " * 9 + "Ask for the keys. " + "The oil is old. " * 8, title="T"),
]


def reader(model, store=None):
    backbone = Backbone(model, make_tokenizer(), "tiny")
    return PassageReader(backbone, PREFIX, backbone.encode(PREFIX, 64), store)


def rate(model, *, wanted=ALL, windows=WINDOWS, store=None, room=200):
    steps = []
    scores = reader(model, store).likelihoods(
        PASSAGES, windows, wanted, room=room, on_batch=lambda *step: steps.append(step)
    )
    return scores, steps


@torch.no_grad()
def alone(model, passage, window):
    """Mean log-likelihood from one plain forward over everything."""
    ids = torch.tensor([[*PREFIX, *passage, *window.ids]])
    rated = model(input_ids=ids).logits[0].log_softmax(-1)[:-1].gather(1, ids[0, 1:, None])[:, 0]
    return rated[-min(window.length, 128) :].mean()


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_architecture_rates_as_each_passage_and_question_alone(architecture):
    model = make_model(architecture)
    expected = torch.tensor([[alone(model, p, w) for p in PASSAGES] for w in WINDOWS])
    store = PassageStore()
    fresh, steps = rate(model, store=store)
    assert {read for _, read, _ in steps} == {True}
    again, steps = rate(model, store=store)
    assert {read for _, read, _ in steps} == {False}
    torch.testing.assert_close(fresh, expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(again, fresh, atol=1e-5, rtol=1e-5)


def test_what_a_store_lists_and_has_no_longer_is_read_again():
    class Forgetful(PassageStore):
        def get(self, key):
            return None  # pushed out, or damaged, since it was listed

    store, model = Forgetful(), make_model()
    fresh, _ = rate(model, store=store)
    again, steps = rate(model, store=store)
    assert {read for _, read, _ in steps} == {True}
    assert sorted(n for batch, _, _ in steps for n in batch) == list(range(len(PASSAGES)))
    torch.testing.assert_close(again, fresh)


class Noting(PassageStore):
    puts = 0

    def put(self, key, tensors):
        self.puts += 1
        super().put(key, tensors)


def test_nothing_is_copied_for_a_store_that_keeps_nothing():
    model, nowhere, somewhere = make_model(), Noting(memory_bytes=0), Noting()
    scores, _ = rate(model, store=nowhere)
    same, _ = rate(model, store=somewhere)
    torch.testing.assert_close(scores, same, atol=0, rtol=0)
    assert (nowhere.puts, somewhere.puts) == (0, len(PASSAGES))


@pytest.mark.parametrize("room", [1, 70, 150, 5000])
@pytest.mark.parametrize("architecture", ["llama", "granite", *SLIDING])
def test_every_batch_size_gives_the_same_scores_within_its_memory(architecture, room):
    model = make_model(architecture)
    expected, _ = rate(model, room=100)
    found, steps = rate(model, room=room)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    beside = len(PREFIX) + len(WINDOWS[2].ids)
    assert all(len(batch) == 1 or kv <= beside + room for batch, _, kv in steps)
    assert sorted(n for batch, _, _ in steps for n in batch) == list(range(len(PASSAGES)))


def test_logits_in_slices_are_the_same(monkeypatch):
    model = make_model()
    expected, _ = rate(model, room=5000)
    sizes = []
    plain = Backbone.log_likelihoods

    def watched(self, ids, cache, lengths, *, rows):
        sizes.append(len(lengths) * rows * self.spec.vocab_size)
        return plain(self, ids, cache, lengths, rows=rows)

    monkeypatch.setattr(Backbone, "log_likelihoods", watched)
    most = 2 * 9 * model.config.vocab_size  # two passages for the question of nine tokens
    monkeypatch.setattr(passage_reader, "_LOGITS", most)
    found, _ = rate(model, room=5000)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    alone = 128 * model.config.vocab_size  # of a long question, one passage is the least
    assert len(sizes) == 3 + 1 + len(PASSAGES)
    assert all(size <= most or size == alone for size in sizes)


def test_a_gpu_without_room_for_a_batch_reads_smaller_ones(monkeypatch):
    model = make_model()
    expected, _ = rate(model, room=5000)
    plain = Backbone.read_side_by_side

    def short_of_memory(self, sequences, cache):
        if len(sequences) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return plain(self, sequences, cache)

    monkeypatch.setattr(Backbone, "read_side_by_side", short_of_memory)
    found, steps = rate(model, room=5000)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert sorted(n for batch, _, _ in steps for n in batch) == list(range(len(PASSAGES)))
    monkeypatch.setattr(Backbone, "read_side_by_side", _no_memory)
    with pytest.raises(torch.OutOfMemoryError):
        rate(model, room=5000)


def _no_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory")


def test_how_much_is_read_at_once_changes_no_choice(engine):
    seen = [
        engine.select(DOCUMENTS, QUESTIONS[0], target_size=60, batch_tokens=tokens)
        for tokens in (1, 300, 5000)
    ]
    assert len({one.positions for one in seen}) == 1
    peaks = [one.stats.peak_kv_tokens for one in seen]
    assert peaks[0] < peaks[1] < peaks[2]
    assert tokens_at_once(engine.backbone, 77) == 77, "a CPU reads a chunk at once"


@pytest.mark.parametrize("tokens", [0, -1, 2.5, True])
def test_a_batch_of_nothing_is_refused(engine, tokens):
    with pytest.raises(ConfigurationError, match="batch_tokens must be a whole number"):
        engine.select(DOCUMENTS, QUESTIONS[0], batch_tokens=tokens)


def test_a_model_that_reads_sooner_than_memory_is_copied_keeps_nothing(monkeypatch):
    model, store = make_model(), PassageStore()
    expected, _ = rate(model, store=store)
    fast = reader(model, store)
    fast.backbone.reading_speed = 1e9
    monkeypatch.setattr(Backbone, "copy_speed", 1e9)
    steps = []
    found = fast.likelihoods(
        PASSAGES, WINDOWS, ALL, room=200, on_batch=lambda *step: steps.append(step)
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert {read for _, read, _ in steps} == {True}, "what is in the store is not used"
    monkeypatch.setattr(Backbone, "copy_speed", 1e15)
    fast.likelihoods(PASSAGES, WINDOWS, ALL, room=200, on_batch=lambda *step: steps.append(step))
    assert not steps[-1][1]


def test_a_model_that_reads_sooner_than_the_disk_leaves_it_also_in_later_processes(tmp_path):
    model, folder = make_model(), tmp_path / "passages"
    rate(model, store=PassageStore(memory_bytes=0, folder=folder))
    assert not summarize(folder).models, "so little says nothing about speed"
    store = PassageStore(memory_bytes=0, folder=folder)
    fast = reader(model, store)
    fast.backbone.reading_speed = 1e9
    fast.likelihoods(PASSAGES, WINDOWS, ALL, room=200, on_batch=lambda *_: None)
    assert not store.on_disk
    later = PassageStore(memory_bytes=0, folder=folder)
    assert {read for _, read, _ in rate(model, store=later)[1]} == {True}
    assert not later.on_disk
    ((name, speed),) = summarize(folder).models.items()
    assert name.startswith("llama-")
    assert name.endswith(f" on cpu ({platform.machine()})")
    assert speed.tokens_per_second == 1e9
    assert speed.bytes_per_token == fast.backbone.spec.kv_bytes_per_token
    assert not summarize(folder).pays(name)


def test_how_fast_a_model_reads_is_measured_and_the_disk_is_used_where_that_is_slower(tmp_path):
    folder = tmp_path / "passages"
    store = PassageStore(memory_bytes=0, folder=folder)
    reads = reader(make_model(), store)
    passages = [tuple(range(3, 103))] * 4
    wanted = torch.ones(len(WINDOWS), len(passages), dtype=torch.bool)
    store.read_speed()
    settings = folder / "finch-passages.json"
    content = json.loads(settings.read_text())
    content["read_speed"]["bytes_per_second"] = 1e15
    settings.write_text(json.dumps(content))
    reads.likelihoods(passages, WINDOWS, wanted, room=1000, on_batch=lambda *_: None)
    assert store.on_disk
    ((name, speed),) = summarize(folder).models.items()
    assert speed.tokens_per_second == reads.backbone.reading_speed > 0
    assert summarize(folder).pays(name)


def test_only_what_is_wanted_is_rated_and_read():
    model = make_model()
    expected, _ = rate(model)
    wanted = torch.zeros_like(ALL)
    wanted[0, [1, 3]], wanted[1, 3], wanted[2, 0] = True, True, True
    found, steps = rate(model, wanted=wanted)
    torch.testing.assert_close(found[wanted], expected[wanted], atol=1e-5, rtol=1e-5)
    assert found[~wanted].isnan().all()
    assert {n for batch, _, _ in steps for n in batch} == {0, 1, 3}


def test_a_store_that_is_too_small_for_everything_changes_no_score():
    model = make_model("qwen3")
    expected, _ = rate(model)
    store = PassageStore(memory_bytes=40_000)
    for _ in range(3):
        found, steps = rate(model, store=store, room=40)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert {read for _, read, _ in steps} == {True, False}


def test_other_weights_another_prefix_or_instruction_are_never_taken_for_the_same():
    store, model = PassageStore(), make_model()
    rate(model, store=store)
    other_weights = make_model()
    with torch.no_grad():
        other_weights.model.layers[0].mlp.up_proj.weight += 0.1
    window = QuestionWindow((9, *WINDOWS[0].ids[1:]), length=9)
    for steps in (
        rate(other_weights, store=store)[1],
        rate(model, store=store, windows=[window], wanted=ALL[:1])[1],
    ):
        assert {read for _, read, _ in steps} == {True}
    backbone = Backbone(model, make_tokenizer(), "tiny")
    steps = []
    PassageReader(backbone, (), new_cache(), store).likelihoods(
        PASSAGES, WINDOWS, ALL, room=200, on_batch=lambda *step: steps.append(step)
    )
    assert {read for _, read, _ in steps} == {True}


@pytest.mark.parametrize("architecture", ["llama", *SLIDING])
def test_questions_asked_together_or_later_choose_as_each_one_alone(architecture):
    tokenizer = make_tokenizer()
    none = PassageStore(memory_bytes=0)
    one_by_one = FinchEngine(make_model(architecture), tokenizer, store=none)
    whole = {"target_size": 120, "read_size": "all"}
    expected = [one_by_one.select(DOCUMENTS, q, **whole) for q in QUESTIONS]
    together = FinchEngine(make_model(architecture), tokenizer, store=none)
    later = FinchEngine(make_model(architecture), tokenizer)
    many = together.select_many(DOCUMENTS, QUESTIONS, **whole)
    for question, first, found in zip(QUESTIONS, expected, many, strict=True):
        stored = later.select(DOCUMENTS, question, **whole)
        for other in (found, stored):
            assert (other.token_ids, other.positions) == (first.token_ids, first.positions)
            assert [e.score for e in other.excerpts] == pytest.approx(
                [e.score for e in first.excerpts], abs=1e-4
            )
    total = expected[0].stats.document_tokens
    assert [s.stats.rated_tokens for s in (*expected, *many, stored)] == [total] * 7
    assert [s.stats.read_tokens for s in expected] == [total] * 3
    assert stored.stats.read_tokens == 0  # all of it had been read for the first question


def test_further_questions_are_chosen_for_with_the_first_and_then_read_nothing():
    def make():
        return FinchEngine(make_model(), make_tokenizer(), store=PassageStore(memory_bytes=0))

    alone, together = make(), make()
    whole = {"target_size": 120, "read_size": "all"}
    unusable = ["", "long " * 5000]  # they fail when it is their turn, and disturb no other
    for number, question in enumerate(QUESTIONS):
        expected = alone.compress(DOCUMENTS, question, **whole)
        found = together.compress(
            DOCUMENTS, question, **whole, further_questions=[*QUESTIONS, *unusable]
        )
        assert [e.text for e in found.excerpts] == [e.text for e in expected.excerpts]
        assert [e.score for e in found.excerpts] == pytest.approx(
            [e.score for e in expected.excerpts], abs=1e-4
        )
        total = found.stats.document_tokens
        assert found.stats.read_tokens == (0 if number else total)
        assert found.stats.rated_tokens == total
    with pytest.raises(ContextTooLongError):
        together.compress(DOCUMENTS, unusable[1], **whole)


def test_further_questions_do_nothing_where_single_tokens_are_kept(engine):
    options = {"method": "finch", "target_size": 50}
    expected = engine.compress(DOCUMENTS, QUESTIONS[0], **options)
    found = engine.compress(DOCUMENTS, QUESTIONS[0], further_questions=QUESTIONS[1:], **options)
    assert all(torch.equal(*pair) for pair in zip(found.kept, expected.kept, strict=True))


def test_document_sets_profit_by_their_overlap():
    engine = FinchEngine(make_model(), make_tokenizer())
    engine.select(DOCUMENTS[:1], QUESTIONS[0], target_size=50, read_size="all")
    new = [Document(text_of(200), title="New"), *DOCUMENTS]
    stats = engine.select(new, QUESTIONS[1], target_size=50, read_size="all").stats
    old = len(DOCUMENTS[0].text.strip())
    assert stats.rated_tokens == stats.document_tokens
    # The last passage of the old document now has a separator after it.
    assert stats.document_tokens - old <= stats.read_tokens <= stats.document_tokens - old + 100


def test_several_questions_that_fit_read_nothing(engine):
    engine.backbone.model.register_forward_pre_hook(lambda *_: pytest.fail("nothing is read"))
    selections = engine.select_many(DOCUMENTS, QUESTIONS)
    assert [s.question for s in selections] == QUESTIONS
    assert all(s.complete for s in selections)


@pytest.mark.parametrize("questions", [[], "Why?"])
def test_questions_are_a_list(engine, questions):
    with pytest.raises(InvalidInputError, match="a list of at least one question"):
        engine.select_many(DOCUMENTS, questions)


@pytest.mark.parametrize("method", ["contrast", "likelihood"])
def test_every_method_takes_several_questions(engine, method):
    many = engine.select_many(DOCUMENTS, QUESTIONS, method=method, target_size=90)
    for question, found in zip(QUESTIONS, many, strict=True):
        alone = engine.select(DOCUMENTS, question, method=method, target_size=90)
        assert found.positions == alone.positions
