"""Whether passages that are merely alike should count as copies, as those that say the same do.

    python -m benchmarks.near_copies --data FOLDER

Every document comes twice, the second time with small edits (articles and fillers left out, "and"
written in another way), so that hardly a sentence is the same; and once, for what a rule loses
where nothing is a copy. Passages are ranked by their words alone, so that no model reads anything
and all items can be measured. `exact` is the engine's rule: a passage is a copy if better ones have
its every sentence. By the others it is also one if so large a share of its different words is in
one better passage and no number is in it that is not there, too. Copies are taken last.

Of 1/8 of the tokens kept: how often an answer is in them, and the share that is in both versions of
the documents. FOLDER is as for `benchmarks.quality`.
"""

import argparse
import json
import random
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.cascade import TASKS
from benchmarks.items import Item, load_items
from benchmarks.quality import RESULTS, facts
from benchmarks.quality_report import paired_interval
from finch_integrations import FinchEngine
from finch_integrations.engine.methods.copies import demote_copies, sentences_of
from finch_integrations.engine.methods.passages import WordMatcher, take_best
from finch_integrations.engine.model_input import make_input
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.segments import split_segments
from finch_integrations.words import words

BUCKET, PART = "2k", 8
SHARES = (1.0, 0.9, 0.8, 0.7)
RESULT = RESULTS / "near_copies.json"
_LEFT_OUT = re.compile(r"\b(?:the|an?|also|very|however|that|which|only|just)\b ", re.I)


def edit(text: str, seed: int) -> str:
    """Leave out some articles and fillers, and write "and" in another way."""
    draw = random.Random(seed)
    text = _LEFT_OUT.sub(lambda found: "" if draw.random() < 0.4 else found[0], text)
    return re.sub(r"\band\b", lambda _: draw.choice(["and", "as well as"]), text)


def doubled(item: Item) -> Item:
    """The item with an edited copy of every document after all originals."""
    copies = [
        replace(document, id=f"{document.id}-again", text=edit(document.text, seed))
        for seed, document in enumerate(item.documents)
    ]
    return replace(item, documents=(*item.documents, *copies))


def demote_alike(scores: Tensor, texts: Sequence[str], share: float) -> Tensor:
    """Put segments after all others whose words are nearly all in a better one."""
    bags = [frozenset(words(text)) for text in texts]
    numbers = [frozenset(word for word in bag if any(map(str.isdigit, word))) for bag in bags]
    better: list[int] = []
    alike = torch.zeros(len(scores), dtype=torch.bool)
    for number in scores.sort(descending=True, stable=True).indices.tolist():
        alike[number] = any(
            len(bags[number] & bags[other]) >= share * len(bags[number])
            and numbers[number] <= numbers[other]
            for other in better
        )
        better.append(number)
    return torch.where(alike, scores - (scores.max() - scores.min() + 1), scores)


def choose_by(engine: FinchEngine, item: Item) -> dict[str, tuple[bool, float]]:
    """Rule -> whether an answer is kept, and the share of the kept words that is kept twice."""
    prompt = Prompt(question=item.question)
    documents = make_input(engine.backbone.tokenizer, item.documents, prompt).tokens
    segments = split_segments(documents, shortest=32, longest=96)
    matcher = WordMatcher(documents, segments)
    free = demote_copies(matcher.both(item.question), sentences_of(matcher.texts))
    ranked = {"exact": free} | {str(s): demote_alike(free, matcher.texts, s) for s in SHARES}
    found = {}
    for rule, scores in ranked.items():
        kept = take_best(segments, scores, max(1, len(documents) // PART))
        texts = [documents.text_between(part.start, part.end) for part in kept]
        whole = " ".join(" ".join(texts).lower().split())
        survives = any(" ".join(answer.lower().split()) in whole for answer in item.answers)
        before, again, total = set[str](), 0, 0
        for text in texts:
            own = words(text)
            total += len(own)
            again += len(own) if len(set(own) & before) >= 0.8 * len(set(own)) else 0
            before |= set(own)
        found[rule] = survives, again / max(1, total)
    return found


def table(rows: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Per rule, with the documents twice and once: answers kept, and what is said again."""
    lines = []
    for rule in rows[0]["twice"]:
        cells = [rule]
        for way in ("twice", "once"):
            kept = np.array([row[way][rule][0] for row in rows], dtype=float)
            change = kept - np.array([row[way]["exact"][0] for row in rows], dtype=float)
            low, high = paired_interval(change)
            again = np.mean([row[way][rule][1] for row in rows])
            paired = "" if rule == "exact" else f" ({change.mean():+.1%} [{low:+.1%}, {high:+.1%}])"
            cells += [f"{kept.mean():.1%}{paired}", f"{again:.0%}"]
        lines.append(cells)
    return lines


def main() -> None:
    """Measure all items, write the results down and show them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    engine = FinchEngine.from_pretrained("embedded", device="cpu")
    rows = [
        {
            "id": item.id,
            "twice": choose_by(engine, doubled(item)),
            "once": choose_by(engine, item),
        }
        for task in TASKS
        for item in load_items(options.data, task, BUCKET)
    ]
    known = facts("embedded", engine.backbone.device)
    report = {"facts": known, "bucket": BUCKET, "part": PART, "items": len(rows)}
    report["rows"] = table(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    for cells in table(rows):
        print(" | ".join(cells))


if __name__ == "__main__":
    main()
