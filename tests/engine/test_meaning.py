"""With an encoder, passages are compared with the question by meaning, too."""

import numpy as np
import pytest
import torch

from finch_integrations import ConfigurationError, FinchEngine
from finch_integrations.engine.vectors import Vectors
from tests.encoders import HashEncoder
from tests.engine.test_passages import DOCUMENTS, QUESTION, assert_equals_reference
from tests.tiny import make_model


@pytest.mark.parametrize("read_size", [150, 300, 10_000])
def test_words_meaning_and_likelihood_equal_the_reference(read_size):
    sizes = {"target": 100, "chunk_length": 256, "read_size": read_size}
    encoder = HashEncoder(dimension=7)
    assert_equals_reference("likelihood", make_model(), encoder=encoder, **sizes)


class Synonyms:
    """Knows that a lamp and a lantern are alike, and nothing else."""

    name = "synonyms"

    def encode_documents(self, texts):
        return np.array([self.encode_query(text) for text in texts])

    def encode_query(self, query):
        return np.array([1.0, 9.0 if "lamp" in query or "lantern" in query else 0.0])


def test_a_passage_that_shares_no_word_with_the_question_is_found(tokenizer):
    lines = [f"Mast number {n} has a red rope and a blue flag on its top. " for n in range(30)]
    lines[17] = "A lantern hangs beside cabin seven, behind green glass. "
    documents, question = ["\n\n".join(lines)], "Where would one look for lamps?"
    with FinchEngine(make_model(), tokenizer, encoder=Synonyms()) as engine:
        kept = engine.extract(documents, question, target_size=200, read_size=200)
        assert any("lantern" in excerpt.text for excerpt in kept)
    with FinchEngine(make_model(), tokenizer) as engine:
        kept = engine.extract(documents, question, target_size=200, read_size=200)
        assert not any("lantern" in excerpt.text for excerpt in kept)


def test_a_scorers_encoder_counts_and_an_engines_own_before_it(tokenizer):
    small = FinchEngine(make_model(), tokenizer, encoder=HashEncoder(name="small"))
    large = FinchEngine(make_model(), tokenizer, scorer=small)
    large.select(DOCUMENTS, QUESTION, target_size=100)
    assert small.encoder.encoded
    small.encoder.encoded.clear()
    own = FinchEngine(make_model(), tokenizer, scorer=small, encoder=HashEncoder())
    own.select(DOCUMENTS, QUESTION, target_size=100)
    assert own.encoder.encoded
    assert not small.encoder.encoded


def test_texts_are_encoded_once_and_read_ahead(tokenizer):
    with FinchEngine(make_model(), tokenizer, encoder=HashEncoder()) as engine:
        engine.read_ahead(DOCUMENTS, target_size=100)
        count = len(engine.encoder.encoded)
        assert count > 5
        engine.select(DOCUMENTS, QUESTION, target_size=100)
        engine.select(DOCUMENTS, "Who rows alone?", target_size=100)
        assert len(engine.encoder.encoded) == count


def test_no_more_vectors_are_kept_than_fit():
    encoder = HashEncoder(dimension=8)
    texts = ["one", "two", "three", "four", "one"]
    expected = torch.as_tensor(encoder.encode_documents(texts), dtype=torch.float32)
    for fit, again in ((3, 1), (4, 0), (0, 4)):
        vectors = Vectors(encoder, max_bytes=fit * 8 * 4)
        assert torch.equal(vectors.of_documents(texts), expected)
        encoder.encoded.clear()
        assert torch.equal(vectors.of_documents(texts), expected)
        assert len(encoder.encoded) == again


@pytest.mark.parametrize("encoder", ["embedded", 5, object(), lambda texts: texts])
def test_what_is_no_encoder_is_refused_when_the_engine_is_made(tokenizer, encoder):
    with pytest.raises(ConfigurationError, match="must have name, encode_documents, encode_query"):
        FinchEngine(make_model(), tokenizer, encoder=encoder)


class Broken:
    name = "broken"

    def __init__(self, documents, query=(1.0, 2.0)):
        self._documents, self._query = documents, query

    def encode_documents(self, texts):
        return self._documents(len(texts))

    def encode_query(self, query):
        return self._query


@pytest.mark.parametrize(
    ("documents", "query", "message"),
    [
        (lambda n: np.ones((n + 1, 2)), (1.0, 2.0), "a vector for each text"),
        (lambda n: np.ones(n), (1.0, 2.0), "a vector for each text"),
        (lambda n: [np.ones(1 + i % 2) for i in range(n)], (1.0,), "a vector for each text"),
        (lambda n: np.full((n, 2), np.nan), (1.0, 2.0), "not finite"),
        (lambda n: None, (1.0, 2.0), "returned NoneType for"),
        (lambda n: ["text"] * n, (1.0, 2.0), "not .* vectors of numbers"),
        (lambda n: np.ones((n, 2)), (1.0, 2.0, 3.0), "2 numbers for documents and of 3 for a"),
        (lambda n: np.ones((n, 2)), (1.0, float("inf")), "not finite"),
        (lambda n: np.ones((n, 2)), None, "vectors of numbers"),
    ],
)
def test_what_is_no_vector_for_each_text_is_refused(tokenizer, documents, query, message):
    with (
        FinchEngine(make_model(), tokenizer, encoder=Broken(documents, query)) as engine,
        pytest.raises(ConfigurationError, match=message),
    ):
        engine.select(DOCUMENTS, QUESTION, target_size=100)
