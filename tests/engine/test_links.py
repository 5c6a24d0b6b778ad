"""What the best passage leads to is found, though it shares no word with the question."""

import pytest
import torch

from finch_integrations import Document
from finch_integrations.engine.methods.copies import sentences_of
from finch_integrations.engine.methods.links import raise_linked, raise_to_half
from finch_integrations.engine.methods.passages import WordMatcher
from finch_integrations.engine.segments import split_segments
from tests.engine.test_passages import assert_equals_reference
from tests.tiny import make_input, make_model

QUESTION = "In which city does the person live who was given the silver compass?"
GIVEN = "The silver compass was given to Nils Aalto at the end of a long evening. "
HOME = "Nils Aalto has moved to Tromso with his two dogs and a good many books. "
BOATS = ["Alba", "Bora", "Cygnet", "Dolphin", "Ella", "Fram", "Gjoa", "Hela", "Isbjorn"]
OTHERS = [
    f"On day {day} the {name} came in with {day * 3} boxes of fish and left again before noon. "
    for day, name in enumerate(BOATS, 1)
] + ["Olga Berg has stayed in the old town since the harbour was closed in winter. "]


def matcher_of(texts):
    tokens = make_input(texts).tokens
    segments = split_segments(tokens, shortest=1, longest=1000)
    assert len(segments) == len(texts)
    return WordMatcher(tokens, segments)


def raised(scores, texts, question=QUESTION):
    matcher = matcher_of(texts)
    return raise_linked(torch.tensor(scores), matcher, sentences_of(matcher.texts), question)


def test_links_are_rare_words_that_the_question_does_not_say():
    texts = [
        "Silver compass: Nils Aalto, fish.",
        "Nils Aalto and Nils.",
        "Aalto.",
        "Silver compass.",
    ]
    links = matcher_of([*texts, *["Fish."] * 3, "Rope."]).links(0, "Who has the silver compass?")
    nils, aalto = torch.log(torch.tensor([1 + 6.5 / 2.5, 1 + 5.5 / 3.5])).tolist()
    assert links.tolist() == pytest.approx([0, nils + aalto, aalto, 0, 0, 0, 0, 0])


@pytest.mark.parametrize(
    ("scores", "number", "expected"),
    [
        ([4.0, 2.0, 1.0, -1.0], 3, [4.0, 2.0, 1.0, 1.5]),  # after all that are half as good
        ([4.0, 1.75, 1.0, -1.0], 3, [4.0, 1.75, 1.0, 2.875]),
        ([4.0, 2.0, 1.0, -1.0], 1, [4.0, 2.0, 1.0, -1.0]),  # among these: it stays
        ([4.0, 2.0, -1.0], 2, [4.0, 2.0, -1.0]),  # there is nobody to pass
        ([0.0, 0.0, 0.0], 2, [0.0, 0.0, 0.0]),
        ([-1.0, -3.0, -4.0], 2, [-1.0, -3.0, -2.0]),  # the best is always good
    ],
)
def test_a_segment_is_raised_to_right_after_those_half_as_good_as_the_best(
    scores, number, expected
):
    given = torch.tensor(scores)
    assert raise_to_half(given, number).tolist() == pytest.approx(expected)
    assert given.tolist() == scores


def test_what_the_best_leads_to_is_raised_and_nothing_else():
    scores = [3.0, 0.5, 0.2, -2.0, -1.0]
    found = raised(scores, [GIVEN, OTHERS[0], OTHERS[1], HOME, OTHERS[2]]).tolist()
    assert found == pytest.approx([3.0, 0.5, 0.2, 1.75, -1.0])
    assert raised(scores, [GIVEN, *OTHERS[:4]]).tolist() == pytest.approx(scores)


def test_a_copy_of_the_best_passage_leads_nowhere():
    texts = [GIVEN, OTHERS[0], GIVEN, HOME]
    assert raised([3.0, 0.5, -1.0, -2.0], texts).tolist() == pytest.approx([3.0, 0.5, -1.0, 1.75])


@pytest.mark.parametrize("read_size", [60, 150, 300, 600, 10_000])
@pytest.mark.parametrize("copies", [0, 1])
@pytest.mark.parametrize("target", [60, 120])
def test_the_choice_equals_the_reference(target, read_size, copies):
    documents = [GIVEN + OTHERS[0], *OTHERS[1:6], HOME + OTHERS[6], *OTHERS[7:]]
    documents += [documents[0]] * copies
    sizes = {"target": target, "chunk_length": 200, "read_size": max(target, read_size)}
    assert_equals_reference(
        "likelihood", make_model(), question=QUESTION, documents=documents, **sizes
    )


def test_links_read_nothing_more(engine):
    for read_size in (150, 300):
        stats = engine.select(
            [GIVEN + "".join(OTHERS), HOME], QUESTION, target_size=60, read_size=read_size
        ).stats
        assert read_size - 96 < stats.rated_tokens <= read_size


@pytest.mark.model
def test_both_passages_of_a_fact_in_two_steps_are_kept(embedded_engine):
    documents = [
        Document("".join([*OTHERS[:3], GIVEN, *OTHERS[3:5]]), title="Log, spring"),
        Document("".join([*OTHERS[5:8], HOME, *OTHERS[8:]]), title="Log, autumn"),
    ]
    kept = " ".join(e.text for e in embedded_engine.extract(documents, QUESTION, target_size=120))
    assert "given to Nils Aalto" in kept
    assert "Tromso" in kept
