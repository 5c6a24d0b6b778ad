"""The methods that keep passages against the slow reference, and their bounds."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finch_integrations import (
    ConfigurationError,
    Document,
    FinchEngine,
    UnsupportedModelError,
)
from finch_integrations.config import CompressionConfig
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import Budget
from finch_integrations.engine.encoding import encode_selection
from finch_integrations.engine.methods import METHODS, SEGMENT_SCORERS
from finch_integrations.engine.methods.likelihood import combine, headed_segments, shortlist
from finch_integrations.engine.methods.passages import arrange, take_best
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.scoring import contrast_scores, standardize
from finch_integrations.engine.segments import Segment, split_segments
from finch_integrations.engine.selecting import Reader, select_passages
from finch_integrations.report import question_attention
from tests.reference_passages import reference_passages, reference_scores
from tests.tiny import (
    CONFIGS,
    FULL_ATTENTION,
    SLIDING,
    make_input,
    make_model,
    make_tokenizer,
)

DOCUMENTS = [
    "The tide turns at nine. Bring the ropes. " * 6
    + "The lamp oil is in the red shed by the pier.",
    "Nobody rows alone! " * 9 + "Ask for the keys to the shed.\n\n" + "The oil is old. " * 8,
]
QUESTION = "Where is the lamp oil?"


def compress(
    method,
    model,
    *,
    target,
    chunk_length,
    documents=DOCUMENTS,
    question=QUESTION,
    read_size="all",
):
    inputs = make_input(documents, question)
    config = CompressionConfig(target_size=target, chunk_length=chunk_length, read_size=read_size)
    backbone = Backbone(model, make_tokenizer(), "tiny")
    tracker, steps = ProgressTracker(None), []
    chunk_done = tracker.chunk_done
    tracker.chunk_done = lambda *step: (steps.append(step), chunk_done(*step))
    store = PassageStore(memory_bytes=0)
    (selection,) = select_passages(
        backbone,
        [inputs],
        [Budget(target, target)],
        METHODS[method],
        config,
        tracker,
        Reader(backbone, store),
    )
    context = encode_selection(
        backbone, selection, inputs.frame, chunk_length, ProgressTracker(None), store.encodings
    )
    return inputs, context, steps


@pytest.mark.parametrize(
    ("method", "architecture"),
    [("likelihood", name) for name in CONFIGS] + [("contrast", name) for name in FULL_ATTENTION],
)
def test_every_architecture_equals_the_reference(method, architecture):
    model = make_model(architecture, heads=6, kv_heads=2)
    assert_equals_reference(method, model, target=200, chunk_length=256)


@pytest.mark.parametrize("method", SEGMENT_SCORERS)
@pytest.mark.parametrize(("target", "chunk_length"), [(1, 700), (90, 96), (500, 101)])
def test_every_budget_and_chunk_length_equals_the_reference(target, chunk_length, method):
    assert_equals_reference(method, make_model(), target=target, chunk_length=chunk_length)


@pytest.mark.parametrize("read_size", [1, 60, 100, 300, 700, 10_000])
@pytest.mark.parametrize("target", [40, 90])
def test_reading_only_the_best_by_their_words_equals_the_reference(read_size, target):
    sizes = {"target": target, "chunk_length": 200, "read_size": max(target, read_size)}
    assert_equals_reference("likelihood", make_model(), **sizes)


def test_a_read_size_is_kept_and_enough_is_the_same_as_everything(engine):
    def select(**options):
        return engine.select(DOCUMENTS, QUESTION, target_size=60, **options)

    everything = select(read_size="all")
    total = everything.stats.document_tokens
    assert everything.stats.rated_tokens == total
    enough = select(read_size=total)
    assert (enough.positions, enough.excerpts) == (everything.positions, everything.excerpts)
    for read_size in (60, 150, 300):
        stats = select(read_size=read_size).stats
        assert read_size - 96 < stats.rated_tokens <= read_size
    assert select(read_size=1).stats.rated_tokens <= 96  # not fewer than are kept
    for target in (60, 20):  # 3/8 of all, or three times what is kept
        stats = engine.select(DOCUMENTS, QUESTION, target_size=target).stats
        most = max(3 * target, total * 3 // 8)
        assert most - 96 < stats.rated_tokens <= most


@settings(max_examples=60)
@given(st.data())
def test_likelihoods_and_words_are_put_together_as_the_reference_does(data):
    count = data.draw(st.integers(1, 12))
    number = st.floats(-5, 5, width=32)
    words, likelihood = (
        torch.tensor(data.draw(st.lists(number, min_size=count, max_size=count))) for _ in range(2)
    )
    read = torch.zeros(count, dtype=torch.bool)
    read[list(data.draw(st.sets(st.integers(0, count - 1), min_size=1)))] = True
    unread = torch.full((count,), torch.nan)
    # Of equal ones rounding decides what is left of their mean; that moves all alike.
    assume(float(likelihood[read].max() - likelihood[read].min()) > 0.01)
    found = combine(torch.where(read, likelihood, unread), words, read)
    chosen = [i for i in range(count) if read[i]]
    expected = reference_scores(chosen, dict(enumerate(likelihood.tolist())), words.tolist())
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("size", "read"),
    [(90, [True, False, False]), (110, [True, True, False]), (5, [True, False, False])],
)
def test_the_shortlist_ends_with_the_first_segment_that_does_not_fit(size, read):
    segments = [Segment(0, 60, 0), Segment(60, 110, 0), Segment(110, 130, 0)]
    assert shortlist(segments, torch.tensor([3.0, 2.0, 1.0]), size).tolist() == read


def test_progress_counts_what_is_read(engine):
    seen = []
    selection = engine.select(
        DOCUMENTS, QUESTION, target_size=60, read_size=200, progress=seen.append
    )
    assert seen[-1].tokens == seen[-1].total_tokens == selection.stats.rated_tokens <= 200


@pytest.mark.parametrize("read_size", [0, -1, 2.5, True, "none", None])
def test_a_read_size_that_is_none_is_refused(engine, read_size):
    with pytest.raises(ConfigurationError, match="read_size, if it is not .* whole number"):
        engine.select(DOCUMENTS, QUESTION, read_size=read_size)


@pytest.mark.parametrize("method", ["contrast", "finch"])
def test_methods_that_read_everything_take_no_read_size(engine, method):
    with pytest.raises(ConfigurationError, match="read_size is an option of the method"):
        engine.compress(DOCUMENTS, QUESTION, method=method, read_size=100)


def test_of_a_long_question_the_last_128_tokens_are_rated():
    question = "When the tide has turned and all ropes are on board, says the book, " * 3 + QUESTION
    assert len(question) > 200
    sizes = {"target": 150, "chunk_length": 256}
    assert_equals_reference("likelihood", make_model(), question=question, **sizes)


def assert_equals_reference(method, model, question=QUESTION, documents=DOCUMENTS, **sizes):
    inputs, context, _ = compress(method, model, question=question, documents=documents, **sizes)
    segments = [
        (s.start, s.end, s.document) for s in split_segments(inputs.tokens, shortest=32, longest=96)
    ]
    assert len(segments) > 10
    kept, keys, values = reference_passages(method, model, inputs, segments, **sizes)
    assert context.kept[0].tolist() == [kept]
    for layer, states in enumerate(context.cache.layers):
        assert context.kept[layer] is context.kept[0]
        torch.testing.assert_close(states.keys[0], keys[layer], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(states.values[0], values[layer], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("method", SEGMENT_SCORERS)
def test_memory_does_not_grow_with_the_documents(method):
    model = make_model(max_position_embeddings=256)
    documents = [Document("One more line here. " * 160, title="Lines")]
    inputs, context, steps = compress(
        method, model, target=64, chunk_length=16, documents=documents
    )
    assert len(steps) >= len(inputs.tokens) // 16
    assert [seen for seen, _ in steps] == sorted({seen for seen, _ in steps})
    assert steps[-1][0] == len(inputs.tokens)
    frame = inputs.frame
    window = max(len(frame.window.ids), len(frame.null_window.ids))
    assert max(kv for _, kv in steps) == len(frame.prefix) + 16 + window
    assert {states.keys.shape[-2] for states in context.cache.layers} == {len(frame.prefix) + 64}


@pytest.mark.parametrize("architecture", SLIDING)
@pytest.mark.parametrize("method", ["contrast", "finch"])
def test_sliding_windows_need_the_method_that_leaves_attention_to_the_model(
    architecture, method, tokenizer
):
    engine = FinchEngine(make_model(architecture), tokenizer)
    guided = FinchEngine(make_model(), tokenizer, scorer=engine)
    for run in (engine.compress, *([guided.compress] if method != "finch" else [])):
        with pytest.raises(UnsupportedModelError, match="window of 64 tokens only. Use method="):
            run(DOCUMENTS, QUESTION, target_size=100, method=method)
    with pytest.raises(UnsupportedModelError, match="attention cannot be observed"):
        question_attention(engine, DOCUMENTS, QUESTION)


def test_segments_read_side_by_side_take_no_more_memory_than_a_chunk():
    inputs, _, steps = compress("likelihood", make_model(), target=64, chunk_length=512)
    assert len(steps) < len(split_segments(inputs.tokens, shortest=32, longest=96))
    beside = len(inputs.frame.prefix) + len(inputs.frame.window.ids)
    assert max(kv for _, kv in steps) <= beside + 512


def test_a_segment_is_read_under_the_start_of_its_heading():
    documents = [Document("One more line here. " * 30, title="Lines " * 20)]
    tokens = make_input(documents).tokens
    segments = split_segments(tokens, shortest=32, longest=96)
    contexts = headed_segments(tokens, segments, longest=100)
    heading = tokens.ids[:32]
    for segment, context in zip(segments[4:], contexts[4:], strict=True):
        own = tokens.ids[segment.start : segment.end]
        assert context == (*heading[: 100 - len(own)], *own)
    assert contexts[0] == tokens.ids[: segments[0].end]


def test_a_budget_is_filled_with_the_best_segments_and_the_start_of_the_next():
    segments = [Segment(0, 4, 0), Segment(4, 9, 0), Segment(9, 12, 1)]
    scores = torch.tensor([0.5, -1.0, 2.0])
    assert take_best(segments, scores, 5) == [Segment(9, 12, 1), Segment(0, 2, 0)]
    assert take_best(segments, scores, 12) == [segments[2], segments[0], segments[1]]
    assert take_best(segments, torch.zeros(3), 6) == [Segment(0, 4, 0), Segment(4, 6, 0)]


def test_the_best_quarter_comes_last_and_the_rest_in_document_order():
    best, second, *rest = [Segment(start, start + 10, 0) for start in (40, 10, 50, 20, 60, 0, 70)]
    assert arrange([best, second, *rest]) == [
        *(Segment(start, start + 10, 0) for start in (0, 20, 50, 60, 70)),
        second,
        best,
    ]
    assert arrange([best]) == [best]
    assert arrange([best, second]) == [second, best]


def test_habits_score_nothing_and_attention_to_the_question_counts():
    asked, null = torch.tensor([[0.5, 0.1], [0.3, 0.3]]), torch.tensor([[0.5, 0.01], [0.3, 0.1]])
    scores = contrast_scores(asked, null)
    assert scores[0] == 0
    assert scores[1] == pytest.approx((2.3026 + 1.0986) / 2, abs=1e-3)


def test_equal_scores_standardize_to_zero():
    assert standardize(torch.tensor([3.0, 3.0])).tolist() == [0, 0]
    scores = standardize(torch.tensor([1.0, 2.0, 6.0]))
    assert scores.mean() == pytest.approx(0, abs=1e-6)
    assert scores.square().mean() == pytest.approx(1)


@pytest.mark.parametrize(
    "option",
    [
        {"selection": "kv_head"},
        {"budget_schedule": "fill"},
        {"normalize_scores": True},
        {"pooling": "max"},
        {"pooling_kernel": 7},
    ],
)
def test_options_of_the_papers_method_are_refused(option):
    (name,) = option
    with pytest.raises(ConfigurationError, match=f"{name} is an option of the method 'finch'"):
        CompressionConfig(**option)
    pooling = {"pooling": "mean"} if name == "pooling_kernel" else {}
    assert CompressionConfig(method="finch", **option, **pooling).method == "finch"


def test_the_default_is_likelihood(tokenizer):
    engine = FinchEngine(make_model(), tokenizer)
    by_default = engine.compress(DOCUMENTS, QUESTION, target_size=100).kept[0]
    kept = {
        name: engine.compress(DOCUMENTS, QUESTION, target_size=100, method=name).kept[0]
        for name in METHODS
    }
    assert torch.equal(by_default, kept["likelihood"])
    assert not torch.equal(by_default, kept["contrast"])
    assert not torch.equal(by_default, kept["finch"])
