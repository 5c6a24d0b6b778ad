"""What is lost when no more than so many tokens are read, however long the documents are.

    python -m benchmarks.read_cap --data FOLDER --pack

The sets of documents are those of `benchmarks.long_sets`. Of every set, 3/8 of the tokens are
rated once. To read less is to read a part of that, the passages whose words match best: what is
kept then follows from the same ratings, so that nothing else differs. `nothing` is the words alone.
Whether the answer is kept is measured for several budgets, its likelihood for the largest.

A cap is chosen on the even items of every task and shown on the odd ones. FOLDER is as for
`benchmarks.quality`; a run that was interrupted continues where it stopped.
"""

import argparse
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.items import Item, load_items
from benchmarks.long_sets import BASE, TASKS, lengthen, pool_of
from benchmarks.quality import CHUNK, RESULTS, Bench, facts, read_lines
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import read_rows
from benchmarks.resumable import append_lines, make_parser, run
from finch_integrations import FinchEngine
from finch_integrations.engine.methods.copies import demote_copies, sentences_of
from finch_integrations.engine.methods.likelihood import combine, headed_segments, shortlist
from finch_integrations.engine.methods.links import raise_linked
from finch_integrations.engine.methods.passages import (
    LONGEST,
    SHORTEST,
    WordMatcher,
    choose,
    positions_of,
)
from finch_integrations.engine.passage_reader import PassageReader
from finch_integrations.engine.segments import split_segments

LENGTHS = (32, 64)  # thousands of 1,024 tokens
CAPS = (8, 6)
CHOSEN = "6k"
SHARE, BASELINE, NOTHING = 3 / 8, "3/8", "nothing"
BUDGETS = (2048, 1024, 512)
RAW, PACKED = Path(".benchmarks") / "read_cap.jsonl", RESULTS / "read_cap.json"

Row = dict[str, Any]


class Rater:
    """Rates passages after the question of one item; a passage of several sets is read once."""

    def __init__(self, engine: FinchEngine) -> None:
        self._engine = engine
        self._known: dict[tuple[int, ...], float] = {}

    def choices(self, bench: Bench, caps: Sequence[int]) -> dict[str, tuple[Any, Any, int]]:
        """What is read, and which segments are kept then.

        Returns:
            Name -> (segments, their scores, tokens read).
        """
        documents, frame = bench.inputs.tokens, bench.inputs.frame
        segments = split_segments(documents, shortest=SHORTEST, longest=LONGEST)
        matcher = WordMatcher(documents, segments)
        words, sentences = matcher.both(frame.question), sentences_of(matcher.texts)
        passages = headed_segments(documents, segments, longest=CHUNK)
        free = demote_copies(words, sentences)
        sizes = {BASELINE: int(SHARE * len(documents))}
        sizes |= {f"{cap}k": cap * 1024 for cap in caps if cap * 1024 < sizes[BASELINE]}
        likelihoods = self._rate(bench, passages, shortlist(segments, free, sizes[BASELINE]))
        found = {NOTHING: (segments, free, 0)}
        for name, size in sizes.items():
            read = shortlist(segments, free, size)
            scores = combine(likelihoods, words, read)
            scores = demote_copies(
                raise_linked(scores, matcher, sentences, frame.question), sentences
            )
            tokens = sum(len(one) for one, taken in zip(segments, read, strict=True) if taken)
            found[name] = (segments, scores, tokens)
        return found

    def _rate(
        self, bench: Bench, passages: Sequence[tuple[int, ...]], wanted: torch.Tensor
    ) -> torch.Tensor:
        """The likelihoods of those that are wanted, [passages]; NaN for the others."""
        asked = [n for n in wanted.nonzero()[:, 0].tolist() if passages[n] not in self._known]
        backbone, frame = bench.backbone, bench.inputs.frame
        prefix = backbone.encode(frame.prefix, CHUNK)
        rows = torch.zeros(1, len(passages), dtype=torch.bool)
        rows[0, asked] = True
        (found,) = PassageReader(backbone, frame.prefix, prefix, None).likelihoods(
            passages, [frame.window], rows, room=CHUNK, on_batch=lambda *_: None
        )
        self._known |= {passages[n]: float(found[n]) for n in asked}
        return torch.tensor([self._known.get(passage, torch.nan) for passage in passages])


def plan(items: int, found: Sequence[Sequence[Item]]) -> Iterator[tuple[Item, Sequence[Item]]]:
    """Items of each task in turn, each with all items of its task."""
    for number in range(items):
        yield from ((of_task[number], of_task) for of_task in found if number < len(of_task))


def measure(options: argparse.Namespace) -> None:
    """Append what is not measured yet; an item is written whole."""
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype)
    known = facts("embedded", engine.backbone.device, options.dtype)
    done = {row["id"] for row in read_lines(options.raw)}
    found = [load_items(options.data, task, f"{BASE}k") for task in TASKS]
    for item, items in plan(options.items, found):
        if item.id in done:
            continue
        rater, pool = Rater(engine), pool_of(item, items)
        lines = []
        for length in sorted(LENGTHS, reverse=True):
            longer = lengthen(item, pool, length * 1024, engine.count_tokens)
            bench = Bench(engine, None, longer, answer=False, feed=CHUNK, compare=False)
            scored: dict[tuple[tuple[int, ...], bool], dict[str, Any]] = {}
            for method, (segments, scores, read) in rater.choices(bench, CAPS).items():
                for budget in BUDGETS:
                    kept = positions_of(choose(segments, scores, budget))
                    whole = budget == BUDGETS[0]
                    if (kept, whole) not in scored:
                        score = bench.score_kept if whole else bench.score_text
                        scored[kept, whole] = score(kept)
                    row: Row = {"id": item.id, "task": item.task, "bucket": f"{length}k"}
                    row |= {"method": method, "budget": budget}
                    lines.append({**row, "read": read, **scored[kept, whole], **known})
        append_lines(options.raw, lines)
        print(item.id, flush=True)


def halves(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of the even items of every task, to choose on, and of the odd ones, to show."""
    numbers: dict[str, dict[str, int]] = defaultdict(dict)
    for row in rows:
        numbers[row["task"]].setdefault(row["id"], len(numbers[row["task"]]))
    found: dict[str, list[Row]] = {"choice": [], "test": []}
    for row in rows:
        found[("choice", "test")[numbers[row["task"]][row["id"]] % 2]].append(row)
    return found


def compare(rows: Sequence[Row]) -> list[list[str]]:
    """Per length and what is read: NLL against 3/8, and the answers kept at the budgets."""
    by: dict[tuple[str, str, int], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        by[row["bucket"], row["method"], row["budget"]][row["id"]] = row
    table = []
    for length in LENGTHS:
        # 3/8 of a set that is a little shorter than its name may be less than a cap.
        names = [NOTHING, *(f"{cap}k" for cap in sorted(CAPS) if cap < SHARE * length), BASELINE]
        for method in names:
            own, base = (by[f"{length}k", name, BUDGETS[0]] for name in (method, BASELINE))
            change = np.array([own[i]["nll"] - base[i]["nll"] for i in own if "nll" in own[i]])
            cell = ""
            if method != BASELINE and len(change) > 1:
                low, high = paired_interval(change)
                cell = f"{change.mean():+.3f} [{low:+.3f}, {high:+.3f}]"
                cell += f", of {len(change)}" if len(change) < len(base) else ""
            kept = [
                sum(row["survives"] for row in by[f"{length}k", method, budget].values())
                for budget in BUDGETS
            ]
            table.append([f"{length}k", method, cell, f"{', '.join(map(str, kept))} of {len(own)}"])
    return table


def main() -> None:
    """Measure what is not measured yet, pack it, and print the tables."""
    parser = make_parser(__doc__, RAW, PACKED)
    parser.add_argument("--items", type=int, default=10, help="per task")
    options = parser.parse_args()
    run(options, measure, PACKED)
    for half, rows in halves(read_rows(PACKED)).items():
        print(f"\n{half}")
        for cells in compare(rows):
            print(" | ".join(cells))


if __name__ == "__main__":
    main()
