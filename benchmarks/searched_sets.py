"""Make the quality benchmark's tasks from one searched collection: `searched_<subtask>.jsonl`.

    python -m benchmarks.searched_sets --questions corpus_qa.jsonl --documents corpus_qa.docs.jsonl
        --leave-out FOLDER --out FOLDER

A question's documents are those that hybrid retrieval finds first for it, in that order, as many as
fit a bucket: what an application would give to the model. Documents that answer it and were not
found come last. Files are as for `benchmarks.retrieval`; questions need `answers`, too. Questions
that the task files of `--leave-out` have are left out. So are those whose documents are too long or
do not say the answer; they are named.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.items import tasks_of
from benchmarks.make_tasks import BUCKETS, TOKENIZER, grow, token_counter, usable, write_lines
from benchmarks.questions import Page, Question
from benchmarks.retrieval import CachedEncoder, found, read_documents, read_lines
from finch_integrations import Document, FinchError
from finch_integrations.retrieval import HybridRetriever
from finch_integrations.retrieval.encoders import as_encoder

# Chunks: more than fit the longest bucket.
_FIND = 800


def questions_of(
    rows: Sequence[dict[str, Any]], documents: Sequence[Document], rank: Callable[[str], list[str]]
) -> Iterator[tuple[str, Question]]:
    """Turn rows into questions over the documents that were ranked for them.

    Args:
        rows: With `qid`, `subtask`, `question`, `answers` and `gold_doc_ids`.
        documents: The collection.
        rank: The ids of the documents that are found for a question, the best first.

    Yields:
        Subtask and question.
    """
    by_id = {document.id: document for document in documents}
    for row in rows:
        ranking = rank(row["question"])
        places = {id: place for place, id in enumerate(ranking)}

        def page_of(id: str, places: dict[str, int] = places) -> Page:
            document = by_id[id]
            return Page(document.text, document.title or "", places.get(id, len(places)))

        yield (
            row["subtask"],
            Question(
                qid=row["qid"],
                question=row["question"],
                answers=tuple(row["answers"]),
                gold=tuple(map(page_of, row["gold_doc_ids"])),
                others=map(page_of, ranking),
            ),
        )


def questions_in(folder: Path) -> set[str]:
    """The questions of all lines that are items; those about a collection have no documents."""
    rows = (row for task in tasks_of(folder) for row in read_lines(folder / f"{task}.jsonl"))
    return {_plain(row["question"]) for row in rows if isinstance(row.get("documents"), list)}


def _plain(question: str) -> str:
    return question.strip().lower()


def main() -> None:
    """Write the files of tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--documents", type=Path, required=True)
    parser.add_argument("--leave-out", type=Path, help="folder of task files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--buckets", nargs="+", default=["2k", "4k", "8k", "16k"], choices=BUCKETS)
    parser.add_argument("--encoder", default="embedded")
    parser.add_argument("--cache", type=Path, help=".npz file that keeps vectors between runs")
    parser.add_argument("--tokenizer", default=TOKENIZER, help="what buckets are measured with")
    options = parser.parse_args()

    seen = questions_in(options.leave_out) if options.leave_out else set()
    rows = [row for row in read_lines(options.questions) if _plain(row["question"]) not in seen]
    documents = read_documents(options.documents)
    known = {document.id for document in documents}
    for row in rows:
        if strange := set(row["gold_doc_ids"]) - known:
            raise SystemExit(
                f"{options.questions}: {row['qid']} is answered by {', '.join(sorted(strange))}, "
                f"and {options.documents} has no such id. Name the questions' own documents"
            )
    encoder = CachedEncoder(as_encoder(options.encoder), options.cache)
    retriever = HybridRetriever.from_documents(documents, encoder=encoder)
    encoder.save()

    count = token_counter(options.tokenizer)
    lines: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for subtask, question in questions_of(
        rows, documents, lambda text: found(retriever, text, {}, _FIND)
    ):
        if not usable(question, count):
            print(f"{question.qid} is left out: its documents are too long, or lack the answer")
            continue
        try:
            lines[subtask] += grow(f"searched_{subtask}", question, options.buckets, count)
        except FinchError as error:
            raise SystemExit(str(error)) from error
    if not lines:
        raise SystemExit(f"{options.questions} has no questions left: nothing was written")
    options.out.mkdir(parents=True, exist_ok=True)
    for subtask, of in lines.items():
        write_lines(options.out / f"searched_{subtask}.jsonl", of)
        print(f"searched_{subtask}: {len(of)} items", flush=True)


if __name__ == "__main__":
    main()
