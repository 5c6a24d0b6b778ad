"""Quality against the length of the documents at a fixed budget, far beyond the model's window.

    python -m benchmarks.long_sets --data FOLDER --pack

Between the documents of a question of 4k tokens come documents of other questions of the same task,
in places that the question's id decides, until a length is reached. A longer set has all documents
of the shorter one. None of those that are added holds a right answer. Every method keeps the same
number of tokens, whatever the length; `truncate` the first and the last ones, as servers do with a
prompt that is too long. Per item, length and method one line goes to `--raw`, with the numbers of
`benchmarks.quality`; a run that was interrupted continues. FOLDER is as there.
"""

import argparse
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.items import Item, load_items
from benchmarks.quality import CACHED, CHUNK, RESULTS, Bench, facts, read_lines
from benchmarks.quality_report import paired_interval
from benchmarks.quality_results import Row, Rows, read_buckets
from benchmarks.resumable import append_lines, make_parser, run
from finch_integrations import FinchEngine, PassageStore
from finch_integrations.retrieval.encoders import SentenceTransformerEncoder
from finch_integrations.types import Document

TASKS = ("nq_multidoc", "multihop", "squad_long", "science_long", "needle")
BASE, LENGTHS = 4, (4, 16, 32, 64)  # thousands of 1,024 tokens
BUDGET = 2048
OURS = "default"
METHODS = (
    *("none", OURS),
    *("rag-hybrid-titled", "rag-hybrid-around", "rag-hybrid-both"),
    *("truncate", "finch"),
)
RAW, PACKED = Path(".benchmarks") / "long_sets.jsonl", RESULTS / "long_sets.json"
# Room for what is read of one item at all lengths.
_STORE = 3 * 2**30


class RememberingEncoder(SentenceTransformerEncoder):
    """Encodes a text once: sets of different lengths and questions share most of theirs."""

    def __init__(self) -> None:
        super().__init__(device="cpu")
        self._known: dict[str, np.ndarray] = {}

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """As the base class does."""
        if new := [text for text in dict.fromkeys(texts) if text not in self._known]:
            self._known.update(zip(new, super().encode_documents(new), strict=True))
        return np.stack([self._known[text] for text in texts])


def lengthen(
    item: Item, pool: Sequence[Document], tokens: int, count: Callable[[str], int]
) -> Item:
    """Put other documents between those of an item, as many as fit.

    Args:
        item: The question; its documents stay in their order.
        pool: Documents to add. One with a title of the item's own, or that holds one of its
            answers, is left out.
        tokens: The most that all documents have together.
        count: Tokens of a text.

    Raises:
        SystemExit: The pool has too few documents.
    """
    answers = [answer.lower() for answer in item.answers]
    titles = {document.title for document in item.documents}
    used = sum(_size(document, count) for document in item.documents)
    added: list[Document] = []
    for document in sorted(pool, key=lambda document: _place(item.id, "which", document)):
        text = document.text.lower()
        if document.title in titles or any(answer in text for answer in answers):
            continue
        if used + _size(document, count) > tokens:
            break
        used += _size(document, count)
        added.append(replace(document, id=f"other-{len(added)}"))
    else:
        raise SystemExit(f"{item.task} has documents of {used:,} tokens; {tokens:,} are needed")
    places = [(number + 0.5) / len(item.documents) for number in range(len(item.documents))]
    places += [_place(item.id, "where", document) for document in added]
    documents = [*item.documents, *added]
    order = sorted(range(len(documents)), key=places.__getitem__)
    return replace(item, documents=tuple(documents[number] for number in order))


def _size(document: Document, count: Callable[[str], int]) -> int:
    return count(f"# {document.title}\n\n{document.text}\n\n")


def _place(item: str, what: str, document: Document) -> float:
    """A number from 0 to 1 that looks random and is the same in every run."""
    found = hashlib.sha256(f"{item} {what} {document.title} {document.text}".encode()).digest()
    return int.from_bytes(found[:8]) / 2**64


def pool_of(item: Item, items: Sequence[Item]) -> list[Document]:
    """Every document of other questions once; one question may have another answer elsewhere."""
    others = [other for other in items if other.question != item.question]
    return list({d.text: d for other in others for d in other.documents}.values())


def plan(
    items: int, found: Sequence[Sequence[Item]], lengths: Sequence[int], methods: Sequence[str]
) -> Iterator[tuple[Item, Sequence[Item], int, str]]:
    """Name every measurement: an item of each task in turn, at all lengths, with all methods.

    Yields:
        The item, all items of its task, the length and the method.
    """
    for number in range(items):
        for of_task in (of_task for of_task in found if number < len(of_task)):
            for length, method in product(lengths, methods):
                # No documents have no length.
                if method != "none" or length == lengths[0]:
                    yield of_task[number], of_task, length, method


def measure(options: argparse.Namespace) -> None:
    """Append what is not measured yet."""
    store = PassageStore(memory_bytes=_STORE)
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype, store=store)
    encoder = RememberingEncoder()
    known = facts("embedded", engine.backbone.device, options.dtype)
    done = {(row["id"], row["bucket"], row["method"]) for row in read_lines(options.raw)}
    found = [load_items(options.data, task, f"{BASE}k") for task in options.tasks]
    for item, items, length, method in plan(options.items, found, options.lengths, options.methods):
        bucket = f"{length}k"
        if (item.id, bucket, method) in done:
            continue
        if length > BASE:
            pool = pool_of(item, items)
            longer = lengthen(item, pool, length * 1024, engine.count_tokens)
        else:
            longer = item
        started = time.process_time()
        bench = Bench(engine, encoder, longer, answer=False, feed=CHUNK, compare=False)
        scores = bench.run(method, BUDGET)
        row = {"id": item.id, "task": item.task, "bucket": bucket, "method": method}
        append_lines(options.raw, [{**row, "budget": BUDGET, **scores, **known}])
        took = time.process_time() - started
        print(f"{item.id} {bucket} {method} {scores['nll']:.2f} {took:.0f} s", flush=True)


def gains(by_length: Mapping[str, Rows], method: str) -> dict[str, np.ndarray]:
    """How much likelier a method makes the right answer than no documents, in nats per token.

    Args:
        by_length: Results of every length.
        method: Its name.

    Returns:
        Length -> a number per item that all methods of that length have, in one order. Lengths
        where this method lacks some of them are left out.
    """
    nothing = {i: row for rows in by_length.values() for i, row in _of_method(rows, "none").items()}
    found = {}
    for length, rows in by_length.items():
        ids = shared_ids(rows)
        own = _of_method(rows, method)
        if ids and set(ids) <= set(own):
            found[length] = np.array([nothing[i]["nll"] - own[i]["nll"] for i in ids])
    return found


def shared_ids(rows: Rows) -> list[str]:
    """The items that were measured with all methods of a length, but for the slow ones."""
    methods = {method for _, method, _ in rows} - {"none", *CACHED}
    return sorted(set.intersection(*(set(_of_method(rows, method)) for method in methods)))


def compare(by_length: Mapping[str, Rows]) -> list[list[str]]:
    """Per length and method: gain, answers kept, and the distance from the default.

    Each method is compared on the items that it shares with the default.
    """
    nothing = {i: row for rows in by_length.values() for i, row in _of_method(rows, "none").items()}
    table = []
    for length, rows in by_length.items():
        ours = _of_method(rows, OURS)
        for method in (name for name in METHODS if _of_method(rows, name) and name != "none"):
            own = _of_method(rows, method)
            ids = sorted(set(own) & set(ours))
            gain = np.mean([nothing[i]["nll"] - own[i]["nll"] for i in ids])
            change = np.array([own[i]["nll"] - ours[i]["nll"] for i in ids])
            low, high = paired_interval(change)
            known = all("survives" in own[i] for i in ids)
            table.append(
                [
                    f"{length} ({len(ids)})",
                    method,
                    f"{gain:.2f}",
                    f"{sum(own[i]['survives'] for i in ids)}" if known else "",
                    f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]" if method != OURS else "",
                ]
            )
    return table


def _of_method(rows: Rows, method: str) -> dict[str, Row]:
    """A method's rows of all tasks, by item."""
    return {i: row for (_, name, _), of in rows.items() if name == method for i, row in of.items()}


def main() -> None:
    """Measure what is not measured yet, pack it, and print the table."""
    parser = make_parser(__doc__, RAW, PACKED)
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--lengths", nargs="+", type=int, default=LENGTHS, help="in 1,024 tokens")
    parser.add_argument("--items", type=int, default=2, help="per task")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    options = parser.parse_args()
    run(options, measure, PACKED)
    for cells in compare(read_buckets(PACKED)):
        print(" | ".join(cells))


if __name__ == "__main__":
    main()
