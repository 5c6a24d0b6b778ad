"""Fusion by ranks and by scores: their formulas and their laws."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations import ConfigurationError
from finch_integrations.retrieval import reciprocal_rank_fusion, score_fusion

IDS = st.sampled_from("abcdefgh")
RANKINGS = st.lists(st.lists(IDS, max_size=10), max_size=4)
WEIGHTED = st.lists(
    st.tuples(st.lists(IDS, max_size=10), st.sampled_from([0.0, 0.5, 1.0, 3.0])), max_size=4
)


def slow_fusion(weighted, k):
    """The definition, exactly: every id's place in every list, counted one by one."""
    scores = {}
    for ranking, weight in weighted:
        seen = []
        for key in ranking:
            if key not in seen:
                seen.append(key)
                share = Fraction(weight) / (k + len(seen))
                scores[key] = scores.get(key, Fraction(0)) + share
    return scores


def fuse(weighted, k=60):
    rankings = [ranking for ranking, _ in weighted]
    return reciprocal_rank_fusion(rankings, weights=[weight for _, weight in weighted], k=k)


def test_the_formula_on_an_example():
    fused = reciprocal_rank_fusion([["a", "b"], ["b", "c"]])
    assert fused == [("b", 1 / 62 + 1 / 61), ("a", 1 / 61), ("c", 1 / 62)]


@given(WEIGHTED, st.integers(0, 100))
def test_equals_the_definition(weighted, k):
    expected = slow_fusion(weighted, k)
    fused = fuse(weighted, k)
    assert {key for key, _ in fused} == set(expected)
    for key, score in fused:
        assert score == pytest.approx(float(expected[key]), rel=1e-12)
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)


@given(st.data(), WEIGHTED)
def test_the_order_of_the_rankings_does_not_matter(data, weighted):
    assert fuse(data.draw(st.permutations(weighted))) == fuse(weighted)


@given(st.data(), st.lists(st.lists(IDS, min_size=2, max_size=8, unique=True), min_size=1))
def test_moving_up_in_one_ranking_never_moves_down_in_the_result(data, rankings):
    number = data.draw(st.integers(0, len(rankings) - 1))
    at = data.draw(st.integers(1, len(rankings[number]) - 1))
    key = rankings[number][at]
    raised = [list(ranking) for ranking in rankings]
    raised[number][at - 1 : at + 1] = [key, rankings[number][at - 1]]
    before, after = reciprocal_rank_fusion(rankings), reciprocal_rank_fusion(raised)
    assert dict(after)[key] > dict(before)[key]
    assert [k for k, _ in after].index(key) <= [k for k, _ in before].index(key)


@given(RANKINGS)
def test_repeats_count_once_at_their_best_rank(rankings):
    once = [list(dict.fromkeys(ranking)) for ranking in rankings]
    assert reciprocal_rank_fusion(rankings) == reciprocal_rank_fusion(once)


@given(WEIGHTED)
def test_empty_rankings_change_nothing(weighted):
    assert fuse([([], 1.0), *weighted, ([], 2.0)]) == fuse(weighted)
    assert fuse([([], 1.0)]) == []


@given(st.lists(IDS, unique=True), st.randoms(use_true_random=False))
def test_ties_are_ordered_by_id(ids, random):
    rankings = [[id] for id in ids]
    random.shuffle(rankings)
    assert [key for key, _ in reciprocal_rank_fusion(rankings)] == sorted(ids)


def test_whole_numbers_are_ids_too():
    assert [key for key, _ in reciprocal_rank_fusion([[10], [9]])] == [9, 10]


def test_a_heavier_ranking_wins():
    assert reciprocal_rank_fusion([["a"], ["b"]], weights=[1, 2])[0][0] == "b"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1.0]}, "one weight per ranking, got 1 for 2"),
        ({"weights": [1.0, -1.0]}, "0 or more"),
        ({"weights": [1.0, float("nan")]}, "0 or more"),
        ({"k": -1}, "k must be 0 or more, got -1"),
    ],
)
def test_unusable_options_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        reciprocal_rank_fusion([["a"], ["b"]], **arguments)


SCORED = st.lists(
    st.tuples(
        st.dictionaries(IDS, st.integers(-10, 10), max_size=8).map(lambda d: list(d.items())),
        st.sampled_from([0.0, 0.5, 1.0, 3.0]),
    ),
    max_size=4,
)


def fuse_scores(weighted):
    return score_fusion([scores for scores, _ in weighted], weights=[w for _, w in weighted])


@given(SCORED)
def test_score_fusion_is_the_weighted_sum(weighted):
    expected = {}
    for ranking, weight in weighted:
        for key, score in ranking:
            expected[key] = expected.get(key, Fraction(0)) + Fraction(weight) * score
    fused = fuse_scores(weighted)
    assert dict(fused) == {key: float(score) for key, score in expected.items()}
    assert fused == sorted(fused, key=lambda item: (-item[1], item[0]))


FLOATS = st.lists(st.dictionaries(IDS, st.floats(-1, 1), max_size=8), max_size=4)


@given(st.data(), FLOATS)
def test_score_fusion_does_not_depend_on_any_order(data, rankings):
    fused = score_fusion([list(scores.items()) for scores in rankings])
    shuffled = [
        data.draw(st.permutations(list(scores.items())))
        for scores in data.draw(st.permutations(rankings))
    ]
    assert score_fusion([[], *shuffled]) == fused


@given(FLOATS, IDS)
def test_what_is_there_besides_does_not_change_an_ids_score(rankings, gone):
    fused = dict(score_fusion([list(scores.items()) for scores in rankings]))
    without = [[(key, s) for key, s in scores.items() if key != gone] for scores in rankings]
    assert dict(score_fusion(without)) == {k: s for k, s in fused.items() if k != gone}


@given(st.dictionaries(IDS, st.integers(-5, 5), min_size=1), st.integers(1, 5))
def test_a_higher_score_in_one_ranking_raises_the_fused_one_and_never_lowers_the_place(
    scores, more
):
    other = [(key, float(n)) for n, key in enumerate(sorted(scores))]
    key = min(scores)
    raised = {**scores, key: scores[key] + more}
    before, after = (score_fusion([list(s.items()), other]) for s in (scores, raised))
    assert dict(after)[key] == pytest.approx(dict(before)[key] + more)
    assert [id for id, _ in after].index(key) <= [id for id, _ in before].index(key)


@given(st.lists(st.tuples(IDS, st.integers(-5, 5)), max_size=10))
def test_score_fusion_counts_an_ids_first_score_alone(ranking):
    first = {}
    for key, score in ranking:
        first.setdefault(key, score)
    assert score_fusion([ranking]) == score_fusion([list(first.items())])


def test_score_fusion_orders_ties_by_id_and_takes_nothing():
    assert score_fusion([[("b", 1.0), ("a", 1.0)]]) == [("a", 1.0), ("b", 1.0)]
    assert score_fusion([[("b", 1.0)], [("a", 1.0)]]) == [("a", 1.0), ("b", 1.0)]
    assert score_fusion([[], []]) == score_fusion([]) == []
