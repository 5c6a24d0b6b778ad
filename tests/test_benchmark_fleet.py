"""What is computed of many machines is what happens in the simulation."""

import json
from pathlib import Path

import pytest

from benchmarks.fleet import Load, Ring, computed_hit_share, moved_share, simulate

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("by_hash", [False, True])
@pytest.mark.parametrize("kept_sets", [5, 20])
@pytest.mark.parametrize("skew", [0.0, 1.0])
def test_the_formula_predicts_how_often_what_is_needed_is_kept(by_hash, kept_sets, skew):
    load = Load(machines=4, sets=200, skew=skew, kept_sets=kept_sets)
    simulated = simulate(load, by_hash=by_hash, questions=20_000, seed=1)
    assert computed_hit_share(load, by_hash=by_hash) == pytest.approx(
        simulated["hit_share"], abs=0.05
    )


def test_one_machine_that_keeps_nothing_reads_everything():
    load = Load(machines=1, sets=50, kept_sets=1, skew=0.0, tokens=8000, speed=1000.0, used=0.01)
    simulated = simulate(load, by_hash=True, questions=4000, seed=1)
    assert simulated["hit_share"] == pytest.approx(1 / 50, abs=0.01)
    assert simulated["seconds_per_question"] == pytest.approx(0.25 + 3 * 49 / 50, abs=0.05)
    assert simulated["median_wait"] == 0


def test_a_lost_machine_moves_its_own_sets_only():
    before, after = Ring([0, 1, 2, 3]), Ring([0, 1, 3])
    names = [f"set-{number}" for number in range(2000)]
    for name in names:
        if before.find(name) != 2:
            assert after.find(name) == before.find(name)
    assert moved_share(4, 2000) == pytest.approx(1 / 4, abs=0.08)


def test_the_documentation_has_the_committed_results():
    result = json.loads((ROOT / "benchmarks/results/fleet.json").read_text("utf-8"))
    page = (ROOT / "docs/scale.md").read_text("utf-8")
    for row in result["rows"]:
        numbers = [
            f"{row[kind][name]:.{digits}f}"
            for name, digits in (
                ("hit_share", 3),
                ("seconds_per_question", 3),
                ("questions_per_second", 1),
            )
            for kind in ("computed", "simulated")
        ]
        assert f"| {' | '.join(numbers)} |" in page
