"""What single line breaks do to segments: cut at every one, as before, and only where blocks end.

    python -m benchmarks.line_breaks --data FOLDER --bucket 2k --select 2

Every document is read as it is and with its lines wrapped at 72 characters. Per rule: how many
segments end without a stop or a blank line, and, for the first items of each task, whether the gold
answer is in what `likelihood` keeps at 1/8.
"""

import argparse
import json
import re
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import transformers

from benchmarks.items import Item, load_items, tasks_of
from finch_integrations import FinchEngine
from finch_integrations.engine import segments
from finch_integrations.engine.document_tokens import tokenize_documents
from finch_integrations.sentences import sentence_ends
from finch_integrations.types import Document

RESULTS = Path(__file__).parent / "results" / "line_breaks.json"
_WIDTH = 72
_STOPPED = re.compile(r"""[.!?…]["'”’)\]]*\s*$""")
_BLANK_LINES = re.compile(r"\n\s*\n")


def every_line(text: str) -> list[int]:
    """The rule that was: sentences end at every line break."""
    return sorted({*sentence_ends(text), *(match.end() for match in re.finditer(r"\n+", text))})


RULES: dict[str, Callable[[str], list[int]]] = {
    "every line break": every_line,
    "blocks": sentence_ends,
}


def wrapped(text: str) -> str:
    """Break the lines of every paragraph."""
    return "\n\n".join(textwrap.fill(part, _WIDTH) for part in _BLANK_LINES.split(text))


@contextmanager
def rule(find: Callable[[str], list[int]]) -> Iterator[None]:
    """Cut segments by another rule."""
    before = segments.sentence_ends
    segments.sentence_ends = find
    try:
        yield
    finally:
        segments.sentence_ends = before


def torn(tokenizer: Any, documents: Sequence[Document]) -> tuple[int, int]:
    """Count the segments that end without a stop or a blank line, and all."""
    tokens = tokenize_documents(tokenizer, documents)
    found = segments.split_segments(tokens, shortest=32, longest=96)
    ends = [tokens.offset(segment.end) for segment in found[:-1]]
    torn = [
        not (
            _STOPPED.search(tokens.text[max(0, end - 9) : end])
            or "\n\n" in tokens.text[max(0, end - 2) : end + 2]
        )
        for end in ends
    ]
    return sum(torn), len(found)


def survives(engine: FinchEngine, item: Item, documents: Sequence[Document]) -> bool:
    """Whether a gold answer is in what is kept."""
    kept = engine.select(documents, item.question, compression_ratio=7 / 8)
    text = " ".join(" ".join(excerpt.text for excerpt in kept.excerpts).split())
    return any(" ".join(answer.split()) in text for answer in item.answers)


def main() -> None:
    """Measure, print and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--items", type=int, default=10, help="per task, for the segments")
    parser.add_argument("--select", type=int, default=2, help="per task, for the answers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    found = {
        f"{text}, {name}": {"segments": 0, "without_a_stop": 0, "items": 0, "answers_kept": 0}
        for text in ("as it is", "wrapped")
        for name in RULES
    }
    with FinchEngine.from_pretrained("embedded", device="cpu", dtype="float32") as engine:
        for task in tasks_of(options.data):
            items = load_items(options.data, task, options.bucket)[: options.items]
            for number, item in enumerate(items):
                lines = [replace(d, text=wrapped(d.text)) for d in item.documents]
                for text, documents in (("as it is", item.documents), ("wrapped", lines)):
                    for name, find in RULES.items():
                        row = found[f"{text}, {name}"]
                        with rule(find):
                            inside, count = torn(engine.backbone.tokenizer, documents)
                            row["segments"] += count
                            row["without_a_stop"] += inside
                            if number < options.select:
                                row["items"] += 1
                                row["answers_kept"] += survives(engine, item, documents)
            print(task, json.dumps(found), flush=True)
    report = {
        "date": date.today().isoformat(),
        "bucket": options.bucket,
        "versions": {"transformers": transformers.__version__},
        "results": found,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
