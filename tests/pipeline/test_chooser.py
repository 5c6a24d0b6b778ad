"""Passages chosen for a model elsewhere: those of `extract`, within a budget in its tokens."""

import asyncio
import math

import pytest

from finch_integrations import ConfigurationError, Document
from finch_integrations.documents import prepare_documents
from finch_integrations.pipeline.chooser import Chooser, check_elsewhere, token_count
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.shorten import GAP, shorten

FILLER = "Nothing of that kind is said in here today. "
DOCUMENTS = [
    Document(FILLER * 3 + "The lamp oil stands in the red shed.\n\n" + FILLER * 6, id="a"),
    Document(FILLER * 5),
    Document("The oil for the lamp is by the red shed door too, they say.", title="T"),
]
QUESTION = "Where is the lamp oil: in the red shed?"


@pytest.fixture
def handle(engine):
    return SharedEngine(engine)


def words(text):
    """Another tokenizer than the tiny one's, which counts bytes."""
    return len(text.split())


def test_what_is_left_is_the_passages_of_extract_in_order(engine, handle):
    options = {"target_size": 260}
    choice = Chooser(handle, options).choose(DOCUMENTS, QUESTION)
    excerpts = engine.extract(DOCUMENTS, QUESTION, **options)
    assert tuple(e for part in choice.shortened for e in part.excerpts) == excerpts
    assert choice.shortened == shorten(prepare_documents(DOCUMENTS), excerpts)
    assert [part.index for part in choice.shortened] == sorted({p.index for p in choice.shortened})
    for part in choice.shortened:
        text = DOCUMENTS[part.index].text
        position = 0
        for piece in part.text.split(GAP):  # every piece is in the text, in order
            assert text.find(piece, position) >= position
            position = text.find(piece, position) + len(piece)
        kept = "".join("".join(e.text.split()) for e in part.excerpts)
        assert "".join(part.text.replace(GAP, "").split()) == kept


def test_with_room_for_everything_nothing_changes(handle):
    choice = Chooser(handle, {"target_size": 5000}).choose(DOCUMENTS, QUESTION)
    assert [part.text for part in choice.shortened] == [d.text.strip() for d in DOCUMENTS]
    assert choice.complete


def test_without_blocking_the_event_loop_the_choice_is_the_same(handle):
    chooser = Chooser(handle, {"target_size": 100})
    expected = chooser.choose(DOCUMENTS, QUESTION)
    assert asyncio.run(chooser.achoose(DOCUMENTS, QUESTION)).shortened == expected.shortened
    with pytest.raises(ConfigurationError, match="target_size"):
        Chooser(handle, {"target_size": 0}).choose(DOCUMENTS, QUESTION)


@pytest.mark.parametrize("budget", [1, 10, 23, 40, 60, 100])
def test_the_budget_is_kept_as_the_other_model_counts(handle, budget):
    choice = Chooser(handle, {"target_size": budget}, words).choose(DOCUMENTS, QUESTION)
    kept = sum(words(e.text) for part in choice.shortened for e in part.excerpts)
    assert choice.tokens_after == kept
    assert choice.tokens_before == sum(words(document.text) for document in DOCUMENTS)
    assert kept <= budget or kept <= 1
    assert budget < 60 or kept > budget / 2


@pytest.mark.parametrize("most", [5, 20, 500])
def test_what_the_scores_call_for_is_kept_within_what_the_other_model_takes(handle, engine, most):
    options = {"target_size": "auto"}
    choice = Chooser(handle, options, words, most).choose(DOCUMENTS, QUESTION)
    assert choice.tokens_after <= most
    expected = engine.extract(DOCUMENTS, QUESTION, **options)
    assert 20 < sum(words(excerpt.text) for excerpt in expected) <= 500
    kept = tuple(e for part in choice.shortened for e in part.excerpts)
    assert (kept == expected) == (most == 500)


def test_a_share_of_the_tokens_is_one_as_the_other_model_counts(handle):
    choice = Chooser(handle, {"compression_ratio": 0.75}, words).choose(DOCUMENTS, QUESTION)
    assert 0 < choice.tokens_after <= choice.tokens_before / 4


def test_a_set_that_fits_by_the_other_count_is_kept_whole(handle):
    total = sum(words(document.text) for document in DOCUMENTS)
    for budget in (total, total - 1):
        choice = Chooser(handle, {"target_size": budget}, words).choose(DOCUMENTS, QUESTION)
        assert choice.complete == (budget == total)


def test_a_stated_ratio_counts_tokens_of_the_other_model(handle):
    count = token_count(handle, None, 0.25)
    assert count("x" * 10) == math.ceil(10 * 0.25)
    half = Chooser(handle, {"target_size": 50}, token_count(handle, None, 0.5)).choose(
        DOCUMENTS, QUESTION
    )
    assert 50 < half.stats.kept_tokens <= 100


@pytest.mark.parametrize("ratio", [0, -1, math.inf, math.nan, True, "1"])
def test_an_unusable_ratio_is_refused(handle, ratio):
    with pytest.raises(ConfigurationError, match="token_ratio"):
        token_count(handle, None, ratio)


@pytest.mark.parametrize(
    ("options", "reason"),
    [({"method": "finch"}, "prunes the cache"), ({"max_kv_bytes": 10**6}, "generated elsewhere")],
)
def test_what_needs_the_other_models_cache_is_refused_with_the_reason(options, reason):
    with pytest.raises(ConfigurationError, match=reason):
        check_elsewhere(options)
