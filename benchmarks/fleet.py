"""How many questions a number of machines answers: computed, and simulated.

    python -m benchmarks.fleet

Questions come at random over document sets, some of which are asked about much more often than
others. A machine that has read a set already reads only the question: so it matters which machine a
question goes to. Compared are any free machine, and the one that a consistent hash of the documents
names. The times of one question are an assumption, given as options; the defaults are of the order
of an 8B model on one H100 (docs/scale.md). No model runs here.
"""

import argparse
import bisect
import hashlib
import heapq
import json
import math
import random
import statistics
from collections import OrderedDict
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_POINTS = 64  # of each machine on the ring


@dataclass(frozen=True)
class Load:
    """What is asked, and what it takes.

    Attributes:
        machines: How many there are.
        sets: Different document sets.
        skew: Exponent of Zipf's law over them; 0: all are as frequent.
        tokens: Document tokens of a set.
        share_read: Of these, what a question has read by the model.
        speed: Tokens read per second.
        other_seconds: Of a question beside reading: its own rows, encoding, the answer's share.
        kept_sets: Sets of which a machine keeps what it read.
        used: Questions per second, as a share of what machines that keep everything could answer.
    """

    machines: int = 8
    sets: int = 400
    skew: float = 0.8
    tokens: int = 50_000
    share_read: float = 3 / 8
    speed: float = 33_000.0
    other_seconds: float = 0.25
    kept_sets: int = 30
    used: float = 0.35

    @property
    def reading_seconds(self) -> float:
        """Of a set that is not kept."""
        return self.tokens * self.share_read / self.speed

    @property
    def rate(self) -> float:
        """Questions per second."""
        return self.used * self.machines / self.other_seconds


class Ring:
    """Consistent hashing: when a machine is added or lost, only its share of the sets moves."""

    def __init__(self, machines: list[int]) -> None:
        """Place machines."""
        points = [
            (_place(f"{machine}/{point}"), machine)
            for machine in machines
            for point in range(_POINTS)
        ]
        self._points = sorted(points)

    def find(self, key: str) -> int:
        """The machine of a key."""
        at = bisect.bisect(self._points, (_place(key), -1)) % len(self._points)
        return self._points[at][1]


def _place(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])


def computed_hit_share(load: Load, *, by_hash: bool) -> float:
    """How often what is needed is kept: Che's approximation of a least-recently-used store."""
    shares = _weights(load)
    # By hash the machines keep different sets; otherwise each sees all of them.
    kept = load.kept_sets * (load.machines if by_hash else 1)
    if kept >= len(shares):
        return 1.0
    low, high = 0.0, 1e9
    for _ in range(200):  # the time for which a set stays
        middle = (low + high) / 2
        held = sum(1 - math.exp(-share * middle) for share in shares)
        low, high = (middle, high) if held < kept else (low, middle)
    return sum(share * (1 - math.exp(-share * low)) for share in shares)


def simulate(load: Load, *, by_hash: bool, questions: int, seed: int) -> dict[str, float]:
    """Let questions come and be answered, each machine one after the other."""
    dice = random.Random(seed)
    ring = Ring(list(range(load.machines)))
    names = [f"set-{number}" for number in range(load.sets)]
    homes = [ring.find(name) for name in names]
    stores: list[OrderedDict[int, None]] = [OrderedDict() for _ in range(load.machines)]
    free_at = [0.0] * load.machines
    any_free = [(0.0, machine) for machine in range(load.machines)]
    chosen = dice.choices(range(load.sets), weights=_weights(load), k=questions)
    now, hits, busy = 0.0, 0, 0.0
    waits: list[float] = []
    for number, one in enumerate(chosen):
        now += dice.expovariate(load.rate)
        machine = homes[one] if by_hash else heapq.heappop(any_free)[1]
        store = stores[machine]
        kept = one in store
        store[one] = None
        store.move_to_end(one)
        if len(store) > load.kept_sets:
            store.popitem(last=False)
        seconds = load.other_seconds + (0 if kept else load.reading_seconds)
        start = max(now, free_at[machine])
        free_at[machine] = start + seconds
        if not by_hash:
            heapq.heappush(any_free, (free_at[machine], machine))
        if number >= questions // 4:  # the stores are full by then
            hits += kept
            busy += seconds
            waits.append(start - now)
    counted = len(waits)
    return {
        "hit_share": hits / counted,
        "seconds_per_question": busy / counted,
        "questions_per_second": load.machines * counted / busy,
        "median_wait": statistics.median(waits),
        "wait_of_95": statistics.quantiles(waits, n=20)[-1],
    }


def _weights(load: Load) -> list[float]:
    weights = [1 / (number + 1) ** load.skew for number in range(load.sets)]
    total = sum(weights)
    return [weight / total for weight in weights]


def moved_share(machines: int, sets: int) -> float:
    """Sets that change their machine when one of them is lost."""
    before, after = Ring(list(range(machines))), Ring(list(range(machines - 1)))
    names = [f"set-{number}" for number in range(sets)]
    return sum(before.find(name) != after.find(name) for name in names) / sets


def main() -> None:
    """Compute, simulate, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in asdict(Load()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    parser.add_argument("--questions", type=int, default=40_000)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/fleet.json")
    options = vars(parser.parse_args())
    questions, out = options.pop("questions"), options.pop("out")
    load = Load(**options)
    rows: list[dict[str, Any]] = []
    for by_hash in (False, True):
        share = computed_hit_share(load, by_hash=by_hash)
        seconds = load.other_seconds + (1 - share) * load.reading_seconds
        computed = {
            "hit_share": share,
            "seconds_per_question": seconds,
            "questions_per_second": load.machines / seconds,
        }
        simulated = simulate(load, by_hash=by_hash, questions=questions, seed=0)
        rows.append(
            {
                "routing": "by documents" if by_hash else "any free machine",
                "computed": {name: round(value, 3) for name, value in computed.items()},
                "simulated": {name: round(value, 3) for name, value in simulated.items()},
            }
        )
        print(json.dumps(rows[-1]))
    result = {
        "date": date.today().isoformat(),
        "load": asdict(load),
        "questions": questions,
        "rows": rows,
        "sets_that_move_when_a_machine_is_lost": round(moved_share(load.machines, load.sets), 3),
    }
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
