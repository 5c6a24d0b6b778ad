"""What it costs to find the documents of a prompt of 4 MB, compared with tokenizing the prompt.

    python -m benchmarks.detection

The prompt holds all documents that were retrieved, or none of them; `new` is the first prompt with
them, `all` a later one; `without` has nothing retrieved, so only marks and known prompts are looked
for. Times are medians of the processor's time of one thread; the share is that of the time in which
the embedded model's tokenizer reads the same prompt, which every prompt costs.
"""

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from finch_integrations.engine.embedded import MODEL
from finch_integrations.pipeline.detection import detect
from finch_integrations.pipeline.evidence import NO_EVIDENCE, RetrievedTexts
from finch_integrations.pipeline.turns import Turn
from finch_integrations.types import Document

RESULTS = Path(__file__).parent / "results" / "detection.json"
_CHARACTERS = 4_000_000
_QUESTION = "When does the boat leave?"


def make_texts(number: int, seed: int) -> list[str]:
    """So many texts, together of 4 million characters, in lines of ordinary length."""
    pick = random.Random(seed)
    texts = []
    for count in range(number):
        lines = [f"{count} {seed}"]
        while sum(map(len, lines)) + len(lines) < _CHARACTERS // number:
            lines.append(" ".join(f"{pick.choice('abcd')}{pick.random():.6f}" for _ in range(8)))
        texts.append("\n".join(lines))
    return texts


def median_ms(run: Callable[[], Any], rounds: int) -> float:
    """Median time of a run in milliseconds."""
    times = []
    for _ in range(rounds):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return round(statistics.median(times) * 1e3, 2)


def remembering(texts: list[str]) -> RetrievedTexts:
    """A memory to which a run's retriever has just returned texts."""
    memory = RetrievedTexts()
    memory.remember([Document(text, id=str(n)) for n, text in enumerate(texts)], run=1)
    memory.remember_query(_QUESTION, 1)
    return memory


def main() -> None:
    """Measure, print and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL.path()))
    results = {}
    for number in (10, 100, 1000):
        texts, others = make_texts(number, seed=1), make_texts(number, seed=2)
        prompt = "Use this context.\n\n" + "\n\n".join(texts) + f"\n\nQuestion: {_QUESTION}"
        turns = [Turn(role="user", text=prompt)]
        memory, strangers = remembering(texts), remembering(others)
        fresh = iter([remembering(texts) for _ in range(options.rounds)])
        assert len(detect(turns, evidence=memory.recall(1)).documents) == number
        assert detect(turns, evidence=strangers.recall(1)).source != "evidence"
        tokenizing = median_ms(lambda prompt=prompt: tokenizer(prompt, verbose=False), 1)
        found = {
            "new": lambda turns=turns, kept=fresh: detect(turns, evidence=next(kept).recall(1)),
            "all": lambda turns=turns, kept=memory: detect(turns, evidence=kept.recall(1)),
            "none": lambda turns=turns, kept=strangers: detect(turns, evidence=kept.recall(1)),
            "without": lambda turns=turns: detect(turns, evidence=NO_EVIDENCE),
        }
        times = {name: median_ms(run, options.rounds) for name, run in found.items()}
        shares = {name: round(ms / tokenizing, 5) for name, ms in times.items()}
        results[number] = {"ms": times, "tokenizing_ms": tokenizing, "share": shares}
        print(f"{number} documents: {results[number]}", flush=True)
    report = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "versions": {name: version(name) for name in ("numpy", "tokenizers", "transformers")},
        "python": platform.python_version(),
        "characters": _CHARACTERS,
        "rounds": options.rounds,
        "results": results,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
