"""What a follow-up is to be rated under: how often the answer is kept, by what is fed with it.

    python -m benchmarks.follow_ups --data FOLDER
    python -m benchmarks.follow_ups --report

FOLDER is as for `benchmarks.quality`. Every item is asked twice as the second turn of a chat. After
a question on other documents, the item's own question needs no history, which could only mislead
("unrelated"). After the item's own question, "Are you sure?" needs it ("dependent").

    none      the question alone
    history   the earlier turn before the documents, as the model that answers sees it
    context   the question before, in front of the question; only the latter's likelihood counts
    joint     likelihood and words of both questions together, which is what the engine does

1/8 of the tokens are kept and 3/8 are read, chosen by the words of the same question.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.items import Item, load_items
from benchmarks.quality import RESULTS
from finch_integrations import FinchEngine, PassageStore
from finch_integrations.engine.methods.likelihood import combine, headed_segments, shortlist
from finch_integrations.engine.methods.passages import LONGEST, SHORTEST, WordMatcher, choose
from finch_integrations.engine.model_input import make_input
from finch_integrations.engine.passage_reader import PassageReader
from finch_integrations.engine.prompt import Frame, Prompt, QuestionWindow, build_frame
from finch_integrations.engine.segments import split_segments
from finch_integrations.types import Message

TASKS = ("squad_long", "nq_multidoc", "multihop", "science_long", "needle")
BUCKET, CHUNK = "4k", 1024
CHECK = "Are you sure? Please check that again."


def measure(engine: FinchEngine, item: Item, before: tuple[str, str], question: str) -> list[str]:
    """The variants that keep one of the item's answers; `before` is the earlier turn."""
    backbone = engine.backbone
    history = (
        Message(role="user", content=before[0]),
        Message(role="assistant", content=before[1]),
    )
    inputs = make_input(backbone.tokenizer, item.documents, Prompt(question=question))
    tokens = inputs.tokens
    segments = split_segments(tokens, shortest=SHORTEST, longest=LONGEST)
    passages = headed_segments(tokens, segments, longest=CHUNK)
    matcher = WordMatcher(tokens, segments)
    store = PassageStore()

    def frame(asked: str, turns: tuple[Message, ...] = ()) -> Frame:
        return build_frame(backbone.tokenizer, Prompt(question=asked, history=turns))

    both = f"{before[0]}\n{question}"
    alone, joint, chat = frame(question), frame(both), frame(question, history)
    context = QuestionWindow(joint.window.ids, alone.window.length)
    variants: Mapping[str, tuple[Frame, QuestionWindow, str]] = {
        "none": (alone, alone.window, question),
        "history": (chat, chat.window, question),
        "context": (joint, context, both),
        "joint": (joint, joint.window, both),
    }
    kept = []
    for name, (around, window, words_of) in variants.items():
        words = matcher.both(words_of)
        read = shortlist(segments, words, 3 * len(tokens) // 8)
        prefix = backbone.encode(around.prefix, CHUNK)
        (found,) = PassageReader(backbone, around.prefix, prefix, store).likelihoods(
            passages, [window], read[None], room=CHUNK, on_batch=lambda *_: None
        )
        chosen = choose(segments, combine(found, words, read), len(tokens) // 8)
        text = " ".join(
            tokens.text_between(segment.start, segment.end)
            for segment in sorted(chosen, key=lambda segment: segment.start)
        ).lower()
        if any(answer.lower() in text for answer in item.answers):
            kept.append(name)
    return kept


def rows(data: Path, count: int) -> Iterator[dict[str, Any]]:
    """Measure so many items of every task."""
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=torch.bfloat16)
    items = {task: load_items(data, task, BUCKET) for task in TASKS}
    for number in range(count):
        for task in TASKS:
            item, other = (items[task][n % len(items[task])] for n in (number, number + 7))
            turns = {
                "unrelated": ((other.question, other.answers[0]), item.question),
                "dependent": ((item.question, "I do not know."), CHECK),
            }
            for kind, (before, question) in turns.items():
                kept = measure(engine, item, before, question)
                yield {"id": item.id, "kind": kind, "kept": kept}


def main() -> None:
    """Measure, or print how many answers each variant keeps."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--items", type=int, default=8, help="of each task")
    parser.add_argument("--out", type=Path, default=RESULTS / "follow_ups.json")
    parser.add_argument("--report", action="store_true")
    options = parser.parse_args()
    if not options.report:
        measured = []
        for row in rows(options.data, options.items):
            print(row, flush=True)
            measured.append(row)
        lines = ",\n".join(json.dumps(row) for row in measured)
        options.out.write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    found = json.loads(options.out.read_text("utf-8"))
    for kind in ("unrelated", "dependent"):
        own = [row["kept"] for row in found if row["kind"] == kind]
        counts = {
            name: sum(name in kept for kept in own)
            for name in ("none", "history", "context", "joint")
        }
        print(f"{kind}, of {len(own)}: {counts}")


if __name__ == "__main__":
    main()
