"""What each method leaves the model to answer from, at equal token budgets.

    python -m benchmarks.quality --data FOLDER --buckets 2k --items 10
    python -m benchmarks.quality_results --out mine.json
    python -m benchmarks.quality_report --results mine.json

FOLDER holds one `<task>.jsonl` per task, each line with `id, qid, bucket, question, documents
[{id, title, text}], answers, gold_doc_ids` (`benchmarks.make_tasks` writes such files). Per item,
method and budget one line of results is appended to `--out`:

    nll       mean negative log-likelihood per token of the gold answer, teacher-forced
    kl        of the answer's first token: KL(all documents || kept), where all fit the window
    agrees    whether the likeliest first token is the same as with all documents
    survives  whether the text of a gold answer is still in the kept text (span methods)
    coverage  share of the gold documents' tokens that were kept (span methods)
    f1, exact, contains   of the generated answer, with `--answers`, where the right one is short
    cited     of the passages that it quotes, the share that holds a right answer

A run that was interrupted continues where it stopped.
"""

import argparse
import json
import platform
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TextIO

import torch
import transformers
from torch import Tensor

from benchmarks.answers import score_answer, score_citations
from benchmarks.baselines import RETRIEVAL, Perplexity, rank_by_retrieval
from benchmarks.items import Item, load_items, tasks_of
from finch_integrations import FinchEngine, Message, SamplingParams, __version__
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache, cache_length, share_cache
from finch_integrations.engine.chat import build_chat
from finch_integrations.engine.generate import join_responses, stream_tokens
from finch_integrations.engine.methods import SEGMENT_SCORERS, Reading, SegmentScorer
from finch_integrations.engine.methods.copies import demote_copies, sentences_of
from finch_integrations.engine.methods.likelihood import score_by_likelihood
from finch_integrations.engine.methods.passages import choose, positions_of, texts_of
from finch_integrations.engine.model_input import ModelInput, make_input
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.segments import Segment
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder

BUDGETS = (4, 8, 16)
CHUNK = 1024
# Words of an answer that can be compared with another one word for word.
SHORT = 5
DTYPES = ("float32", "bfloat16")
RESULTS = Path(__file__).parent / "results"
RAW = Path(".benchmarks") / "quality.jsonl"

# The ends of the scale: they have no budget.
BOUNDS = ("none", "full", "gold")
# Methods that leave a cache and no text.
CACHED: dict[str, dict[str, Any]] = {
    "finch": {},
    # One pass over everything, every KV head separately, scores pooled (arXiv 2404.14469).
    "snapkv": {"selection": "kv_head", "pooling": "max", "chunk_length": 2**20},
}
# What a user gets who sets no option: `likelihood` reads everything, the default does not.
DEFAULT = "default"
# The first documents: where a search has put the best ones first, what it would give without us.
FIRST = "first"
METHODS = (
    *(*BOUNDS, "truncate", FIRST, *RETRIEVAL, "perplexity", *CACHED, *SEGMENT_SCORERS),
    DEFAULT,
)
# Without documents there is no text above that a prompt could speak of.
ASKED_ALONE = "Answer this question:"

# What is varied to see what it does; not measured unless named.
BLIND = "Is there anything else to know?"
CHUNK_LENGTHS = (128, 256, 512, 1024, 2048)
NO_LINKS = "likelihood, no links"
LENGTHS = ((16, 48), (64, 160), (96, 192), (160, 320))
CACHED_ABLATIONS: dict[str, dict[str, Any]] = {
    "finch, blind": {},
    **{f"finch, chunk {length}": {"chunk_length": length} for length in CHUNK_LENGTHS},
}
SCORER_ABLATIONS: dict[str, SegmentScorer] = {
    **{
        f"likelihood, {low}-{high}": partial(score_by_likelihood, shortest=low, longest=high)
        for low, high in LENGTHS
    },
    "likelihood, blind": score_by_likelihood,
    NO_LINKS: partial(score_by_likelihood, linked=False),
}
ABLATIONS = (*CACHED_ABLATIONS, *SCORER_ABLATIONS)


class Bench:
    """Runs methods on one item after another; what they share for an item is computed once."""

    def __init__(
        self,
        engine: FinchEngine,
        encoder: SentenceTransformerEncoder | None,
        item: Item,
        *,
        answer: bool,
        feed: int,
        compare: bool = True,
    ) -> None:
        self.engine = engine
        self._compare = compare
        self.backbone: Backbone = engine.backbone
        self.encoder = encoder
        self.item = item
        self.inputs = self._read_as(item.question)
        self._answer = answer and len(item.answers[0].split()) <= SHORT
        self._feed = feed
        self._ranked: dict[str, tuple[Sequence[Segment], Tensor]] = {}

    def run(self, method: str, budget: int | None) -> dict[str, Any]:
        """Return the scores of one method; `budget` in tokens."""
        if method in CACHED or method in CACHED_ABLATIONS:
            return self._scores(self._compressed(method, budget))
        if method == "none":
            return self._score_nothing()
        kept = self._kept(method, budget)
        return self.score_kept(kept, self._everything if method == "full" else None)

    def score_kept(self, kept: Sequence[int], cache: KVCache | None = None) -> dict[str, Any]:
        """Return the scores of kept document tokens.

        Args:
            kept: Their positions, in the order in which the model is to read them.
            cache: What the model read of them; None: they are read now.
        """
        ids = [self.inputs.tokens.ids[i] for i in kept]
        cache = self._encode(ids) if cache is None else cache
        return {**self._scores(cache), **self.score_text(kept)}

    def score_text(self, kept: Sequence[int]) -> dict[str, Any]:
        """Return the scores of kept document tokens for which no model is needed."""
        text = _squeeze(self.backbone.tokenizer.decode([self.inputs.tokens.ids[i] for i in kept]))
        gold = self._gold()
        return {
            "survives": any(_squeeze(answer) in text for answer in self.item.answers),
            "coverage": len(set(kept) & set(gold)) / max(1, len(gold)),
        }

    def _score_nothing(self) -> dict[str, Any]:
        """The scores of the question alone, in a prompt that speaks of no documents."""
        chat = Message(role="user", content=f"{ASKED_ALONE} {self.item.question}")
        first, *rest = build_chat(self.backbone.tokenizer, [chat])
        cache = self.backbone.encode([first], self._feed)
        return {**self._scores(cache, rest), "survives": False, "coverage": 0.0}

    def _compressed(self, method: str, budget: int | None) -> KVCache:
        """What a method that leaves no text leaves."""
        total = len(self.inputs.tokens)
        options = {"chunk_length": min(CHUNK, max(256, total // 4))}
        options |= (CACHED | CACHED_ABLATIONS)[method]
        options["chunk_length"] = min(options["chunk_length"], total)
        return self.engine.compress(
            self.item.documents,
            self._question(method),
            method="finch",
            target_size=budget,
            **options,
        ).cache

    def _question(self, method: str) -> str:
        """The question under which a method chooses."""
        return BLIND if method.endswith(", blind") else self.item.question

    def _encode(self, ids: Sequence[int]) -> KVCache:
        return self.backbone.encode([*self.inputs.frame.prefix, *ids], self._feed)

    @cached_property
    def _everything(self) -> KVCache:
        """The cache of all documents: `full` is measured from it, and others against it."""
        return self._encode(self.inputs.tokens.ids)

    def _gold(self) -> list[int]:
        """Token positions of the gold documents."""
        return [
            i
            for document, span in zip(self.item.documents, self.inputs.tokens.spans, strict=True)
            if document.id in self.item.gold
            for i in range(span.start, span.end)
        ]

    def _kept(self, method: str, budget: int | None) -> list[int]:
        """Token positions that a text method keeps."""
        total = len(self.inputs.tokens)
        if method == "full":
            return list(range(total))
        if method == "gold":
            return self._gold()
        assert budget is not None
        if method == "truncate":
            head = budget - budget // 2
            return [*range(head), *range(total - budget // 2, total)]
        if method == "perplexity":
            return self._perplexity.keep(budget)
        if method == DEFAULT:
            documents, question = self.item.documents, self.item.question
            return list(self.engine.select(documents, question, target_size=budget).positions)
        if method not in self._ranked:
            self._ranked[method] = self._rank(method)
        # The passages of all methods are in the same order, so that only the choice differs.
        return list(positions_of(choose(*self._ranked[method], budget)))

    @cached_property
    def _perplexity(self) -> Perplexity:
        return Perplexity(self.backbone, self.inputs, self._feed)

    def _rank(self, method: str) -> tuple[Sequence[Segment], Tensor]:
        if method in RETRIEVAL:
            assert self.encoder is not None
            return rank_by_retrieval(method, self.inputs, self.encoder)
        if method == FIRST:
            spans = enumerate(self.inputs.tokens.spans)
            whole = [Segment(span.start, span.end, number) for number, span in spans]
            return whole, -torch.arange(len(whole), dtype=torch.float32)
        inputs = self._read_as(self._question(method))
        score = (SEGMENT_SCORERS | SCORER_ABLATIONS)[method]
        prefix = self.backbone.encode(inputs.frame.prefix, self._feed)
        # What a segment's contrast is depends on the chunk around it, its likelihood does not.
        chunk_length = CHUNK if method == "contrast" else self._feed
        reading = Reading(
            backbone=self.backbone,
            documents=inputs.tokens,
            frames=[inputs.frame],
            prefix=prefix,
            chunk_length=chunk_length,
            batch_tokens=chunk_length,
            read_sizes=[len(inputs.tokens)],
            store=None,
            tracker=ProgressTracker(None),
        )
        segments, scores = score(reading)
        return segments, demote_copies(scores[0], sentences_of(texts_of(inputs.tokens, segments)))

    def _read_as(self, question: str) -> ModelInput:
        """The item's documents under a question, in the model's tokens."""
        tokenizer = self.backbone.tokenizer
        return make_input(tokenizer, self.item.documents, Prompt(question=question))

    def _scores(self, cache: KVCache, suffix: Sequence[int] = ()) -> dict[str, Any]:
        """The scores of what is in a cache, before `suffix`: the question with what is around it.

        If it is empty, it is the item's question as after documents.
        """
        suffix = suffix or self.inputs.frame.suffix
        nll, first = self._teacher_force(cache, suffix)
        scores: dict[str, Any] = {"nll": nll}
        if self._full is not None:
            scores["kl"] = float((self._full.exp() * (self._full - first)).sum())
            scores["agrees"] = bool(self._full.argmax() == first.argmax())
        if self._answer:
            pieces = stream_tokens(
                self.backbone,
                share_cache(cache),
                suffix,
                cache_length(cache) + len(suffix),
                SamplingParams(max_tokens=32),
            )
            answer = join_responses(pieces).text
            scores |= score_answer(answer, self.item.answers)
            scores |= score_citations(answer, self.item.documents, self.item.answers)
        return scores

    @cached_property
    def _full(self) -> Tensor | None:
        """Log-probabilities of the first answer token with all documents, where they fit."""
        if not self._compare or len(self.inputs) > self.backbone.spec.window:
            return None
        return self._teacher_force(self._everything, self.inputs.frame.suffix)[1]

    @torch.inference_mode()
    def _teacher_force(self, cache: KVCache, suffix: Sequence[int]) -> tuple[float, Tensor]:
        """NLL per token of the first gold answer; log-probabilities of its first token, [V]."""
        device = self.backbone.device
        answer = self.backbone.tokenizer(self.item.answers[0], add_special_tokens=False).input_ids
        ids = torch.tensor([[*suffix, *answer]], device=device)
        start = cache_length(cache)
        output = self.backbone.model(
            input_ids=ids,
            position_ids=torch.arange(start, start + ids.shape[1], device=device)[None],
            past_key_values=share_cache(cache),
            use_cache=True,
            logits_to_keep=len(answer) + 1,
        )
        found = output.logits[0, :-1].float().log_softmax(dim=-1)
        return float(-found.gather(1, ids[0, len(suffix) :, None]).mean()), found[0]


def _squeeze(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip().lower()


def plan(
    items: Sequence[Item], methods: Sequence[str], budgets: Sequence[int]
) -> Iterator[tuple[Item, str, int | None]]:
    """Name every measurement; bounds have no budget."""
    for item in items:
        for method in methods:
            for budget in [None] if method in BOUNDS else budgets:
                yield item, method, budget


def facts(model: str, device: torch.device, dtype: str = "float32") -> dict[str, Any]:
    """What the numbers depend on besides the item."""
    if device.type == "cuda" and dtype == "float32" and torch.backends.cuda.matmul.allow_tf32:
        dtype = "float32 (TF32 products)"
    try:
        commit = subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):  # not a checkout, or no git
        commit = "unknown"
    return {
        "model": model,
        "version": __version__,
        "commit": commit,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "machine": machine_name(device),
        "dtype": dtype,
    }


def machine_name(device: torch.device) -> str:
    """The GPU's name, or the processor's kind."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read results, line by line; a missing file has none."""
    if path.exists():
        yield from map(json.loads, path.read_text(encoding="utf-8").splitlines())


def run_all(
    todo: Iterator[tuple[Item, str, int | None]],
    make_bench: Callable[[Item], Bench],
    known: Mapping[str, Any],
    done: Set[tuple[str, str, int | None]],
    out: TextIO,
) -> None:
    """Measure what is not measured yet, and write it down at once."""
    bench = None
    for item, method, part in todo:
        if (item.id, method, part) in done:
            continue
        if bench is None or bench.item is not item:
            bench = make_bench(item)
        budget = part and max(1, len(bench.inputs.tokens) // part)
        row = {
            "id": item.id,
            "task": item.task,
            "bucket": item.bucket,
            "method": method,
            "budget": part,
            **bench.run(method, budget),
            **known,
        }
        out.write(json.dumps(row) + "\n")
        out.flush()


def main() -> None:
    """Measure what is not measured yet."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", help="those of all files unless named")
    parser.add_argument("--buckets", nargs="+", default=["2k"])
    parser.add_argument("--items", type=int, default=10, help="per task and bucket")
    parser.add_argument("--skip", type=int, default=0, help="items to leave out before them")
    parser.add_argument("--budgets", nargs="+", type=int, default=BUDGETS, help="parts kept: 1/N")
    parser.add_argument(
        "--methods", nargs="+", default=METHODS, choices=(*METHODS, *ABLATIONS, "ablations")
    )
    parser.add_argument("--answers", action="store_true", help="write short answers, too")
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=DTYPES)
    parser.add_argument(
        "--feed", type=int, default=CHUNK, help="tokens at once, where that changes no result"
    )
    parser.add_argument("--out", type=Path, default=RAW)
    options = parser.parse_args()

    known_tasks = tasks_of(options.data)
    tasks = options.tasks or known_tasks
    if unknown := set(tasks) - set(known_tasks):
        parser.error(f"there is no {', '.join(sorted(unknown))}.jsonl in {options.data}")
    chosen = slice(options.skip, options.skip + options.items)
    found = {
        bucket: [load_items(options.data, task, bucket)[chosen] for task in tasks]
        for bucket in options.buckets
    }
    for bucket, by_task in found.items():
        if not any(by_task):
            parser.error(f"{options.data} has no such items of the length {bucket!r}")
    engine = FinchEngine.from_pretrained(options.model, device=options.device, dtype=options.dtype)
    encoder = SentenceTransformerEncoder(device=options.device)
    known = facts(
        Path(options.model).name.removesuffix(".gguf"), engine.backbone.device, options.dtype
    )
    done = {
        (row["id"], row["method"], row["budget"])
        for row in read_lines(options.out)
        if row["model"] == known["model"]
    }
    methods = ABLATIONS if "ablations" in options.methods else options.methods
    make_bench = partial(Bench, engine, encoder, answer=options.answers, feed=options.feed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", encoding="utf-8") as out:
        for bucket, by_task in found.items():
            for number in range(max(map(len, by_task))):  # all tasks grow together
                items = [items[number] for items in by_task if number < len(items)]
                run_all(plan(items, methods, options.budgets), make_bench, known, done, out)
                print(f"{bucket}: {number + 1} of {options.items} items per task", flush=True)


if __name__ == "__main__":
    main()
