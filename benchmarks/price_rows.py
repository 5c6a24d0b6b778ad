"""Where the time of a first question goes, and which tokens are fed for it.

    python -m benchmarks.price_rows

The question and the documents are those of `benchmarks.price`, read by default; nothing is kept.
A segment is read under its title and followed by the instruction, so that the model is fed more
tokens than it reads of the documents. Time is the processor's; a padded token costs as much as
another.
"""

import argparse
import json
import platform
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from benchmarks.price import TARGET, TOKENS
from benchmarks.price_work import ROOT, make_documents, make_engine, read_questions
from finch_integrations import PassageStore
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache
from finch_integrations.engine.prompt import build_frame, rating_prompt

OUT = ROOT / "benchmarks" / "results" / "price_rows.json"


class CountingBackbone(Backbone):
    """Counts what is fed to it and how long that takes."""

    def reset(self) -> None:
        """Begin again."""
        self.sequences = self.read = self.padding = self.asked = 0
        self.seconds = {"passages": 0.0, "question": 0.0}

    def read_side_by_side(self, sequences: Sequence[Sequence[int]], cache: KVCache) -> KVCache:
        """As the base class does."""
        began = time.process_time()
        found = super().read_side_by_side(sequences, cache)
        self.seconds["passages"] += time.process_time() - began
        fed = len(sequences) * max(map(len, sequences))
        self.sequences += len(sequences)
        self.read += sum(map(len, sequences))
        self.padding += fed - sum(map(len, sequences))
        return found

    def log_likelihoods(
        self, ids: Sequence[int], cache: KVCache, lengths: Tensor, *, rows: int
    ) -> Tensor:
        """As the base class does."""
        began = time.process_time()
        found = super().log_likelihoods(ids, cache, lengths, rows=rows)
        self.seconds["question"] += time.process_time() - began
        self.asked += len(lengths) * (len(ids) - 1)
        return found


def measure(dtype: str) -> dict[str, Any]:
    """Ask once, in this process.

    Returns:
        Tokens fed and seconds by what they were for; titles and instruction are read with the
        passages, so that these have one time.
    """
    engine = make_engine(argparse.Namespace(shape=None, device="cpu", dtype=dtype))
    loaded = engine.backbone
    documents, _ = make_documents(engine, TOKENS)
    backbone = CountingBackbone(loaded.model, loaded.tokenizer, loaded.name)
    engine._backbone = backbone
    backbone.reset()
    engine.generate(engine.compress(["Warm up. " * 50], "Why?", target_size=20), max_tokens=2)
    engine.store = PassageStore(memory_bytes=0)
    backbone.reset()
    began = time.process_time()
    selection = engine.select(documents, read_questions()[0], target_size=TARGET)
    chosen = time.process_time()
    engine.encode(selection)
    encoding = time.process_time() - chosen
    window = build_frame(loaded.tokenizer, rating_prompt(selection.prompt)).window
    # Its last token is fed with the question: the question's first one is predicted from there.
    head = len(window.ids) - window.length - 1
    return {
        "dtype": dtype,
        "segments": backbone.sequences,
        "tokens": {
            "passages": selection.stats.read_tokens,
            "titles": backbone.read - selection.stats.read_tokens - backbone.sequences * head,
            "instruction": backbone.sequences * head,
            "padding": backbone.padding,
            "question": backbone.asked,
            "encoding": selection.stats.kept_tokens,
        },
        "seconds": {
            **backbone.seconds,
            "encoding": encoding,
            "words and all else": chosen - began - sum(backbone.seconds.values()),
        },
    }


def main() -> None:
    """Measure and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--dtypes", nargs="+", default=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    report = {
        "date": date.today().isoformat(),
        "model": "SmolLM2-135M-Instruct",
        "document_tokens": TOKENS,
        "target_size": TARGET,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "runs": [measure(dtype) for dtype in options.dtypes],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
