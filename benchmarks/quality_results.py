"""The results of `benchmarks.quality`, packed into the file that tables and figures are made from.

    python -m benchmarks.quality_results [RAW.jsonl ...]

Raw lines repeat all names for every number. When packed, items and circumstances are named once,
and a group (what was measured, of one task, at one budget) has lists of numbers, item by item.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.quality import RAW, RESULTS, read_lines

PACKED = RESULTS / "quality.json"

Row = dict[str, Any]
Rows = dict[tuple[str, str, int | None], dict[str, Row]]

_GROUP = ("bucket", "task", "method", "budget")
_FACTS = ("model", "version", "commit", "torch", "transformers", "machine", "dtype")
_SCORES = (
    *("nll", "kl", "agrees", "survives", "coverage", "read", "kept"),
    *("f1", "exact", "contains", "cited"),
    # Of `benchmarks.paper`.
    *("seconds", "asked", "blind"),
)


def pack(rows: Iterable[Row]) -> dict[str, Any]:
    """Group rows; if a measurement was made twice, the first counts, with what others add."""
    items: list[str] = []
    runs: list[Row] = []
    groups: dict[tuple[Any, ...], dict[str, Row]] = defaultdict(dict)
    for row in rows:
        facts = {name: row[name] for name in _FACTS if name in row}
        if facts not in runs:
            runs.append(facts)
        group = groups[(runs.index(facts), *(row[name] for name in _GROUP))]
        group[row["id"]] = {name: row[name] for name in _SCORES if name in row} | group.get(
            row["id"], {}
        )
    numbers: dict[str, int] = {}
    packed = []
    for (run, *names), scores in groups.items():
        for item in scores:
            if item not in numbers:
                numbers[item] = len(items)
                items.append(item)
        columns = {
            name: [_short(score.get(name)) for score in scores.values()]
            for name in _SCORES
            if any(name in score for score in scores.values())
        }
        packed.append(
            {"run": run, **dict(zip(_GROUP, names, strict=True))}
            | {"items": [numbers[item] for item in scores], **columns}
        )
    return {"items": items, "runs": runs, "groups": packed}


def unpack(results: dict[str, Any]) -> Iterator[Row]:
    """The rows again; numbers have four digits after the point."""
    for group in results["groups"]:
        facts = results["runs"][group["run"]] | {name: group[name] for name in _GROUP}
        for place, number in enumerate(group["items"]):
            scores = {name: group[name][place] for name in _SCORES if name in group}
            known = {name: value for name, value in scores.items() if value is not None}
            yield {"id": results["items"][number], **facts, **known}


def read(path: Path, bucket: str, model: str) -> Rows:
    """Results of a length and a model, see `read_all`; empty where there are none."""
    return read_all(path).get((model, bucket), {})


def read_all(path: Path = PACKED) -> dict[tuple[str, str], Rows]:
    """(model, bucket) -> (task, method, budget) -> item id -> row; the shortest bucket first."""
    found: dict[tuple[str, str], Rows] = defaultdict(lambda: defaultdict(dict))
    for row in read_rows(path):
        rows = found[row["model"], row["bucket"]]
        rows[row["task"], row["method"], row["budget"]][row["id"]] = row
    return {name: found[name] for name in sorted(found, key=lambda it: (it[0], _tokens(it[1])))}


def read_buckets(path: Path = PACKED, model: str = "embedded") -> dict[str, Rows]:
    """Results of one model by bucket, the shortest first; empty where there are none."""
    return {bucket: rows for (name, bucket), rows in read_all(path).items() if name == model}


def _tokens(bucket: str) -> float:
    """Sort key: "2k" before "16k"; what is not a length comes last."""
    number = bucket.lower().removesuffix("k")
    return float(number) if number.replace(".", "", 1).isdigit() else math.inf


def read_rows(path: Path = PACKED) -> list[Row]:
    """All packed results; none where there is no such file."""
    return list(unpack(json.loads(path.read_text(encoding="utf-8")))) if path.exists() else []


def write(rows: Iterable[Row], path: Path) -> None:
    """Pack rows into a file, a line per group.

    Raises:
        SystemExit: There are none: a wrong path must not empty what was measured.
    """
    packed = pack(rows)
    if not packed["groups"]:
        raise SystemExit(f"there are no results to pack: {path} stays as it is")
    lines = ",\n".join(json.dumps(group, separators=(",", ":")) for group in packed.pop("groups"))
    head = json.dumps(packed, separators=(",", ":"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'{head[:-1]},"groups":[\n{lines}\n]}}\n', encoding="utf-8")


def _short(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    """Pack raw results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("raw", type=Path, nargs="*", default=[RAW])
    parser.add_argument("--out", type=Path, default=PACKED)
    options = parser.parse_args()
    rows = [row for path in options.raw for row in read_lines(path)]
    if not rows:
        parser.error(f"no results in {', '.join(map(str, options.raw))}")
    write(rows, options.out)
    print(options.out)


if __name__ == "__main__":
    main()
