"""What single line breaks do to segments: cut at every one, as before, and only where blocks end.

    python -m benchmarks.line_breaks --data FOLDER --bucket 2k --select 2

Every document is read as it is and with its lines wrapped at 72 characters. Per rule: how many
segments end without a stop or a blank line, and, for the first items of each task, whether the gold
answer is in what `likelihood` keeps at 1/8, and its negative log-likelihood per token after that
(`nll`), with the paired difference between the rules.
"""

import argparse
import json
import re
import statistics
import textwrap
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import transformers

from benchmarks.elsewhere import interval
from benchmarks.items import Item, load_items, tasks_of
from benchmarks.quality import Bench
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
    before = vars(segments)["sentence_ends"]
    vars(segments)["sentence_ends"] = find
    try:
        yield
    finally:
        vars(segments)["sentence_ends"] = before


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


def score(engine: FinchEngine, item: Item) -> dict[str, Any]:
    """The scores of what is kept of an item's documents."""
    # An engine remembers what it selected, whatever the rule was.
    engine = FinchEngine(engine.backbone.model, engine.backbone.tokenizer)
    kept = engine.select(item.documents, item.question, compression_ratio=7 / 8)
    bench = Bench(engine, None, item, answer=False, feed=1024, compare=False)
    return bench.score_kept(kept.positions)


def differences(cut: dict[str, Any], blocks: dict[str, Any]) -> dict[str, Any]:
    """The paired difference of the likelihoods: mean and its 95 % interval."""
    changes = [a - b for a, b in zip(cut["nll"], blocks["nll"], strict=True)]
    if not changes:
        return {"items": 0}
    low, high = interval(changes)
    return {
        "items": len(changes),
        "mean": round(statistics.fmean(changes), 4),
        "interval_95": [round(low, 4), round(high, 4)],
    }


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
    found: dict[str, dict[str, Any]] = {
        f"{text}, {name}": {"segments": 0, "without_a_stop": 0, "answers_kept": 0, "nll": []}
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
                                scores = score(engine, replace(item, documents=documents))
                                row["answers_kept"] += scores["survives"]
                                row["nll"].append(round(scores["nll"], 4))
            print(task, json.dumps(found), flush=True)
    report = {
        "date": date.today().isoformat(),
        "bucket": options.bucket,
        "versions": {"transformers": transformers.__version__},
        "model": "SmolLM2-135M-Instruct, float32",
        "results": found,
        "nll_more_when_cut_at_every_line_break": {
            text: differences(found[f"{text}, every line break"], found[f"{text}, blocks"])
            for text in ("as it is", "wrapped")
        },
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
