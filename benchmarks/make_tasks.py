"""Make the quality benchmark's tasks from public datasets: one `<task>.jsonl` for each.

    pip install -e '.[benchmarks]'
    python -m benchmarks.make_tasks --out FOLDER

The same questions (`qid`) come at growing length: a longer item has the documents of the shorter
one and more. The documents fill 15/16 of a bucket, except for at most one document (the rest is for
the question and the chat template), each of at most 480 tokens. Everything follows from the seed.

    squad_long    SQuAD 2.0: an article around the paragraph that answers; then other articles
    nq_multidoc   Natural Questions: the passage that answers, among those of other questions that
                  BM25 ranks best
    science_long  COVID-QA: a paper around the piece that answers; then other papers
    multihop      HotpotQA: two pages, among the question's distractors; then other questions'
    kv_lookup     made up: keys and values
    needle        made up: facts between the sentences of SQuAD's paragraphs

The texts are Wikipedia's (CC BY-SA) and, of COVID-QA, CC BY papers'; the annotations are CC BY-SA
4.0, of Natural Questions CC BY-SA 3.0, of COVID-QA Apache-2.0. Revisions and columns of the
datasets are as documented; they were not downloaded when this was written.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks import questions
from benchmarks.questions import Page, Question, Row
from finch_integrations.errors import FinchError, InvalidInputError, MissingExtraError

BUCKETS = {f"{size}k": size * 1024 for size in (1, 2, 4, 8, 16, 32)}
TOKENIZER = "HuggingFaceTB/SmolLM2-135M-Instruct"
LONGEST = 480  # tokens of a document, with its title
HUB = "hf://datasets"


@dataclass(frozen=True, slots=True)
class Source:
    """A file of a dataset on the Hugging Face Hub."""

    repository: str
    revision: str
    path: str


SQUAD = Source(
    "rajpurkar/squad_v2",
    "3ffb306f725f7d2ce8394bc1873b24868140c412",
    "squad_v2/validation-00000-of-00001.parquet",
)
# The commit that wrote the parquet file. It is read by name, not through the loading script next to
# it.
COVID = Source(
    "deepset/covid_qa_deepset",
    "b26034a708655e76c45699e50055e0faa01ea205",
    "covid_qa_deepset/train-00000-of-00001.parquet",
)
# No full revision is known: this one is not pinned.
NQ = Source("florin-hf/nq_open_gold", "main", "test_dataset.json")
HOTPOT = Source(
    "hotpotqa/hotpot_qa",
    "1908d6afbbead072334abe2965f91bd2709910ab",
    "distractor/validation-00000-of-00001.parquet",
)


@dataclass(frozen=True, slots=True)
class Task:
    """Where a task's rows come from, and how they become questions under a seed."""

    source: Source | None
    ask: Callable[[Iterable[Row], str], Iterator[Question]]


def _needles(rows: Iterable[Row], seed: str) -> Iterator[Question]:
    articles = questions.squad_articles(rows).values()
    return questions.needle_questions([page for pages in articles for page in pages], seed)


TASKS = {
    "squad_long": Task(SQUAD, questions.squad_questions),
    "nq_multidoc": Task(NQ, questions.nq_questions),
    "science_long": Task(COVID, questions.covid_questions),
    "multihop": Task(HOTPOT, questions.hotpot_questions),
    "kv_lookup": Task(None, lambda rows, seed: questions.registry_questions(seed)),
    "needle": Task(SQUAD, _needles),
}


def make_task(
    task: str,
    rows: Iterable[Row],
    *,
    buckets: Sequence[str],
    items: int,
    seed: int,
    count: Callable[[str], int],
) -> list[dict[str, Any]]:
    """Make the lines of a task: `items` questions, each in every bucket.

    Questions without an answer, or whose gold documents do not contain it, are left out.

    Args:
        task: A name of `TASKS`.
        rows: The rows of its source; nothing is read if it has none.
        buckets: Names of `BUCKETS`.
        items: Number of questions.
        seed: Decides which questions, which documents are added to the gold ones, and in which
            places.
        count: Number of tokens of a text.

    Raises:
        InvalidInputError: The rows have too few questions, or too few documents for a bucket.
    """
    made: list[dict[str, Any]] = []
    done = 0
    for question in TASKS[task].ask(rows, f"{seed} {task}"):
        if done == items:
            break
        if usable(question, count):
            made += grow(task, question, buckets, count)
            done += 1
    if done < items:
        raise InvalidInputError(
            f"{task}: the source has only {done} usable questions, {items} were asked for. "
            "Lower --items"
        )
    return made


def grow(
    task: str, question: Question, buckets: Sequence[str], count: Callable[[str], int]
) -> Iterator[dict[str, Any]]:
    """Make the items of one question, the shortest first.

    Raises:
        InvalidInputError: There are too few documents for a bucket.
    """
    pages = list(question.gold)
    used = sum(_size(page, count) for page in pages)
    texts = {page.text for page in pages}
    more = (p for p in question.others if p.text not in texts and _size(p, count) <= LONGEST)
    page = next(more, None)
    for bucket in sorted(buckets, key=lambda name: BUCKETS[name]):
        room = BUCKETS[bucket] * 15 // 16
        while page is not None and used + _size(page, count) <= room:
            pages.append(page)
            texts.add(page.text)
            used += _size(page, count)
            page = next(more, None)
        if page is None:
            raise InvalidInputError(
                f"{task}: the source has documents of only {used:,} tokens for question "
                f"{question.qid}, {bucket} takes {room:,}. Leave that bucket out of --buckets"
            )
        documents = sorted(pages, key=lambda page: page.place)
        yield {
            "id": f"{task}-{bucket}-{question.qid}",
            "qid": question.qid,
            "task": task,
            "bucket": bucket,
            "question": question.question,
            "documents": [
                {"id": f"d{number:03}", "title": document.title, "text": document.text}
                for number, document in enumerate(documents, start=1)
            ],
            "answers": list(question.answers),
            "gold_doc_ids": [
                f"d{number:03}"
                for number, document in enumerate(documents, start=1)
                if document in question.gold
            ],
        }


def usable(question: Question, count: Callable[[str], int]) -> bool:
    """Whether the gold documents are short enough and say the answer."""
    answers = [answer.lower() for answer in question.answers[:1]]
    told = any(answer in page.text.lower() for answer in answers for page in question.gold)
    return told and all(_size(page, count) <= LONGEST for page in question.gold)


def _size(page: Page, count: Callable[[str], int]) -> int:
    return count(f"# {page.title}\n\n{page.text}\n\n")


def download(source: Source) -> list[Row]:
    """Download one file of a dataset, once: `datasets` keeps it in its cache.

    Raises:
        MissingExtraError: `datasets` is not installed.
    """
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{source.repository} is read with the package datasets, which is not installed. "
            "Install it: pip install -e '.[benchmarks]'"
        ) from error
    kind = {".parquet": "parquet", ".json": "json"}[Path(source.path).suffix]
    file = f"{HUB}/{source.repository}@{source.revision}/{source.path}"
    # A single file has one split, which `datasets` calls train.
    rows: list[Row] = load_dataset(kind, data_files=file, split="train").to_list()
    return rows


def write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    """Write lines of JSON, atomically."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        draft = Path(folder) / "draft"
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        draft.write_text(text, encoding="utf-8")
        os.replace(draft, path)


def token_counter(name: str) -> Callable[[str], int]:
    """Count tokens with the tokenizer of a model of the Hub or of a local folder."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name)
    return cache(lambda text: len(tokenizer(text, add_special_tokens=False).input_ids))


def main() -> None:
    """Write the files of tasks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the files")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--buckets", nargs="+", default=["2k", "4k", "8k", "16k"], choices=BUCKETS)
    parser.add_argument("--items", type=int, default=40, help="questions per task")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tokenizer", default=TOKENIZER, help="what buckets are measured with")
    options = parser.parse_args()

    options.out.mkdir(parents=True, exist_ok=True)
    count = token_counter(options.tokenizer)
    for task in options.tasks:
        source = TASKS[task].source
        try:
            lines = make_task(
                task,
                [] if source is None else download(source),
                buckets=options.buckets,
                items=options.items,
                seed=options.seed,
                count=count,
            )
        except FinchError as error:
            raise SystemExit(str(error)) from error
        write_lines(options.out / f"{task}.jsonl", lines)
        print(f"{task}: {len(lines)} items", flush=True)


if __name__ == "__main__":
    main()
