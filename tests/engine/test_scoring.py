"""Scoring and selection as pure functions."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations.engine.scoring import (
    budget_after,
    pool_scores,
    score_tokens,
    select_tokens,
)

numbers = st.lists(st.floats(0, 1, allow_nan=False, width=32), min_size=1, max_size=40)


@given(scores=numbers, data=st.data())
def test_selection_keeps_the_highest_scores_in_document_order(scores, data):
    budget = data.draw(st.integers(0, len(scores)))
    chosen = select_tokens(torch.tensor([scores]), budget)[0].tolist()
    assert chosen == sorted(set(chosen))
    assert len(chosen) == budget
    left = [score for index, score in enumerate(scores) if index not in chosen]
    assert not left or not chosen or max(left) <= min(scores[index] for index in chosen)


def test_equal_scores_favour_earlier_tokens():
    assert select_tokens(torch.ones(1, 6), 3).tolist() == [[0, 1, 2]]


@given(
    chunks=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    schedule=st.sampled_from(["linear", "fill"]),
    data=st.data(),
)
def test_budgets_can_always_be_met_and_end_at_the_target(chunks, schedule, data):
    total = sum(chunks)
    target = data.draw(st.integers(1, total))
    held = seen = 0
    for chunk in chunks:
        seen += chunk
        budget = budget_after(seen, total=total, target=target, schedule=schedule)
        assert held <= budget <= min(target, held + chunk)
        held = budget
    assert held == target


def test_linear_budget_is_the_papers_recursion_without_rounding():
    """r = m/σ + c with σ = 1000/250 = 4, chunks of 100."""
    budgets = [
        budget_after(seen, total=1000, target=250, schedule="linear")
        for seen in range(100, 1001, 100)
    ]
    assert budgets == list(range(25, 251, 25))


def test_scores_are_summed_over_rows_and_heads_of_the_document_columns():
    weights = torch.rand(4, 3, 10)  # H=4, Q=3, N=10: 2 prefix, 5 document, 3 question columns
    layer = score_tokens(
        weights, columns=slice(2, 7), num_kv_heads=2, selection="layer", normalize=False
    )
    heads = score_tokens(
        weights, columns=slice(2, 7), num_kv_heads=2, selection="kv_head", normalize=False
    )
    torch.testing.assert_close(layer, weights[:, :, 2:7].sum(dim=(0, 1))[None])
    torch.testing.assert_close(heads[0], weights[:2, :, 2:7].sum(dim=(0, 1)))
    torch.testing.assert_close(heads[1], weights[2:, :, 2:7].sum(dim=(0, 1)))


def test_row_factor_is_the_visible_share():
    weights = torch.ones(1, 2, 10)
    scores = score_tokens(
        weights, columns=slice(0, 8), num_kv_heads=1, selection="layer", normalize=True
    )
    torch.testing.assert_close(scores, torch.full((1, 8), 9 / 10 + 10 / 10))


@given(
    values=st.lists(st.tuples(st.integers(0, 60), st.floats(0, 1)), min_size=1, max_size=30),
    kernel=st.sampled_from([1, 3, 5, 9]),
    pooling=st.sampled_from(["max", "mean"]),
)
def test_pooling_looks_at_neighbours_in_the_text_only(values, kernel, pooling):
    by_position = dict(values)
    positions = sorted(by_position)
    scores = torch.tensor([[by_position[p] for p in positions]])
    pooled = pool_scores(scores, torch.tensor([positions]), pooling=pooling, kernel=kernel)
    combine = max if pooling == "max" else lambda x: sum(x) / len(x)
    expected = [
        combine([by_position[other] for other in positions if abs(other - here) <= kernel // 2])
        for here in positions
    ]
    torch.testing.assert_close(pooled, torch.tensor([expected]))
