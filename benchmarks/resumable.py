"""Measurements that continue where they stopped: raw lines are appended, and packed in the end."""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.quality import DTYPES, read_lines
from benchmarks.quality_results import write


def make_parser(description: str | None, raw: Path, packed: Path) -> argparse.ArgumentParser:
    """The options that all of them have: `--data`, `--dtype`, `--raw` and `--pack`."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dtype", default="bfloat16", choices=DTYPES)
    parser.add_argument("--raw", type=Path, default=raw)
    parser.add_argument("--pack", action="store_true", help=f"write the raw lines to {packed.name}")
    return parser


def run(
    options: argparse.Namespace, measure: Callable[[argparse.Namespace], None], packed: Path
) -> None:
    """Measure if there is `--data`, and pack what was measured with `--pack`."""
    if options.data:
        measure(options)
    if options.pack:
        write(read_lines(options.raw), packed)


def append_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Append an item's lines in one piece, so that an interrupted one is measured again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as out:
        out.write("".join(json.dumps(line) + "\n" for line in lines))
