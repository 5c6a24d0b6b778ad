"""`target_size="auto"`: as many tokens as the scores call for, between a floor and a ceiling."""

import random

import pytest
import torch

from finch_integrations import CompressionConfig, ConfigurationError, FinchEngine
from finch_integrations.config import DEFAULT_TARGET_SIZE
from finch_integrations.engine.budget import Budget
from finch_integrations.engine.methods.sizing import NEAR, choose_size
from finch_integrations.engine.segments import Segment
from finch_integrations.engine.selection import Selection
from tests.tiny import make_model, make_tokenizer, text_of

LEAST = 192
DOCUMENTS = [text_of(300, seed=1), text_of(400, seed=2), text_of(200, seed=3)]


def segments_of(*lengths):
    ends = [sum(lengths[: n + 1]) for n in range(len(lengths))]
    return [Segment(end - length, end, 0) for length, end in zip(lengths, ends, strict=True)]


@pytest.mark.parametrize(
    ("scores", "size", "limited_by"),
    [
        ([9.0, 0.0, -1.0, -1.0, -1.0], 40, "floor"),
        ([9.0, 8.0, 0.0, -1.0, -1.0], 60, "scores"),
        ([0.0, 9.0, 8.0, -1.0, 7.0], 120, "scores"),
        ([9.0, 9 * NEAR + 0.01, 9 * NEAR - 0.01, 0.0, 0.0], 60, "scores"),
        ([9.0, 8.0, 8.0, 8.0, 8.0], 130, "ceiling"),
        ([0.0, 0.0, 0.0, 0.0, 0.0], 130, "ceiling"),
    ],
)
def test_passages_nearly_as_good_as_the_best_are_kept(scores, size, limited_by):
    segments = segments_of(30, 30, 40, 25, 50)
    assert choose_size(segments, torch.tensor(scores), Budget(40, 130)) == (size, limited_by)


def test_a_number_that_was_asked_for_is_kept_whatever_the_scores_are():
    for scores in ([9.0, 0.0], [1.0, 1.0]):
        found = choose_size(segments_of(30, 30), torch.tensor(scores), Budget(45, 45))
        assert found == (45, "budget")


def test_the_size_is_within_the_budget_and_does_not_depend_on_the_scale_of_the_scores():
    draw = random.Random(3)
    for _ in range(200):
        lengths = [draw.randint(1, 96) for _ in range(draw.randint(1, 30))]
        scores = torch.tensor([draw.gauss(0, 2) for _ in lengths])
        budget = Budget(draw.randint(1, 50), draw.randint(50, 500))
        size, limited_by = choose_size(segments_of(*lengths), scores, budget)
        assert budget.least <= size <= budget.most
        assert choose_size(segments_of(*lengths), scores * 8, budget) == (size, limited_by)
        near = [n for n, score in enumerate(scores) if score >= NEAR * max(scores)]
        if limited_by == "scores":
            assert size == sum(lengths[n] for n in near)


@pytest.mark.parametrize("method", ["likelihood", "contrast"])
@pytest.mark.parametrize("question", ["What is it?", "Who was there?", "How many are there?"])
def test_what_is_kept_is_what_the_same_number_would_keep(method, question):
    engine = FinchEngine(make_model(), make_tokenizer())
    options = {"method": method} | ({"read_size": "all"} if method == "likelihood" else {})
    auto = engine.select(DOCUMENTS, question, target_size="auto", **options)
    kept = auto.stats.kept_tokens
    assert LEAST <= kept < auto.stats.document_tokens
    assert auto.stats.limited_by in ("scores", "floor")
    fixed = engine.select(DOCUMENTS, question, target_size=kept, **options)
    assert fixed.stats.limited_by == "budget"
    assert (auto.positions, auto.excerpts) == (fixed.positions, fixed.excerpts)
    context = engine.compress(DOCUMENTS, question, target_size="auto", **options)
    assert context.stats.kept_tokens == kept
    assert context.stats.limited_by == auto.stats.limited_by


def test_documents_that_are_as_short_as_the_floor_are_kept_whole():
    engine = FinchEngine(make_model(), make_tokenizer())
    stats = engine.select([text_of(80, seed=1)], "What?", target_size="auto").stats
    assert stats.document_tokens <= LEAST
    assert (stats.kept_tokens, stats.limited_by) == (stats.document_tokens, "documents")
    assert stats.rated_tokens == 0


def test_the_ceiling_is_what_is_kept_without_a_budget():
    engine = FinchEngine(make_model(max_position_embeddings=550), make_tokenizer())
    same = [f"The {number:04} of them is here. " * 3 for number in range(40)]
    stats = engine.select(same, "?", target_size="auto").stats
    assert LEAST < stats.kept_tokens < DEFAULT_TARGET_SIZE
    assert stats.kept_tokens == engine.select(same, "?").stats.kept_tokens
    assert stats.limited_by == "ceiling"


def test_less_is_read_than_for_the_ceiling():
    engine = FinchEngine(make_model(), make_tokenizer())
    stats = engine.select(DOCUMENTS, "What is it?", target_size="auto").stats
    assert stats.rated_tokens <= max(3 * LEAST, 3 / 8 * stats.document_tokens)


def test_questions_asked_together_keep_as_much_as_each_alone():
    questions = ["What is it?", "Who was there?"]
    engine = FinchEngine(make_model(), make_tokenizer())
    together = engine.select_many(DOCUMENTS, questions, target_size="auto")
    for question, selection in zip(questions, together, strict=True):
        alone = FinchEngine(make_model(), make_tokenizer())
        assert alone.select(DOCUMENTS, question, target_size="auto").positions == (
            selection.positions
        )


def test_a_saved_selection_says_what_limited_it(tmp_path):
    engine = FinchEngine(make_model(), make_tokenizer())
    selection = engine.select(DOCUMENTS, "What is it?", target_size="auto")
    selection.save(tmp_path / "selection")
    assert Selection.load(tmp_path / "selection") == selection


def test_the_papers_method_has_no_passages_to_score():
    with pytest.raises(ConfigurationError, match="target_size='auto' looks at the scores"):
        CompressionConfig(method="finch", target_size="auto")


@pytest.mark.parametrize("value", ["all", "Auto", "", 0, 1.5, True])
def test_other_words_than_auto_are_refused(value):
    with pytest.raises(ConfigurationError, match="target_size must be .* or 'auto', got"):
        CompressionConfig(target_size=value)


def test_auto_is_one_budget():
    with pytest.raises(ConfigurationError, match="give one budget"):
        CompressionConfig(target_size="auto", compression_ratio=0.5)
