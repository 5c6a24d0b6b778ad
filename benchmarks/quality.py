"""What each method leaves the model to answer from, at equal token budgets.

    python -m benchmarks.quality --data FOLDER --buckets 2k --items 10
    python -m benchmarks.quality_report

FOLDER holds one `<task>.jsonl` per task, each line with `id, qid, bucket, question, documents
[{id, title, text}], answers, gold_doc_ids`. Per item, method and budget one line of results is
appended to `--out`:

    nll       mean negative log-likelihood per token of the gold answer, teacher-forced
    survives  whether the text of a gold answer is still in the kept text (span methods)
    coverage  share of the gold documents' tokens that were kept

A run that was cut off goes on where it stopped. Lines of other versions of the methods stay in
the file's history: delete the file to start afresh.
"""

import argparse
import json
import platform
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from finch_integrations import FinchEngine, __version__
from finch_integrations.bm25 import BM25Index
from finch_integrations.documents import prepare_documents
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache, share_cache
from finch_integrations.engine.methods import RATINGS
from finch_integrations.engine.methods.passages import choose
from finch_integrations.engine.prompt import Prompt, build_prompt
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, split_segments
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder
from finch_integrations.types import Document

TASKS = ("squad_long", "nq_multidoc", "science_long", "multihop", "kv_lookup", "needle")
BUDGETS = (4, 8, 16)
CHUNK = 1024
RESULTS = Path(__file__).parent / "results"

# Ways to keep a part, as opposed to the bounds "none", "full" and "gold".
RAG = {
    "rag-sentence": (32, 96),
    "rag-128": (96, 160),
    "rag-passage": (160, 320),
    "rag-hybrid": (32, 96),
}
CACHED = {
    "finch": {"method": "finch"},
    "finch-kv_head": {"method": "finch", "selection": "kv_head", "pooling": "max"},
}
ENCODER = SentenceTransformerEncoder(device="cpu")
METHODS = ("none", "full", "gold", "truncate", *RAG, *CACHED, *RATINGS)


@dataclass(frozen=True, slots=True)
class Item:
    """One question over its documents."""

    id: str
    task: str
    bucket: str
    question: str
    documents: tuple[Document, ...]
    answers: tuple[str, ...]
    gold: frozenset[str]


def load_items(folder: Path, task: str, bucket: str, count: int) -> list[Item]:
    """Read the first `count` items of a task and bucket."""
    items = []
    with (folder / f"{task}.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if row["bucket"] == bucket and len(items) < count:
                documents = [
                    {key: d[key] for key in ("id", "title", "text") if d.get(key)}
                    for d in row["documents"]
                ]
                items.append(
                    Item(
                        id=row["id"],
                        task=task,
                        bucket=bucket,
                        question=row["question"],
                        documents=tuple(prepare_documents(documents)),
                        answers=tuple(row["answers"]),
                        gold=frozenset(row["gold_doc_ids"]),
                    )
                )
    return items


class Bench:
    """Runs methods on one item after another; what they share of an item is computed once."""

    def __init__(self, engine: FinchEngine, item: Item) -> None:
        self.engine = engine
        self.backbone: Backbone = engine.backbone
        self.item = item
        self.prompt: Prompt = build_prompt(self.backbone.tokenizer, item.documents, item.question)
        self._ranked: dict[str, tuple[Sequence[Segment], Tensor]] = {}

    def run(self, method: str, budget: int | None) -> dict[str, Any]:
        """Return the scores of one method; `budget` in tokens."""
        started = time.perf_counter()
        if method in CACHED:
            context = self.engine.compress(
                self.item.documents,
                self.item.question,
                target_size=budget,
                chunk_length=min(CHUNK, max(256, len(self.prompt.documents) // 4)),
                **CACHED[method],
            )
            nll = self._answer_nll(context.cache)
            return {"nll": nll, "seconds": time.perf_counter() - started}
        kept = self._kept(method, budget)
        ids = [self.prompt.documents[i] for i in kept]
        nll = self._answer_nll(self.backbone.encode([*self.prompt.prefix, *ids], CHUNK))
        text = _squeeze(self.backbone.tokenizer.decode(ids))
        gold = self._gold()
        return {
            "nll": nll,
            "survives": any(_squeeze(answer) in text for answer in self.item.answers),
            "coverage": len(set(kept) & set(gold)) / max(1, len(gold)),
            "seconds": time.perf_counter() - started,
        }

    def _gold(self) -> list[int]:
        """Token positions of the gold documents."""
        return [
            i
            for document, span in zip(self.item.documents, self.prompt.spans, strict=True)
            if document.id in self.item.gold
            for i in range(span.start, span.end)
        ]

    def _kept(self, method: str, budget: int | None) -> list[int]:
        """Token positions that a text method keeps."""
        total = len(self.prompt.documents)
        if method == "none":
            return []
        if method == "full":
            return list(range(total))
        if method == "gold":
            return self._gold()
        assert budget is not None
        if method == "truncate":
            head = budget - budget // 2
            return [*range(head), *range(total - budget // 2, total)]
        if method not in self._ranked:
            self._ranked[method] = self._rank(method)
        # Every method's passages stand in the same order, so that only the choice differs.
        return choose(*self._ranked[method], budget).kept.tolist()

    def _rank(self, method: str) -> tuple[Sequence[Segment], Tensor]:
        prompt = self.prompt
        if method not in RAG:
            prefix = self.backbone.encode(prompt.prefix, CHUNK)
            return RATINGS[method](self.backbone, prompt, prefix, CHUNK, lambda seen, kv: None)
        shortest, longest = RAG[method]
        segments = split_segments(prompt, shortest=shortest, longest=longest)
        offsets = (*prompt.offsets, len(prompt.text))
        texts = [prompt.text[offsets[s.start] : offsets[s.end]] for s in segments]
        scores = torch.from_numpy(BM25Index.build(texts).scores(prompt.question))
        if method == "rag-hybrid":
            scores = standardize(scores) + standardize(_similarities(texts, prompt.question))
        return segments, scores

    @torch.inference_mode()
    def _answer_nll(self, cache: KVCache) -> float:
        """Mean negative log-likelihood per token of the first gold answer."""
        answer = self.backbone.tokenizer(self.item.answers[0], add_special_tokens=False).input_ids
        ids = [*self.prompt.suffix, *answer]
        start = cache.get_seq_length()
        output = self.backbone.model(
            input_ids=torch.tensor([ids]),
            position_ids=torch.arange(start, start + len(ids))[None],
            past_key_values=share_cache(cache),
            use_cache=True,
            logits_to_keep=len(answer) + 1,
        )
        logits = output.logits[0, :-1].float().log_softmax(dim=-1)
        return float(-logits.gather(1, torch.tensor(answer)[:, None]).mean())


def _similarities(texts: Sequence[str], question: str) -> Tensor:
    """Cosine similarity of every text to the question, by the embedded embedding model."""
    query = torch.as_tensor(ENCODER.encode_query(question))
    return torch.as_tensor(ENCODER.encode_documents(texts)) @ query


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def plan(
    items: Sequence[Item], methods: Sequence[str], budgets: Sequence[int]
) -> Iterator[tuple[Item, str, int | None]]:
    """Name every measurement; bounds have no budget."""
    for item in items:
        for method in methods:
            bound = method in ("none", "full", "gold")
            for budget in [None] if bound else budgets:
                yield item, method, budget


def main() -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", default=TASKS, choices=TASKS)
    parser.add_argument("--buckets", nargs="+", default=["2k"])
    parser.add_argument("--items", type=int, default=10, help="per task and bucket")
    parser.add_argument("--skip", type=int, default=0, help="items to leave out before them")
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="parts kept: 1/N")
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--out", type=Path, default=RESULTS / "quality.jsonl")
    options = parser.parse_args()

    options.out.parent.mkdir(parents=True, exist_ok=True)
    done = set()
    if options.out.exists():
        for line in options.out.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            done.add((row["model"], row["id"], row["method"], row["budget"]))
    facts = {
        "model": options.model,
        "version": __version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": platform.machine(),
    }
    engine = FinchEngine.from_pretrained(options.model, device="cpu", dtype=torch.float32)
    with options.out.open("a", encoding="utf-8") as out:
        for bucket in options.buckets:
            for number in range(options.items):  # all tasks grow together
                at = options.skip + number
                for task in options.tasks:
                    items = load_items(options.data, task, bucket, options.skip + options.items)
                    bench = None
                    for item, method, part in plan(
                        items[at : at + 1], options.methods, options.budgets
                    ):
                        if (options.model, item.id, method, part) in done:
                            continue
                        bench = bench or Bench(engine, item)
                        budget = part and max(1, len(bench.prompt.documents) // part)
                        scores = bench.run(method, budget)
                        row = {
                            "id": item.id,
                            "task": task,
                            "bucket": bucket,
                            "method": method,
                            "budget": part,
                            **scores,
                            **facts,
                        }
                        out.write(json.dumps(row) + "\n")
                        out.flush()
                print(f"{bucket}: {number + 1} of {options.items} items per task", flush=True)


if __name__ == "__main__":
    main()
