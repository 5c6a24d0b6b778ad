"""The questions that are measured, from a folder of task files."""

import json
from dataclasses import dataclass
from pathlib import Path

from finch_integrations.documents import prepare_documents
from finch_integrations.types import Document


@dataclass(frozen=True, slots=True)
class Item:
    """One question over its documents."""

    id: str
    task: str
    bucket: str
    question: str
    documents: tuple[Document, ...]
    answers: tuple[str, ...]
    gold: frozenset[str]


def tasks_of(folder: Path) -> list[str]:
    """The tasks that a folder has files of; without any, the program ends and says so."""
    if not (tasks := sorted(path.stem for path in folder.glob("*.jsonl"))):
        raise SystemExit(f"there are no task files (*.jsonl) in {folder}")
    return tasks


def load_items(folder: Path, task: str, bucket: str) -> list[Item]:
    """Read all items of a task and bucket; lines without a bucket are skipped."""
    items = []
    with (folder / f"{task}.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row.get("bucket") == bucket:
                documents = [
                    {key: d[key] for key in ("id", "title", "text") if d.get(key)}
                    for d in row["documents"]
                ]
                items.append(
                    Item(
                        id=row["id"],
                        task=task,
                        bucket=bucket,
                        question=row["question"],
                        documents=tuple(prepare_documents(documents)),
                        answers=tuple(row["answers"]),
                        gold=frozenset(row["gold_doc_ids"]),
                    )
                )
    return items
