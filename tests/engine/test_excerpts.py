"""Kept tokens found again in the documents' own text."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations import (
    ConfigurationError,
    ContextTooLongError,
    Document,
    FinchEngine,
    InvalidInputError,
)
from finch_integrations.engine.excerpts import find_excerpts
from finch_integrations.engine.methods.passages import take_best
from finch_integrations.engine.segments import split_segments
from tests.tiny import make_input, make_model, make_tokenizer

DOCUMENTS = [
    Document("  One sentence is here. Another one is there. " * 4, id="a", title="A title"),
    Document("Something else is said. Nothing more. " * 5 + "\n", id="b"),
]


def excerpts_of(documents, scores, budget, *, shortest=1, longest=60):
    inputs = make_input(documents)
    segments = split_segments(inputs.tokens, shortest=shortest, longest=longest)
    scores = torch.tensor((scores * len(segments))[: len(segments)], dtype=torch.float)
    kept = take_best(segments, scores, min(budget, len(inputs.tokens)))
    return find_excerpts(inputs.documents, inputs.tokens, kept)


def test_passages_are_named_by_their_place_in_the_text():
    texts = ["First here. Second one. Third now.", "Fourth. Fifth at last."]
    excerpts = excerpts_of(texts, [0, 2, 1, 0, 3], 12 + 10 + 14)
    assert [(e.document_id, e.text, e.score) for e in excerpts] == [
        ("doc-1", "Second one.", 2),
        ("doc-1", "Third now.", 1),
        ("doc-2", "Fifth at last.", 3),
    ]
    assert [(e.start, e.end) for e in excerpts] == [(12, 23), (24, 34), (8, 22)]


def test_a_heading_put_in_front_is_not_part_of_the_text():
    document = Document("  Body text here.", id="x", title="Heading")
    (excerpt,) = excerpts_of([document], [1], 1000)
    assert (excerpt.text, excerpt.start, excerpt.end) == ("Body text here.", 2, 17)
    assert excerpts_of([document], [1, 0], 9) == ()  # the heading alone


@given(
    texts=st.lists(st.text("ab é.\n你", min_size=1).filter(str.strip), min_size=1, max_size=3),
    titles=st.booleans(),
    scores=st.lists(st.integers(-2, 2), min_size=1, max_size=9),
    budget=st.integers(1, 60),
)
def test_every_excerpt_is_the_text_it_names(texts, titles, scores, budget):
    documents = [
        Document(text, id=str(number), title="T" if titles else None)
        for number, text in enumerate(texts)
    ]
    excerpts = excerpts_of(documents, scores, budget, longest=9)
    end = {}
    for excerpt in excerpts:
        assert texts[int(excerpt.document_id)][excerpt.start : excerpt.end] == excerpt.text
        assert excerpt.text.strip() == excerpt.text != ""
        assert excerpt.start >= end.get(excerpt.document_id, 0)  # no overlap
        end[excerpt.document_id] = excerpt.end
    if budget >= 60 and not titles and sum(len(t.encode()) + 2 for t in texts) < 60:
        squeeze = lambda parts: "".join("".join(parts).split())  # noqa: E731
        assert squeeze(e.text for e in excerpts) == squeeze(texts)


def test_a_context_has_the_passages_that_are_in_its_cache(engine):
    context = engine.compress(DOCUMENTS, "What is said?", target_size=120)
    assert context.excerpts
    # One token a byte; white space at the ends of passages is left out.
    assert sum(len(excerpt.text) for excerpt in context.excerpts) >= 100
    assert {e.document_id for e in context.excerpts} <= {"a", "b"}
    assert context.excerpts == engine.extract(DOCUMENTS, "What is said?", target_size=120)


def test_a_document_has_tokens_of_its_own_whatever_comes_after_it():
    """Some tokenizers merge a full stop with the blank line after it."""
    tokenizer = make_tokenizer(merges=[("Ċ", "Ċ"), (".", "ĊĊ")])
    engine = FinchEngine(make_model(vocab_size=260), tokenizer)
    assert len(tokenizer(".\n\n").input_ids) == 1
    stats = engine.compress([".", "."], "What?").stats
    assert (stats.document_tokens, stats.kept_tokens, stats.compression_ratio) == (3, 3, 0)
    assert [excerpt.text for excerpt in engine.extract([".", "."], "What?")] == [".", "."]


def test_documents_that_fit_are_extracted_whole_without_reading_them(engine):
    engine.backbone.model.register_forward_pre_hook(lambda *_: pytest.fail("nothing is read"))
    first, second = engine.extract(DOCUMENTS, "What?", target_size=5000)
    assert (first.text, first.start) == (DOCUMENTS[0].text.strip(), 2)
    assert (second.text, second.end) == (DOCUMENTS[1].text.strip(), len(DOCUMENTS[1].text) - 2)


def test_the_papers_method_has_no_passages(engine):
    assert engine.compress(DOCUMENTS, "What?", target_size=50, method="finch").excerpts == ()
    with pytest.raises(ConfigurationError, match="'finch' keeps single tokens, not passages"):
        engine.extract(DOCUMENTS, "What?", target_size=50, method="finch")


def test_extraction_goes_beyond_the_window_and_reports_progress(tokenizer):
    """The text is for another model, so only a chunk must fit this one's window."""
    engine = FinchEngine(make_model(max_position_embeddings=128), tokenizer)
    seen = []
    excerpts = engine.extract(DOCUMENTS, "?", target_size=300, progress=seen.append)
    assert sum(len(excerpt.text) for excerpt in excerpts) > 250
    assert seen[-1].tokens == seen[-1].total_tokens
    assert len(seen) > 5
    with pytest.raises(ContextTooLongError, match="Shorten the question"):
        engine.extract(DOCUMENTS, "Why? " * 30)


def test_bad_input_is_refused_before_any_work(engine):
    with pytest.raises(InvalidInputError, match="no document"):
        engine.extract([], "What?")
    with pytest.raises(InvalidInputError, match="question is empty"):
        engine.extract(DOCUMENTS, " ")
    with pytest.raises(ConfigurationError, match="did you mean 'target_size'"):
        engine.extract(DOCUMENTS, "What?", target_sise=5)
