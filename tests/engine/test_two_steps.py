"""What the best passage leads to is found, though it shares no word with the question."""

import pytest
import torch

from finch_integrations import CompressionConfig, ConfigurationError, Document
from finch_integrations.engine.methods.likelihood import _differ, follow
from finch_integrations.engine.methods.passages import WordMatcher
from finch_integrations.engine.passage_reader import PassageReader
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


def test_the_strongest_link_counts_as_much_as_the_words_of_the_best_and_none_less_than_before():
    words = torch.tensor([4.0, -1.0, 3.5, -1.0, 0.0])
    assert follow(words, 0, torch.tensor([0.0, 6.0, 3.0, 3.0, 0.0])).tolist() == [4, 4, 3.5, 1.5, 0]
    assert follow(words, 0, torch.zeros(5)) is words
    # The best by its likelihood may have the fewest words: links then raise nothing.
    assert follow(words, 1, torch.tensor([1.0, 0, 0, 0, 0])).tolist() == words.tolist()


@pytest.mark.parametrize("read_size", [60, 150, 300, 600, 10_000])
@pytest.mark.parametrize("copies", [0, 1])
def test_the_second_step_equals_the_reference(read_size, copies):
    documents = [GIVEN + OTHERS[0], *OTHERS[1:6], HOME + OTHERS[6], *OTHERS[7:]]
    documents += [documents[0]] * copies
    sizes = {"target": 60, "chunk_length": 200, "read_size": read_size, "steps": 2}
    assert_equals_reference(
        "likelihood", make_model(), question=QUESTION, documents=documents, **sizes
    )


@pytest.mark.parametrize("steps", [0, 3, 2.0, True, "2", None])
def test_steps_are_one_or_two(steps):
    with pytest.raises(ConfigurationError, match="steps must be 1 or 2, got"):
        CompressionConfig(steps=steps)


@pytest.mark.parametrize("method", ["contrast", "finch"])
def test_methods_that_read_everything_take_no_second_step(method):
    with pytest.raises(ConfigurationError, match="steps=2 is an option of the method 'likelihood'"):
        CompressionConfig(method=method, steps=2)


def test_the_second_step_reads_no_more(engine):
    for read_size in (150, 300):
        stats = engine.select(
            [GIVEN + "".join(OTHERS), HOME], QUESTION, target_size=60, read_size=read_size, steps=2
        ).stats
        assert read_size - 96 < stats.rated_tokens <= read_size


def test_a_quarter_of_the_reading_waits_for_the_second_step(engine, monkeypatch):
    asked, likelihoods = [], PassageReader.likelihoods

    def watched(self, passages, windows, wanted, **options):
        asked.append(int(wanted.sum()))
        return likelihoods(self, passages, windows, wanted, **options)

    monkeypatch.setattr(PassageReader, "likelihoods", watched)
    documents = [GIVEN + "".join(OTHERS), HOME]
    for steps in (1, 2):
        engine.select(documents, QUESTION, target_size=60, read_size=600, steps=steps)
    one, first, second = asked
    assert 0 < second < first < one


def test_a_copy_of_the_best_passage_does_not_hide_what_it_leads_to(engine, monkeypatch):
    read, likelihoods = [], PassageReader.likelihoods

    def watched(self, passages, windows, wanted, **options):
        read.append(wanted[0].nonzero().flatten().tolist())
        return likelihoods(self, passages, windows, wanted, **options)

    monkeypatch.setattr(PassageReader, "likelihoods", watched)
    alike = [
        f"In {year} a silver bowl was given to the city museum with a card. "
        for year in range(1990, 1996)
    ]
    documents = [GIVEN + "".join(alike), "".join(OTHERS[:4]) + GIVEN, HOME]
    engine.select(documents, QUESTION, target_size=60, read_size=300, steps=2)
    inputs = make_input(documents).tokens
    segments = split_segments(inputs, shortest=32, longest=96)
    texts = [inputs.text_between(segment.start, segment.end) for segment in segments]
    assert texts[-1].strip() == HOME.strip()
    assert 0 in read[0]
    assert read[1] == [len(texts) - 1]


def test_a_copy_of_the_best_passage_leads_nowhere():
    said = [frozenset("a"), frozenset("ab"), frozenset("b"), frozenset("bc")]
    assert _differ(said, 1).tolist() == [False, False, False, True]


@pytest.mark.model
def test_both_passages_of_a_fact_in_two_steps_are_kept(embedded_engine):
    documents = [
        Document("".join([*OTHERS[:3], GIVEN, *OTHERS[3:5]]), title="Log, spring"),
        Document("".join([*OTHERS[5:8], HOME, *OTHERS[8:]]), title="Log, autumn"),
    ]
    kept = " ".join(
        e.text for e in embedded_engine.extract(documents, QUESTION, target_size=100, steps=2)
    )
    assert "given to Nils Aalto" in kept
    assert "Tromso" in kept
