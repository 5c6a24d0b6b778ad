"""Memory and time of an index of 100,000 chunks: build, open, and a query of each searcher.

    python -m benchmarks.scale

The texts are made of random words with natural frequencies, the vectors are random: what is
measured is the retrieval, not an embedding model. Building and searching run in separate processes,
so that their peak memory can be measured. Times are medians and not comparable between machines.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from finch_integrations import Document
from finch_integrations.retrieval import HybridRetriever, Source, build_index

DIMENSION = 384  # of all-MiniLM-L6-v2
WORDS_PER_CHUNK = 150
VOCABULARY = 50_000
QUERIES = 30
WORDS_PER_QUERY = 10


class RandomEncoder:
    """Vectors that depend on the text's length only as a seed: no model runs."""

    name = "random"

    def encode_documents(self, texts: Sequence[str]) -> Any:
        """Random vectors."""
        return np.random.default_rng(len(texts[0])).standard_normal((len(texts), DIMENSION))

    def encode_query(self, query: str) -> Any:
        """A random vector."""
        return self.encode_documents([query])[0]


def text_of(generator: np.random.Generator, words: int) -> str:
    """Random words; the n-th most frequent is about 1/n as frequent as the first (Zipf)."""
    ranks = (VOCABULARY ** generator.random(words)).astype(int)
    return " ".join(f"w{rank}" for rank in ranks)


def build(path: Path, chunks: int) -> dict[str, float]:
    """Build the index, then bring it up to date after one change."""
    generator = np.random.default_rng(0)

    def source(number: int, digest: str = "1") -> Source:
        return Source(
            f"d{number}",
            digest,
            lambda: Document(text_of(generator, WORDS_PER_CHUNK), id=f"d{number}"),
        )

    sources = [source(number) for number in range(chunks)]
    report = build_index(path, sources, encoder=RandomEncoder())
    peak = _peak_bytes()
    sources[0] = source(0, "2")
    update = build_index(path, sources, encoder=RandomEncoder())
    assert update.encoded <= 2, "only the changed document is encoded"
    return {
        "chunks": report.chunks,
        "build_seconds": report.seconds,
        "build_peak_bytes": peak,
        "update_seconds": update.seconds,
        "update_peak_bytes": _peak_bytes(),
        "index_bytes": sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
    }


def search(path: Path) -> dict[str, float]:
    """Open the index and search with each searcher."""
    started = time.perf_counter()
    retriever = HybridRetriever.load(path, encoder=RandomEncoder())
    result = {"open_seconds": time.perf_counter() - started}
    generator = np.random.default_rng(1)
    queries = [text_of(generator, WORDS_PER_QUERY) for _ in range(QUERIES)]
    options: dict[str, dict[str, Any]] = {
        "bm25": {"dense_weight": 0},
        "dense": {"bm25_weight": 0},
        "hybrid": {},
    }
    for searcher, option in options.items():
        seconds = []
        for query in queries:
            started = time.perf_counter()
            retriever.retrieve(query, **option)
            seconds.append(time.perf_counter() - started)
        result[f"{searcher}_first_query_seconds"] = seconds[0]
        result[f"{searcher}_query_seconds"] = statistics.median(seconds)
    return result | {"search_peak_bytes": _peak_bytes()}


def _peak_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def _in_own_process(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.scale", *arguments]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result: dict[str, float] = json.loads(output)
    return result


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    parser.add_argument("--step", choices=["build", "search"], help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        step = arguments.step
        path = arguments.index
        print(json.dumps(build(path, arguments.chunks) if step == "build" else search(path)))
        return
    with tempfile.TemporaryDirectory() as folder:
        common = ["--index", f"{folder}/index", "--chunks", str(arguments.chunks)]
        results = _in_own_process("--step", "build", *common)
        results |= _in_own_process("--step", "search", *common)
    for name, value in results.items():
        unit = f"{value / 2**20:,.0f} MiB" if name.endswith("bytes") else f"{value:,.3f}"
        print(f"{name:28}{unit:>14}")
    if arguments.out:
        report = {"date": date.today().isoformat(), "machine": platform.machine(), **results}
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
