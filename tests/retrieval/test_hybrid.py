"""HybridRetriever: both searchers, fusion, filter, threshold, reranking, budget, parents."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations import ConfigurationError, Document, InvalidInputError, ModelLoadError
from finch_integrations.bm25 import BM25Index
from finch_integrations.retrieval import (
    HybridRetriever,
    RetrievalConfig,
    reciprocal_rank_fusion,
)
from finch_integrations.retrieval.dense import DenseIndex
from tests.encoders import HashEncoder

DOCUMENTS = [
    Document("# Doors\nThe door code is 4711.", id="doors", title="Doors", metadata={"year": 2024}),
    Document("# Boats\nThe red boat leaks.\n\n# Ice\nNever walk alone.", id="boats"),
    Document("Food is in the store. The store has a door.", id="food", metadata={"year": 2023}),
]


def retriever(documents=DOCUMENTS, **options):
    return HybridRetriever.from_documents(documents, **{"encoder": HashEncoder(), **options})


def ids(results):
    return [result.id for result in results]


def test_results_are_chunks_with_place_section_and_scores():
    boat, *_ = retriever(chunk_size=40).retrieve("red boat")
    assert boat.text == "# Boats\nThe red boat leaks."
    assert boat.id == "boats#1"
    place = DOCUMENTS[1].text[boat.metadata["start_index"] : boat.metadata["end_index"]]
    assert place == boat.text
    assert boat.metadata["document_id"] == "boats"
    assert boat.metadata["section"] == "Boats"
    assert boat.metadata["score"] == boat.metadata["fused_score"] > 0
    assert boat.metadata["bm25_score"] > 0
    assert 0 < boat.metadata["dense_score"] <= 1


def test_scores_are_those_of_the_legs_over_title_heading_and_text():
    texts = [
        "Doors\n# Doors\nThe door code is 4711.",
        "# Boats\nThe red boat leaks.\n\n# Ice\nNever walk alone.",
        "Food is in the store. The store has a door.",
    ]
    bm25 = BM25Index.build(texts).scores("door code")
    query = HashEncoder().encode_query("door code")
    vectors = [HashEncoder().encode_query(text) for text in texts]
    for result in retriever().retrieve("door code"):
        number = ["doors", "boats", "food"].index(result.metadata["document_id"])
        cosine = query @ vectors[number] / math.hypot(*query) / math.hypot(*vectors[number])
        assert result.metadata["dense_score"] == pytest.approx(cosine, abs=1e-3)
        if bm25[number]:
            assert result.metadata["bm25_score"] == pytest.approx(bm25[number])
        else:
            assert "bm25_score" not in result.metadata


def test_the_heading_above_helps_to_find_a_chunk():
    text = "# Boats\n" + "It is painted every year. " * 3 + "\n\n" + "Nobody swims. " * 3
    results = retriever([Document(text, id="a"), "Boats"], chunk_size=60).retrieve(
        "boats", dense_weight=0
    )
    assert ids(results)[0] == "doc-2#1"
    assert {"a#1", "a#2"} <= set(ids(results))


def test_the_ranking_by_ranks_is_the_fusion_of_both_legs():
    both = retriever()
    query = "the door of the store"
    searchers = [both.retrieve(query, bm25_weight=0), both.retrieve(query, dense_weight=0)]
    for weights in ((1, 1), (3, 1), (1, 3)):
        options = {"dense_weight": weights[0], "bm25_weight": weights[1]}
        fused = reciprocal_rank_fusion(
            [ids(searcher) for searcher in searchers], weights=weights, k=7
        )
        results = both.retrieve(query, **options, fusion="rrf", rrf_k=7)
        assert [(r.id, r.metadata["score"]) for r in results] == fused


WORDS = ["door", "boat", "store", "code", "elk"]
TEXTS = st.lists(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join), min_size=1, max_size=8
)


@given(TEXTS, st.lists(st.sampled_from([*WORDS, "unknown"]), min_size=1, max_size=4))
def test_a_score_is_the_cosine_plus_the_share_of_the_query_that_is_held(texts, query):
    weights = {
        word: math.log1p((len(texts) - n + 0.5) / (n + 0.5))
        for word in dict.fromkeys(query)
        for n in [sum(word in text.split() for text in texts)]
    }
    found = HybridRetriever.from_documents(texts, encoder=HashEncoder()).retrieve(
        " ".join(query), dense_weight=0.5, bm25_weight=3, fetch_k=2, top_k=2
    )
    scores = [result.metadata["score"] for result in found]
    assert scores == sorted(scores, reverse=True)
    encode = HashEncoder().encode_query
    for result in found:
        one, other = encode(" ".join(query)), encode(result.text)
        cosine = one @ other / math.hypot(*one) / math.hypot(*other)
        held = sum(weight for word, weight in weights.items() if word in result.text.split())
        expected = 0.5 * cosine + 3 * held / sum(weights.values())
        assert result.metadata["score"] == pytest.approx(expected, abs=0.005)


def test_a_score_does_not_depend_on_how_many_candidates_there_are():
    many = [Document(f"The door {'code ' * n}is {n}.", id=f"n{n}") for n in range(9)]
    search = retriever(many)
    scores = {hit.id: hit.metadata["score"] for hit in search.retrieve("door code 7")}
    assert len(scores) == 9
    for k in (1, 3):
        for hit in search.retrieve("door code 7", fetch_k=k, top_k=k):
            assert hit.metadata["score"] == scores[hit.id]


def test_how_often_a_word_stands_in_a_chunk_counts_only_in_a_search_by_words():
    one_each = Document("a door and its code", id="both")
    search = HybridRetriever.from_documents(
        [Document("door " * 6, id="door"), one_each, "boats"], encoder=ConstantEncoder()
    )
    assert ids(search.retrieve("the door code"))[0] == "both#1"
    assert ids(search.retrieve("door", dense_weight=0)) == ["door#1", "both#1"]
    assert ids(search.retrieve("door"))[:2] == ["both#1", "door#1"], "equal, so by id"


class ConstantEncoder(HashEncoder):
    """Finds all texts alike."""

    def encode_query(self, query):
        return np.ones(self.dimension)


def test_either_leg_works_alone_and_gives_its_own_score():
    words_only = HybridRetriever.from_documents(DOCUMENTS)
    (first, second) = words_only.retrieve("door code")
    assert (first.id, second.id) == ("doors#1", "food#1")
    assert first.metadata["score"] == first.metadata["bm25_score"]
    assert "dense_score" not in first.metadata
    dense = retriever().retrieve("door code", bm25_weight=0)
    assert dense[0].metadata["score"] == dense[0].metadata["dense_score"]
    assert "bm25_score" not in dense[0].metadata
    with pytest.raises(ConfigurationError, match="only the searcher bm25, whose weight is 0"):
        words_only.retrieve("door", bm25_weight=0)


@pytest.mark.parametrize(
    ("filter", "expected"),
    [
        ({"year": 2024}, {"doors"}),
        ({"year": [2023, 2024]}, {"doors", "food"}),
        ({"year": 1999}, set()),
        ({"color": None}, set()),
        (lambda metadata: "year" not in metadata, {"boats"}),
        (None, {"doors", "boats", "food"}),
    ],
)
def test_only_documents_that_satisfy_the_filter_come_back(filter, expected):
    results = retriever().retrieve("the door of the boat", filter=filter)
    assert {result.metadata["document_id"] for result in results} == expected


def test_a_filter_does_not_use_up_the_candidates():
    many = [Document("door " * 5, id=f"n{n}") for n in range(20)]
    many.append(Document("a door", id="last", metadata={"wanted": True}))
    results = retriever(many).retrieve("door", top_k=1, fetch_k=1, filter={"wanted": True})
    assert ids(results) == ["last#1"]


def test_results_below_the_threshold_are_left_out():
    scores = [r.metadata["score"] for r in retriever().retrieve("door code", bm25_weight=0)]
    assert len(scores) == 3
    kept = retriever().retrieve("door code", bm25_weight=0, score_threshold=scores[1])
    assert [result.metadata["score"] for result in kept] == scores[:2]


def test_a_reranker_orders_the_candidates_and_its_score_counts():
    seen = []

    def shortest_first(pairs):
        seen.extend(pairs)
        return [-float(len(text)) for _, text in pairs]

    results = retriever(reranker=shortest_first).retrieve("door", top_k=2)
    assert {text for _, text in seen} == {document.text for document in DOCUMENTS}
    assert {query for query, _ in seen} == {"door"}
    assert ids(results) == ["doors#1", "food#1"]
    assert results[0].metadata["score"] == results[0].metadata["rerank_score"] == -30
    assert results[0].metadata["fused_score"] > 0


def test_a_reranker_of_another_make_is_taken():
    class CrossEncoderLike:
        def score(self, pairs):
            return np.arange(len(pairs))

    default = retriever().retrieve("door")
    assert ids(retriever(reranker=CrossEncoderLike()).retrieve("door")) == ids(default)[::-1]


def test_a_reranker_that_returns_nonsense_is_an_error():
    with pytest.raises(ModelLoadError, match="one finite score per pair"):
        retriever(reranker=lambda pairs: [1.0]).retrieve("door")
    with pytest.raises(ModelLoadError, match="one finite score per pair"):
        retriever(reranker=lambda pairs: [math.nan] * len(pairs)).retrieve("door")
    with pytest.raises(ConfigurationError, match="got int"):
        retriever(reranker=7)


def test_parents_are_whole_documents_in_the_collections_order():
    results = retriever(chunk_size=30).retrieve("store boat alone", return_parents=True)
    assert ids(results) == ["doors", "boats", "food"]
    assert [result.text for result in results] == [document.text for document in DOCUMENTS]
    assert results[0].metadata["year"] == 2024
    best = max(r.metadata["score"] for r in retriever(chunk_size=30).retrieve("store boat alone"))
    assert max(result.metadata["score"] for result in results) == best


@given(st.integers(1, 40), st.booleans())
def test_the_budget_is_kept_and_spent_on_the_best(max_document_tokens, return_parents):
    def count(text):
        return len(text.split())

    search = HybridRetriever.from_documents(DOCUMENTS, chunk_size=30, count_tokens=count)
    query = "the store boat door"
    options = {"max_document_tokens": max_document_tokens, "return_parents": return_parents}
    if all(count(hit.text) > max_document_tokens for hit in search.retrieve(query)):
        with pytest.raises(
            InvalidInputError, match=f"max_document_tokens={max_document_tokens}: the shortest"
        ):
            search.retrieve(query, **options)
        return
    results = search.retrieve(query, **options)
    assert sum(count(result.text) for result in results) <= max_document_tokens
    if not return_parents:
        left, expected = max_document_tokens, []
        for hit in search.retrieve(query):
            if count(hit.text) <= left:
                left -= count(hit.text)
                expected.append(hit.id)
        assert ids(results) == expected


def test_a_document_beyond_the_budget_is_represented_by_its_chunks():
    long = Document("The boat sails. " * 50 + "The door code is 4711. ", id="long")
    search = HybridRetriever.from_documents([long, "A door."], chunk_size=100)
    results = search.retrieve("door code", return_parents=True, max_document_tokens=60)
    assert ids(results) == ["long#9", "doc-2"]
    assert "4711" in results[0].text


def test_a_chunk_is_never_called_like_a_document(tmp_path):
    # The second chunk of `a` is found first; `a` does not fit, the other documents do.
    long = "alpha beta beta beta. " * 5 + "gamma delta gamma delta. " * 5
    documents = [
        Document(long, id="a"),
        Document("gamma one", id="a#2"),
        Document("gamma two", id="a#2#"),
    ]
    search = HybridRetriever.from_documents(documents, chunk_size=130)
    assert {"a#1", "a#2##", "a#2#1", "a#2##1"} == set(ids(search.retrieve("gamma alpha")))
    results = search.retrieve("gamma delta", return_parents=True, max_document_tokens=40)
    assert ids(results) == ["a#2##", "a#2", "a#2#"]
    assert [result.text for result in results[1:]] == ["gamma one", "gamma two"]
    search.save(tmp_path / "index")
    loaded = HybridRetriever.load(tmp_path / "index")
    assert loaded.retrieve("gamma delta", return_parents=True, max_document_tokens=40) == results


@pytest.mark.parametrize("return_parents", [False, True])
def test_documents_that_are_chunks_already_keep_their_own_place(return_parents):
    own = {"document_id": "book", "section": "Intro", "start_index": 500, "source": "book.md"}
    text = "The door code is 4711."
    chunks = [
        Document("A door. " * 9, id="book"),  # another document than the chunks' one
        Document(text, id="c1", metadata=own),
        Document(text, id="c2", metadata={"start_index": "page 3", "end_index": None}),
    ]
    search = HybridRetriever.from_documents(chunks, chunk_size=None)
    results = search.retrieve("door code", return_parents=return_parents)
    found = {result.id: result.metadata for result in results}
    assert {name: found["c1"][name] for name in own} == own
    assert found["c1"]["end_index"] == 500 + len(text)
    assert (found["c2"]["start_index"], found["c2"]["end_index"]) == ("page 3", None)
    place = [found["book"][name] for name in ("document_id", "start_index", "end_index")]
    assert place == ["book", 0, 72]
    if return_parents:
        assert ids(results) == ["book", "c1", "c2"]


def test_nothing_found_is_an_empty_list():
    assert HybridRetriever.from_documents(DOCUMENTS).retrieve("zebra") == []
    assert HybridRetriever.from_documents(DOCUMENTS).retrieve("zebra", max_document_tokens=1) == []
    assert retriever(reranker=lambda pairs: [1.0]).retrieve("zebra", filter={"year": 1}) == []


def test_one_document_is_found():
    assert ids(retriever(["Only a door."]).retrieve("door")) == ["doc-1#1"]


def test_equal_texts_under_different_ids_are_both_kept():
    twins = [Document("The door code.", id="b"), Document("The door code.", id="a")]
    assert ids(retriever(twins).retrieve("door")) == ["a#1", "b#1"]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("門の鍵は机の上にある。", "鍵はどこ"),
        ("กุญแจอยู่บนโต๊ะ", "กุญแจ"),
        ("Ключ лежит на столе.", "КЛЮЧ"),
        ("चाबी मेज पर है।", "चाबी"),
        ("المفتاح على الطاولة", "المفتاح"),
    ],
)
def test_other_scripts_are_found_by_their_words(text, query):
    search = HybridRetriever.from_documents(["The key is on the table.", text, "雨が降る。"])
    assert search.retrieve(query)[0].text == text


def test_a_ten_megabyte_document_is_searched():
    text = "The boat sails on. " * 550_000
    text = f"{text[:6_000_000]} The door code is 4711. {text[6_000_000:]}"
    search = HybridRetriever.from_documents([text])
    result, *_ = search.retrieve("door code")
    assert "4711" in result.text
    assert len(result.text) <= 1000
    with pytest.raises(InvalidInputError, match="no result fits max_document_tokens=5"):
        search.retrieve("door code", max_document_tokens=5)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "the query is empty"),
        (" \n", "the query is empty"),
        ("?! …", "has no word"),
        ("___", "has no word"),
        (None, "must be a string, got NoneType"),
    ],
)
def test_a_query_without_words_is_refused(query, message):
    with pytest.raises(InvalidInputError, match=message):
        retriever().retrieve(query)


def test_an_empty_collection_is_refused():
    with pytest.raises(InvalidInputError, match="there is no document"):
        retriever([])
    with pytest.raises(InvalidInputError, match="two documents have the id 'a'"):
        retriever([Document("x", id="a"), Document("y", id="a")])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"top_k": 0}, "top_k must be a whole number"),
        ({"fetch_k": 0}, "fetch_k"),
        ({"bm25_weight": -1}, "bm25_weight must be 0 or more"),
        ({"bm25_weight": 0, "dense_weight": 0}, "one of bm25_weight and dense_weight"),
        ({"rrf_k": math.inf, "fusion": "rrf"}, "rrf_k"),
        ({"rrf_k": 10}, "rrf_k is an option of fusion='rrf'"),
        ({"fusion": "magic"}, "fusion must be one of scores, rrf"),
        ({"score_threshold": math.nan}, "score_threshold must be a number"),
        ({"max_document_tokens": 0}, "max_document_tokens"),
        ({"return_parents": "yes"}, "return_parents must be True or False"),
        ({"topk": 3}, "did you mean 'top_k'"),
        ({"filter": 7}, "a filter must be a mapping"),
    ],
)
def test_unusable_options_are_refused(option, message):
    with pytest.raises(ConfigurationError, match=message):
        retriever().retrieve("door", **option)


@pytest.mark.parametrize("size", [0, 2.5, True])
def test_unusable_chunk_sizes_are_refused(size):
    with pytest.raises(ConfigurationError, match="chunk_size must be a whole number"):
        retriever(chunk_size=size)


def test_defaults_come_from_the_configuration():
    search = retriever(config=RetrievalConfig(top_k=1, return_parents=True))
    assert ids(search.retrieve("door code")) == ["doors"]
    assert len(search.retrieve("door code", top_k=2)) == 2


def test_vectors_are_float16_and_of_length_one():
    index = DenseIndex.build(["a door", "a boat", "?"], HashEncoder())
    assert index.vectors.dtype == np.float16
    np.testing.assert_allclose(np.linalg.norm(index.vectors, axis=1), [1, 1, 0], atol=1e-3)


def test_dense_scores_are_the_same_in_blocks(monkeypatch):
    texts = [f"door {n}" for n in range(10)]
    index = DenseIndex.build(texts, HashEncoder())
    whole = index.scores("door 7")
    monkeypatch.setattr("finch_integrations.retrieval.dense._BLOCK", 3)
    np.testing.assert_array_equal(index.scores("door 7"), whole)


def test_importing_and_searching_needs_no_torch():
    code = (
        "import sys, finch_integrations.retrieval as r\n"
        "assert r.HybridRetriever.from_documents(['a door']).retrieve('door')\n"
        "print(sorted({'torch', 'transformers', 'sentence_transformers'} & sys.modules.keys()))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (output.stdout.strip(), output.stderr) == ("[]", "")


def store_search(query, k):
    """A store that finds the last documents first."""
    return [Document(text) for text in list(reversed(STORED))[:k]]


STORED = ["The red boat.", "A door.", "A red door."]


def test_a_store_searches_by_meaning_before_and_after_saving(tmp_path):
    search = HybridRetriever.from_documents(STORED, store=store_search, chunk_size=None)
    found = search.retrieve("red boat", bm25_weight=0)
    assert [(hit.text, hit.id) for hit in found] == [
        ("A red door.", "doc-3"),
        ("A door.", "doc-2"),
        ("The red boat.", "doc-1"),
    ]
    search.save(tmp_path)
    loaded = HybridRetriever.load(tmp_path, store=store_search)
    for options in ({}, {"bm25_weight": 0}, {"dense_weight": 0}):
        assert loaded.retrieve("red boat", **options) == search.retrieve("red boat", **options)


def test_a_store_has_chunks_of_its_own_and_no_encoder_beside_it(tmp_path):
    with pytest.raises(ConfigurationError, match="already are chunks, got chunk_size=1000"):
        HybridRetriever.from_documents(STORED, store=store_search)
    both = {"store": store_search, "encoder": HashEncoder()}
    with pytest.raises(ConfigurationError, match="Give one of them"):
        HybridRetriever.from_documents(STORED, chunk_size=None, **both)
    HybridRetriever.from_documents(STORED).save(tmp_path)
    with pytest.raises(ConfigurationError, match="Give one of them"):
        HybridRetriever.load(tmp_path, **both)
    with pytest.raises(ConfigurationError, match="not built for a vector store"):
        HybridRetriever.load(tmp_path, store=store_search)
