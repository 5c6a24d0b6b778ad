"""The BM25 index against rank_bm25, and the words it counts."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rank_bm25 import BM25Okapi

from finch_integrations.bm25 import BM25Index
from finch_integrations.retrieval.ranking import best_rows
from finch_integrations.words import words

TEXTS = st.lists(
    st.lists(st.sampled_from(["apple", "boat", "code", "door", "elk"]), max_size=8).map(" ".join),
    min_size=1,
    max_size=8,
)


class LuceneBM25(BM25Okapi):
    """rank_bm25 with Lucene's inverse document frequency, which is never negative."""

    def _calc_idf(self, nd):
        for word, count in nd.items():
            self.idf[word] = math.log(1 + (self.corpus_size - count + 0.5) / (count + 0.5))


def oracle(texts, query, k1=1.5, b=0.75):
    corpus = [words(text) for text in texts]
    if not any(corpus):
        return np.zeros(len(texts))
    scores = LuceneBM25(corpus, k1=k1, b=b).get_scores(list(dict.fromkeys(words(query))))
    return scores / (k1 + 1)  # Lucene leaves this factor out


@given(TEXTS, st.sampled_from(["door", "boat code", "code code apple", "unknown", "?!"]))
def test_scores_equal_rank_bm25(texts, query):
    index = BM25Index.build(texts)
    np.testing.assert_allclose(index.scores(query), oracle(texts, query), rtol=1e-5, atol=1e-6)


@given(TEXTS, st.sampled_from(["door", "boat code", "code code apple", "door unknown", "?!"]))
def test_shares_are_counted_one_by_one(texts, query):
    held = [set(words(text)) for text in texts]
    weights = {}
    for word in set(words(query)):
        n = sum(word in text for text in held)
        weights[word] = math.log(1 + (len(texts) - n + 0.5) / (n + 0.5))
    total = sum(weights.values()) or 1
    expected = [sum(weights[word] for word in weights if word in text) / total for text in held]
    np.testing.assert_allclose(BM25Index.build(texts).query_coverage(query), expected, atol=1e-12)


def test_a_text_with_all_words_of_the_query_has_the_whole_share():
    shares = BM25Index.build(["a door", "the code of the door", "boat"]).query_coverage(
        "Door codes?"
    )
    assert shares[1] == pytest.approx(1)
    assert 0 < shares[0] < 0.5, "the rarer word weighs more"
    assert shares[2] == 0


def test_k1_and_b_are_used():
    texts = ["door door door", "door", "boat " * 20 + "door"]
    index = BM25Index.build(texts, k1=0.9, b=0.4)
    np.testing.assert_allclose(index.scores("door"), oracle(texts, "door", 0.9, 0.4), rtol=1e-5)
    assert not np.allclose(index.scores("door"), BM25Index.build(texts).scores("door"))


@pytest.mark.parametrize("texts", [["the door", "", "a boat"], ["", "?"], []])
def test_saved_and_loaded_it_scores_the_same(tmp_path, texts):
    index = BM25Index.build(texts)
    index.save(tmp_path / "bm25")
    loaded = BM25Index.load(tmp_path / "bm25")
    assert len(loaded) == len(index) == len(texts)
    for query in ("door", "boat", "…"):
        np.testing.assert_array_equal(loaded.scores(query), index.scores(query))
        np.testing.assert_array_equal(loaded.query_coverage(query), index.query_coverage(query))


def test_a_loaded_index_stays_on_disk(tmp_path):
    BM25Index.build(["the door", "a boat"]).save(tmp_path / "bm25")
    loaded = BM25Index.load(tmp_path / "bm25")
    assert all(isinstance(loaded._index.scores[name], np.memmap) for name in ("data", "indices"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The door-code: 4711!", ["the", "door", "code", "4711"]),
        ("Boats, cities, 1990s", ["boat", "city", "1990"]),
        ("bus glass axis gas", ["bus", "glass", "axis", "gas"]),
        ("Straße snake_case ﬁne", ["strasse", "snake", "case", "fine"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("ключ от двери", ["ключ", "от", "двери"]),
        ("門の鍵", ["門", "の", "鍵", "門の", "の鍵"]),
        ("Cafe\u0301", ["café"]),
        ("?! …", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected


@given(st.text(alphabet=st.characters(max_codepoint=127), max_size=60))
def test_words_do_not_depend_on_what_else_is_in_the_text(text):
    for other in ("é", "店"):
        assert words(text) == words(f"{text} {other}")[:-1]


@given(TEXTS, st.sampled_from(["door", "boat code", "unknown", "?!"]), st.data())
def test_texts_split_once_are_indexed_as_if_joined(texts, query, data):
    ends = st.integers(0, len(texts) - 1).flatmap(
        lambda first: st.tuples(st.just(first), st.integers(first + 1, len(texts)))
    )
    groups = data.draw(st.lists(st.lists(ends, min_size=1, max_size=4), min_size=1, max_size=2))
    for index, joined in zip(BM25Index.build_many(texts, groups), groups, strict=True):
        alone = BM25Index.build([" ".join(texts[first:end]) for first, end in joined])
        assert index.scores(query) == pytest.approx(alone.scores(query))
        assert index.query_coverage(query) == pytest.approx(alone.query_coverage(query))


@given(
    st.lists(st.sampled_from([-np.inf, -1.0, 0.0, 0.5, 0.5, 2.0]), max_size=12),
    st.integers(1, 14),
    st.data(),
)
def test_best_rows_are_those_of_a_full_sort(scores, k, data):
    mask = data.draw(
        st.none() | st.lists(st.booleans(), min_size=len(scores), max_size=len(scores))
    )
    rows = [
        row for row, score in enumerate(scores) if score > -np.inf and (mask is None or mask[row])
    ]
    expected = sorted(rows, key=lambda row: (-scores[row], row))[:k]
    array = None if mask is None else np.array(mask, dtype=bool)
    assert best_rows(np.array(scores, dtype=np.float32), k, array) == expected


@pytest.mark.parametrize("first", ["", "import jax.lax; "])
def test_jax_is_left_alone(tmp_path, first):
    """bm25s runs JAX where it finds it, and that reserves most of a GPU's memory."""
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("")
    (tmp_path / "jax" / "lax.py").write_text("def top_k(*_): print('JAX ran')")
    script = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
{first}
from finch_integrations.bm25 import BM25Index
print(BM25Index.build(["the door", "a boat"]).scores("door").argmax())
import jax.lax
print(jax.lax.top_k.__module__)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["0", "jax.lax"]


def test_threads_that_need_bm25s_at_once_all_get_it_whole(tmp_path):
    (tmp_path / "jax").mkdir()
    (tmp_path / "jax" / "__init__.py").write_text("")
    script = f"""
import sys, threading, time
sys.path.insert(0, {str(tmp_path)!r})
from finch_integrations import bm25
from finch_integrations.bm25 import BM25Index

def slowly(name, load=bm25.import_module):
    time.sleep(0.1)
    return load(name)

def search(seconds):
    time.sleep(seconds)
    found.append(BM25Index.build(["the door", "a boat"]).scores("door").argmax())

found = []
bm25.import_module = slowly  # so that others surely come while JAX is hidden
# The first ones begin together, the others while these import.
threads = [threading.Thread(target=search, args=(s,)) for s in (0, 0, 0, 0.02, 0.04, 0.08, 0.12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
import jax
print(*found)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.stdout.split(), run.stderr) == (["0"] * 7, "")
