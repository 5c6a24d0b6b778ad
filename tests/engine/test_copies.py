"""What is in several documents is kept once."""

import pytest
import torch

from finch_integrations import Document
from finch_integrations.engine.methods.copies import demote_copies, sentences_of
from finch_integrations.engine.methods.passages import texts_of
from finch_integrations.engine.segments import split_segments
from tests.tiny import make_input

STORY = (
    "The lamp oil is in the red shed by the pier, next to the ropes and the old nets. "
    "Ask for the keys at the office of the harbour master before it closes at noon. "
)
OTHERS = "".join(
    f"On day {day} the boats left at {day + 4} and came back with {day * 3} boxes of fish. "
    for day in range(1, 20)
)
QUESTION = "Where is the lamp oil?"


def test_copies_come_last_in_their_own_order_and_the_best_one_stays():
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0, 0.5])
    said = [{"a"}, {"a", "b"}, {"c"}, {"b", "a"}, {"a", "c"}]
    ranked = demote_copies(scores, [frozenset(s) for s in said]).sort(descending=True).indices
    assert ranked.tolist() == [1, 2, 3, 0, 4]


def test_without_copies_the_scores_stay_as_they_are():
    scores = torch.tensor([1.0, 3.0])
    assert demote_copies(scores, [frozenset("ac"), frozenset("ab")]) is scores


@pytest.mark.parametrize(
    ("text", "other", "same"),
    [
        ("It cost 5 dollars in 2023.", "It cost 5\n  dollars in 2023.", True),
        ("It cost 5 dollars in 2023.", "It cost 6 dollars in 2023.", False),
        ("It is 5 degrees.", "It is -5 degrees.", False),
        ("Anna is in Rome. Ben is in Oslo.", "Anna is in Oslo. Ben is in Rome.", False),
        ("Anna is in Rome. Ben is in Oslo.", "Ben is in Oslo. Anna is in Rome.", True),
        ("| a | 1 |\n| b | 2 |", "| a | 2 |\n| b | 1 |", False),
    ],
)
def test_only_the_very_same_sentences_are_copies(text, other, same):
    tokens = make_input([text, other]).tokens
    said = sentences_of(texts_of(tokens, split_segments(tokens, shortest=32, longest=96)))
    assert (said[0] == said[1]) is same


@pytest.mark.parametrize("method", ["likelihood", "contrast"])
@pytest.mark.parametrize("read_size", ["auto", "all"])
def test_a_document_that_comes_again_takes_no_budget(engine, method, read_size):
    documents = [Document(STORY, id=f"copy {number}") for number in range(5)]
    documents.insert(3, Document(OTHERS, id="others"))
    options = {"read_size": read_size} if method == "likelihood" else {}
    budget = len(make_input([STORY, OTHERS]).tokens)
    kept = engine.extract(documents, QUESTION, target_size=budget, method=method, **options)
    assert "".join(e.text for e in kept if e.document_id.startswith("copy")).count("red shed") == 1
    assert "day 19" in "".join(e.text for e in kept if e.document_id == "others")


def test_copies_are_kept_where_the_budget_has_room_for_them(engine):
    documents = [Document(STORY, id=f"copy {number}") for number in range(3)]
    whole = make_input([STORY] * 3).tokens
    kept = engine.extract(documents, QUESTION, target_size=len(whole) - 4)
    assert "".join(e.text for e in kept).count("red shed") == 3
