"""Embedding models and cross-encoders of every make."""

import sys

import numpy as np
import pytest

from finch_integrations import (
    ConfigurationError,
    InvalidInputError,
    MissingExtraError,
    ModelLoadError,
)
from finch_integrations.retrieval import HybridRetriever, SentenceTransformerEncoder
from finch_integrations.retrieval.dense import DenseIndex
from finch_integrations.retrieval.encoders import as_encoder
from tests.encoders import HashEncoder, save_bert

TEXTS = ["The door code is 4711.", "The boat leaks.", "Food is in the store."]


class LangChainLike:
    model_name = "tiny"

    def embed_documents(self, texts):
        return HashEncoder().encode_documents(texts).tolist()

    def embed_query(self, text):
        return HashEncoder().encode_query(text).tolist()


class LlamaIndexLike:
    def get_text_embedding_batch(self, texts):
        return HashEncoder().encode_documents(texts).tolist()

    def get_query_embedding(self, text):
        return HashEncoder().encode_query(text).tolist()


class Nameless:
    """Has the two methods that are asked for, and no more."""

    def encode_documents(self, texts):
        return HashEncoder().encode_documents(texts)

    def encode_query(self, query):
        return HashEncoder().encode_query(query)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return save_bert(tmp_path_factory.mktemp("bert"))


@pytest.mark.parametrize("make", [HashEncoder, LangChainLike, LlamaIndexLike, Nameless])
def test_embedding_models_of_every_make_give_the_same(make):
    search = HybridRetriever.from_documents(TEXTS, encoder=make())
    reference = HybridRetriever.from_documents(TEXTS, encoder=HashEncoder())
    assert search.retrieve("door code") == reference.retrieve("door code")


def test_names_tell_encoders_apart():
    assert as_encoder(LangChainLike()).name == "LangChainLike tiny"
    assert as_encoder(LlamaIndexLike()).name == "LlamaIndexLike"
    assert as_encoder("embedded").name == "embedded"
    assert as_encoder(Nameless()).name == "Nameless"
    assert as_encoder(HashEncoder()).name == "hash-64"


def test_sentence_transformers_by_folder_and_ready_made_give_the_same(bert):
    from sentence_transformers import SentenceTransformer

    ready = SentenceTransformer(bert, device="cpu")
    query = "door code"
    by_name = HybridRetriever.from_documents(TEXTS, encoder=bert).retrieve(query)
    assert by_name == HybridRetriever.from_documents(TEXTS, encoder=ready).retrieve(query)
    vectors = ready.encode([query, *TEXTS], normalize_embeddings=True)
    cosines = {f"doc-{n + 1}#1": float(vectors[0] @ vectors[n + 1]) for n in range(3)}
    assert {r.id: r.metadata["dense_score"] for r in by_name} == pytest.approx(cosines, abs=2e-3)


def test_a_model_is_loaded_when_it_is_first_used(bert):
    encoder = SentenceTransformerEncoder(bert, device="cpu")
    assert encoder._model is None
    assert encoder.encode_query("door").shape == (16,)
    model = encoder._model
    assert encoder.encode_documents(["door", "boat"]).shape == (2, 16)
    assert encoder._model is model


def test_a_cross_encoder_by_folder_reranks(tmp_path):
    from sentence_transformers import CrossEncoder

    path = save_bert(tmp_path, reranker=True)
    results = HybridRetriever.from_documents(TEXTS, reranker=path).retrieve("the door")
    expected = CrossEncoder(path).predict([("the door", result.text) for result in results])
    scores = [result.metadata["score"] for result in results]
    assert scores == pytest.approx(expected.tolist(), abs=1e-5)
    assert scores == sorted(scores, reverse=True)
    assert len(scores) > 1


def test_models_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(ModelLoadError, match="embedding model .*nowhere.* cannot be loaded"):
        SentenceTransformerEncoder(str(tmp_path / "nowhere")).encode_query("x")
    search = HybridRetriever.from_documents(TEXTS, reranker=str(tmp_path / "nowhere"))
    with pytest.raises(ModelLoadError, match="cross-encoder .*nowhere.* cannot be loaded"):
        search.retrieve("door")


def test_a_hub_that_cannot_be_reached_is_noticed_at_once(monkeypatch):
    """Without asking first, the library tries for most of a minute: it must not be let to try."""
    import sentence_transformers

    asked = []
    for name in ("SentenceTransformer", "CrossEncoder"):
        real = getattr(sentence_transformers, name)

        def load(*args, real=real, **options):
            asked.append(options["local_files_only"])
            return real(*args, **options)

        monkeypatch.setattr(sentence_transformers, name, load)
    with pytest.raises(ModelLoadError, match="The hub was not asked: it cannot be reached"):
        SentenceTransformerEncoder("nobody/has-this-model").encode_query("x")
    search = HybridRetriever.from_documents(TEXTS, reranker="nobody/has-this-model")
    with pytest.raises(ModelLoadError, match="The hub was not asked: it cannot be reached"):
        search.retrieve("door")
    assert asked == [True, True]


def test_without_the_extra_the_error_says_what_to_install(bert, monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"finch-integrations\[retrieval\]"):
        SentenceTransformerEncoder(bert).encode_query("x")
    with pytest.raises(MissingExtraError, match=r"finch-integrations\[retrieval\]"):
        HybridRetriever.from_documents(TEXTS, reranker=bert).retrieve("door")


def test_other_objects_are_refused():
    with pytest.raises(ConfigurationError, match="got int"):
        as_encoder(7)


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.zeros((2, 4)), r"shape \(2, 4\) for 3 texts"),
        (np.zeros(3), r"shape \(3,\)"),
        (np.full((3, 4), np.nan), "not finite"),
    ],
)
def test_wrong_vectors_are_refused(vectors, message):
    class Wrong(HashEncoder):
        def encode_documents(self, texts):
            return vectors

    with pytest.raises(ModelLoadError, match=message):
        HybridRetriever.from_documents(TEXTS, encoder=Wrong())


def test_another_encoder_than_the_vectors_was_made_with_is_noticed():
    built = DenseIndex.build(TEXTS, HashEncoder())
    for other in (HashEncoder(dimension=32), Reversed()):
        index = DenseIndex(built.vectors, other, built.probe)
        with pytest.raises(InvalidInputError, match="other vectors than the ones in this index"):
            index.scores("door")


class Reversed(HashEncoder):
    def encode_query(self, query):
        return super().encode_query(query)[::-1]
