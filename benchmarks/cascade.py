"""What is lost when the model does not read everything: how much, and chosen by what.

    python -m benchmarks.cascade --data FOLDER --pack

Every segment is read once; the choice of every variant follows from the same likelihoods, so that
variants differ in nothing else. A variant is named by what chooses the segments to read and by how
many tokens are read: a share of all (`1/2`) or a multiple of what is kept (`x3`).

    words           BM25 of the segment and of its neighbourhood (`read_size`)
    meaning         and the similarity of their embeddings to the question
    meaning, kept   and these also count in the final score
    layer 12        and the question's likelihood after 12 of 30 layers (final norm and head),
                    for which everything must be read to that depth

`nothing` is the words alone, `everything` reads all. FOLDER is as for `benchmarks.quality`; a run
that was interrupted continues where it stopped. `benchmarks.cascade_report` has the tables.
"""

import argparse
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.cascade_report import PACKED
from benchmarks.items import Item, load_items
from benchmarks.quality import Bench, facts, read_lines
from benchmarks.resumable import append_lines, make_parser, run
from finch_integrations import FinchEngine
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache
from finch_integrations.engine.methods.likelihood import (
    combine,
    headed_segments,
    shortlist,
)
from finch_integrations.engine.methods.passages import WordMatcher, groups_of, texts_of
from finch_integrations.engine.passage_reader import PassageReader
from finch_integrations.engine.scoring import standardize
from finch_integrations.engine.segments import Segment, split_segments
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder

TASKS = ("squad_long", "science_long", "nq_multidoc", "multihop", "needle")
# Bucket -> every how many rounds an item of each task is measured.
BUCKETS = {"2k": 1, "4k": 1, "8k": 1, "16k": 2}
BUDGETS = (8, 32)
DEPTH = 12
SIZES = ("1/2", "3/8", "1/4", "x3", "x2")
# What chooses -> the sizes that are tried.
STAGES = {
    "words": SIZES,
    "meaning": SIZES,
    "meaning, kept": ("3/8", "x3"),
    "layer 12": ("3/8", "x3"),
}
RAW = Path(".benchmarks") / "cascade.jsonl"


class ShallowBackbone(Backbone):
    """Also reads the likelihoods off one layer in the middle, with the final norm and head."""

    shallow: Tensor

    def log_likelihoods(
        self, ids: Sequence[int], cache: KVCache, lengths: Tensor, *, rows: int
    ) -> Tensor:
        """As the base class does; the middle layer's are in `shallow`, [B]."""
        seen: list[Tensor] = []
        decoder = self.model.base_model
        layer = decoder.layers[DEPTH - 1]
        hook = layer.register_forward_hook(
            lambda _module, _args, output: seen.append(
                (output[0] if isinstance(output, tuple) else output)[:, -rows:]
            )
        )
        try:
            deep = super().log_likelihoods(ids, cache, lengths, rows=rows)
        finally:
            hook.remove()
        wanted = torch.tensor(ids[-rows:])[:, None]
        with torch.inference_mode():
            found = [
                self.model.lm_head(decoder.norm(states)).float().log_softmax(-1).gather(1, wanted)
                for states in seen[0]
            ]
        self.shallow = torch.stack(found)[..., 0].mean(dim=1)
        return deep


class CascadeBench(Bench):
    """One item: rated once, chosen in every way."""

    _full = None  # not needed, and as dear as all the rest

    def choose_in_all_ways(self, budget: int) -> dict[str, float]:
        """Put every variant's scores where `run` finds them.

        Returns:
            Variant -> the share of the document tokens that it reads.
        """
        total = len(self.inputs.tokens)
        everything = torch.ones(len(self.segments), dtype=torch.bool)
        chosen = {
            "nothing": (self.words, 0.0),
            "everything": (combine(self.deep, self.words, everything), 1.0),
            "everything, meaning, kept": (
                combine(self.deep, self.words + self.meaning, everything),
                1.0,
            ),
        }
        free = {
            "words": self.words,
            "meaning": self.words + self.meaning,
            "meaning, kept": self.words + self.meaning,
            "layer 12": combine(self.shallow, self.words, everything),
        }
        for stage, sizes in STAGES.items():
            for size in sizes:
                tokens = int(size[1:]) * budget if size[0] == "x" else int(Fraction(size) * total)
                read = shortlist(self.segments, free[stage], min(total, tokens))
                final = free[stage] if stage == "meaning, kept" else self.words
                share = sum(len(s) for s, taken in zip(self.segments, read, strict=True) if taken)
                name = f"{stage} {size}"
                chosen[name] = (combine(self.deep, final, read), share / total)
        self._ranked = {name: (self.segments, scores) for name, (scores, _) in chosen.items()}
        return {name: share for name, (_, share) in chosen.items()}

    def read(self) -> None:
        """Compute all scores that the variants are made of, [segments] each."""
        documents, frame = self.inputs.tokens, self.inputs.frame
        self.segments: list[Segment] = split_segments(documents, shortest=32, longest=96)
        _, around = groups_of(self.segments)
        question = frame.question
        assert self.encoder is not None
        self.words = WordMatcher(documents, self.segments).both(question)
        vectors = torch.as_tensor(self.encoder.encode_documents(texts_of(documents, self.segments)))
        # A neighbourhood's vector is the mean of its segments': nothing is encoded twice.
        means = torch.stack([vectors[first:end].mean(dim=0) for first, end in around])
        asked = torch.as_tensor(self.encoder.encode_query(question))
        similar = [standardize(v @ asked) for v in (vectors, torch.nn.functional.normalize(means))]
        self.meaning = similar[0] + similar[1]
        backbone = self.backbone
        assert isinstance(backbone, ShallowBackbone)
        self.shallow = torch.full((len(self.segments),), torch.nan)

        def on_batch(numbers: Sequence[int], fresh: bool, kv_tokens: int) -> None:
            self.shallow[list(numbers)] = backbone.shallow

        reader = PassageReader(
            backbone, frame.prefix, backbone.encode(frame.prefix, self._feed), None
        )
        (self.deep,) = reader.likelihoods(
            headed_segments(documents, self.segments, longest=self._feed),
            [frame.window],
            torch.ones(1, len(self.segments), dtype=torch.bool),
            room=self._feed,
            on_batch=on_batch,
        )


def plan(data: Path, rounds: int) -> Iterator[Item]:
    """Items of all tasks and lengths in turn, so that an early end leaves balanced data."""
    items = {(bucket, task): load_items(data, task, bucket) for bucket in BUCKETS for task in TASKS}
    for number in range(rounds):
        for bucket, every in BUCKETS.items():
            for task in TASKS:
                place, rest = divmod(number, every)
                if not rest and place < len(items[bucket, task]):
                    yield items[bucket, task][place]


def measure(options: argparse.Namespace) -> None:
    """Append what is not measured yet."""
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype)
    loaded = engine.backbone
    engine._backbone = ShallowBackbone(loaded.model, loaded.tokenizer, loaded.name)
    encoder = SentenceTransformerEncoder(device="cpu")
    known = facts("embedded", loaded.device, options.dtype)
    done = {row["id"] for row in read_lines(options.raw)}
    for item in plan(options.data, options.rounds):
        if item.id in done:
            continue
        bench = CascadeBench(engine, encoder, item, answer=False, feed=1024)
        bench.read()
        lines = []
        for part in BUDGETS:
            budget = max(1, len(bench.inputs.tokens) // part)
            known_choices: dict[tuple[int, ...], dict[str, Any]] = {}
            for name, share in bench.choose_in_all_ways(budget).items():
                kept = tuple(bench._kept(name, budget))
                if kept not in known_choices:
                    known_choices[kept] = bench.run(name, budget)
                lines.append(
                    {
                        "id": item.id,
                        "task": item.task,
                        "bucket": item.bucket,
                        "method": name,
                        "budget": part,
                        **known_choices[kept],
                        "read": share,
                        **known,
                    }
                )
        append_lines(options.raw, lines)
        print(item.id, flush=True)


def main() -> None:
    """Measure, and pack what was measured."""
    parser = make_parser(__doc__, RAW, PACKED)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    run(options, measure, PACKED)


if __name__ == "__main__":
    main()
