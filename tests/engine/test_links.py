"""What the best passage leads to is found, though it shares no word with the question."""

import pytest
import torch

from finch_integrations import Document
from finch_integrations.engine.methods.copies import sentences_of
from finch_integrations.engine.methods.links import raise_linked
from finch_integrations.engine.methods.passages import WordMatcher, headings_of
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
    ("scores", "expected"),
    [
        ([4.0, 2.0, 1.0, -1.0], [4.0, 2.0, 1.0, 1.5]),  # after all that are half as good
        ([4.0, 1.75, 1.0, -1.0], [4.0, 1.75, 1.0, 2.875]),
        ([4.0, 1.0, 0.5, 2.0], [4.0, 1.0, 0.5, 2.0]),  # among these: it stays
        ([0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]),
        ([-1.0, -3.0, -5.0, -4.0], [-1.0, -3.0, -5.0, -2.0]),  # the best is always good
    ],
)
def test_what_is_linked_comes_right_after_those_half_as_good_as_the_best(scores, expected):
    given = torch.tensor(scores)
    matcher = matcher_of([GIVEN, OTHERS[0], OTHERS[1], HOME])
    found = raise_linked(given, matcher, sentences_of(matcher.texts), QUESTION)
    assert found.tolist() == pytest.approx(expected)
    assert given.tolist() == scores


def test_where_there_is_nobody_to_pass_nothing_is_raised():
    assert raised([4.0, -1.0], [GIVEN, HOME]).tolist() == [4.0, -1.0]


def test_of_equal_links_two_are_raised_and_the_better_one_comes_first():
    homes = [f"Nils Aalto {does}." for does in ("sings", "sleeps", "sails")]
    scores = [3.0, -4.0, 0.0, -2.0, -3.0]
    # A word in more than three segments is not rare: with four, the names lead nowhere.
    found = raised(scores, [GIVEN, homes[0], OTHERS[0], homes[1], OTHERS[1]]).tolist()
    assert found == pytest.approx([3.0, 1.0, 0.0, 2.0, -3.0])
    assert raised(scores, [GIVEN, *homes, "Fish."]).tolist() == pytest.approx(scores)


def test_a_link_to_what_is_good_already_gives_way_to_the_next_one():
    near = "Nils Aalto at the end of a long evening sang. "
    found = raised([3.0, 2.0, 0.5, -1.0], [GIVEN, near, OTHERS[0], HOME]).tolist()
    assert found == pytest.approx([3.0, 2.0, 0.5, 1.25])


def test_what_the_best_leads_to_is_raised_and_nothing_else():
    scores = [3.0, 0.5, 0.2, -2.0, -1.0]
    found = raised(scores, [GIVEN, OTHERS[0], OTHERS[1], HOME, OTHERS[2]]).tolist()
    assert found == pytest.approx([3.0, 0.5, 0.2, 1.75, -1.0])


def test_where_the_best_leads_nowhere_nothing_is_raised():
    scores = [-2.0, 3.0, 0.5, 0.2, -1.0]
    found = raised(scores, [OTHERS[0], GIVEN, *OTHERS[1:4]]).tolist()
    assert found == pytest.approx(scores)


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


def test_a_heading_is_matched_with_each_of_its_documents_segments():
    filler = "It was said again and again in the long and dark winter. " * 3
    documents = [
        Document(filler + "He has played in most of them.", title="Premier league appearances"),
        Document(filler + "She has played in most of them.", title="A list of boats"),
    ]
    tokens = make_input(documents, "Who has most premier league appearances?").tokens
    segments = split_segments(tokens, shortest=32, longest=96)
    scores = WordMatcher(tokens, segments).both("Who has most premier league appearances?")
    by_document = [
        [
            score
            for score, segment in zip(scores.tolist(), segments, strict=True)
            if segment.document == n
        ]
        for n in (0, 1)
    ]
    assert len(by_document[0]) > 2
    assert min(by_document[0]) > max(by_document[1])


def test_the_words_of_a_heading_link_the_segments_under_it():
    said = "It was said again and again in the long winter that a silver compass was given away. "
    tokens = make_input([Document(said * 2, title="Aalto"), "Aalto sleeps.", "Fish."]).tokens
    segments = split_segments(tokens, shortest=32, longest=96)
    assert [segment.document for segment in segments] == [0, 0, 1, 2]
    _, same, other, fish = WordMatcher(tokens, segments).links(1, QUESTION).tolist()
    assert same == fish == 0
    assert other > 0


def test_of_a_long_heading_only_the_start_belongs_to_every_segment():
    tokens = make_input([Document("Rope. " * 60, title="word " * 40)]).tokens
    segments = split_segments(tokens, shortest=32, longest=96)
    found = headings_of(tokens, segments)
    assert [len(heading) for heading in found] == [min(32, s.start) for s in segments]
