"""How often the passages that answer a question are found: by words, by meaning, by both.

    python -m benchmarks.retrieval --questions corpus_qa.jsonl --documents corpus_qa.docs.jsonl

Documents are lines of JSON with `id`, `title` and `text`; questions have `qid`, `subtask`,
`question` and `gold_doc_ids`. recall@k is the mean share of a question's gold documents among the
first k, all-gold@10 the share of questions whose gold documents are all among the first 10.

Defaults are chosen on the questions whose id hashes to an even number (and on other data), so that
the others can tell whether the choice holds: `halves`. `margins` says how far the hybrid ranking is
above the better single searcher, with a paired bootstrap's 95 % interval.
"""

import argparse
import hashlib
import json
import platform
from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

from finch_integrations import Document
from finch_integrations.retrieval import Encoder, HybridRetriever
from finch_integrations.retrieval.encoders import as_encoder

SEARCHERS: dict[str, dict[str, Any]] = {
    "bm25": {"dense_weight": 0},
    "dense": {"bm25_weight": 0},
    "hybrid": {},
    "hybrid, rrf": {"fusion": "rrf"},
}
CUTS = (1, 5, 10)
SAMPLES = 10_000
Scores = dict[str, list[dict[str, float]]]


class CachedEncoder:
    """An encoder that remembers vectors in a file, by their text."""

    def __init__(self, encoder: Encoder, path: Path | None) -> None:
        self.name = encoder.name
        self._encoder = encoder
        self._path = path
        self._known: dict[str, Any] = {}
        if path is not None and path.is_file():
            with np.load(path, allow_pickle=False) as stored:
                self._known = dict(zip(stored["keys"].tolist(), stored["vectors"], strict=True))

    def encode_documents(self, texts: Sequence[str]) -> Any:
        """Encode texts that are not known yet."""
        keys = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self._known}
        if new:
            vectors = self._encoder.encode_documents(list(new.values()))
            self._known |= dict(zip(new, np.asarray(vectors, dtype=np.float32), strict=True))
        return np.stack([self._known[key] for key in keys])

    def encode_query(self, query: str) -> Any:
        """Encode a query."""
        return self._encoder.encode_query(query)

    def save(self) -> None:
        """Write what is known."""
        if self._path is not None:
            np.savez(
                self._path, keys=list(self._known), vectors=np.stack(list(self._known.values()))
            )


def found(
    retriever: HybridRetriever, question: str, options: dict[str, Any], top_k: int = 100
) -> list[str]:
    """Ids of the documents of the best chunks, best first."""
    chunks = retriever.retrieve(question, top_k=top_k, **options)
    return list(dict.fromkeys(chunk.metadata["document_id"] for chunk in chunks))


def score(ranking: Sequence[str], gold: Sequence[str]) -> dict[str, float]:
    """Recall at every cut, and whether all gold documents are among the first ten."""
    recall = {f"recall@{k}": mean(id in ranking[:k] for id in gold) for k in CUTS}
    return recall | {"all-gold@10": float(all(id in ranking[:10] for id in gold))}


def averages(collected: Mapping[str, Scores]) -> dict[str, dict[str, dict[str, float]]]:
    """Mean scores per subset and searcher."""
    return {
        subset: {
            searcher: {name: mean(score[name] for score in scores) for name in scores[0]}
            for searcher, scores in searchers.items()
        }
        for subset, searchers in collected.items()
    }


def margins(searchers: Scores) -> dict[str, list[float]]:
    """Hybrid minus the better single searcher: mean, and both ends of its 95 % interval."""
    rows = {}
    for name in searchers["hybrid"][0]:
        values = {
            searcher: np.array([score[name] for score in scores])
            for searcher, scores in searchers.items()
        }
        better = max(("bm25", "dense"), key=lambda searcher: values[searcher].mean())
        difference = values["hybrid"] - values[better]
        size = len(difference)
        samples = np.random.default_rng(0).integers(0, size, (SAMPLES, size))
        low, high = np.quantile(difference[samples].mean(axis=1), [0.025, 0.975])
        rows[name] = [float(difference.mean()), float(low), float(high)]
    return rows


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read lines of JSON."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line]


def read_documents(path: Path) -> list[Document]:
    """Read the documents of a collection."""
    return [Document(line["text"], id=line["id"], title=line["title"]) for line in read_lines(path)]


def show(results: dict[str, dict[str, dict[str, float]]]) -> None:
    """Print a table."""
    names = list(next(iter(next(iter(results.values())).values())))
    print(f"{'':23}" + "".join(f"{name:>13}" for name in names))
    for subset, searchers in results.items():
        for searcher, scores in searchers.items():
            print(f"{subset:10}{searcher:13}" + "".join(f"{scores[name]:13.3f}" for name in names))


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--chunk-size", type=int, default=1000)
    parser.add_argument("--cache", type=Path, help=".npz file that keeps vectors between runs")
    parser.add_argument("--out", type=Path, help="write the results to this JSON file")
    arguments = parser.parse_args()

    documents = read_documents(arguments.documents)
    questions = read_lines(arguments.questions)
    encoder = CachedEncoder(as_encoder(arguments.encoder), arguments.cache)
    retriever = HybridRetriever.from_documents(
        documents, encoder=encoder, chunk_size=arguments.chunk_size
    )
    encoder.save()

    collected: defaultdict[str, Scores] = defaultdict(
        lambda: {searcher: [] for searcher in SEARCHERS}
    )
    halves: dict[str, defaultdict[str, Scores]] = {
        half: defaultdict(lambda: {searcher: [] for searcher in SEARCHERS})
        for half in ("tuning", "reporting")
    }
    for question in questions:
        digest = hashlib.sha256(question["qid"].encode()).digest()
        half = "reporting" if digest[-1] % 2 else "tuning"
        for searcher, options in SEARCHERS.items():
            ranking = found(retriever, question["question"], options)
            scores = score(ranking, question["gold_doc_ids"])
            collected[question["subtask"]][searcher].append(scores)
            halves[half][question["subtask"]][searcher].append(scores)
    results = averages(collected)
    show(results)
    if arguments.out:
        report = {
            "date": date.today().isoformat(),
            "encoder": arguments.encoder,
            "chunk_size": arguments.chunk_size,
            "documents": len(documents),
            "chunks": len(retriever.collection),
            "questions": {
                subset: len(searchers["bm25"]) for subset, searchers in collected.items()
            },
            "machine": platform.machine(),
            "versions": {name: version(name) for name in ("bm25s", "sentence-transformers")},
            "results": results,
            "halves": {half: averages(parts) for half, parts in halves.items()},
            "margins": {subset: margins(searchers) for subset, searchers in collected.items()},
        }
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
