"""The documents and the work that `benchmarks.price` measures, one kind in a process."""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.meter import Meter, peak_bytes, start_memory

ROOT = Path(__file__).parent.parent
FILES = ROOT / "examples" / "station-handbook"
QUESTIONS = ROOT / "examples" / "questions.json"
# Questions at once; tokens of what a search finds.
MANY, PART = 8, 400
STORE_BYTES = 6 << 30
HOW: dict[str, dict[str, Any]] = {
    "everything": {"read_size": "all"},
    "cascade": {"read_size": "auto"},
    "contrast": {"method": "contrast"},
    "finch": {"method": "finch"},
}
# Kind -> the share of the documents that the first question had, too.
OVERLAPS = {"overlap-50": 0.5, "overlap-80": 0.8}


def measure(kind: str, how: str, tokens: int, options: argparse.Namespace) -> dict[str, float]:
    """Run one kind of work over documents of so many tokens in this process.

    Returns:
        Its seconds, of which choosing, encoding and the model took how many, and its peak memory;
        of eight questions, all but the memory for each.
    """
    import torch

    from finch_integrations import PassageStore

    questions = read_questions()
    engine = make_engine(options)
    device = engine.backbone.device
    documents, ids = make_documents(engine, tokens)
    earlier = documents
    if kind in OVERLAPS:
        earlier, documents = _overlapping(engine, tokens, OVERLAPS[kind])
    engine.generate(engine.compress(["Warm up. " * 50], "Why?", target_size=20), max_tokens=2)
    settings = {"target_size": options.target, **HOW.get(how, {})}
    meter = Meter(engine.backbone.model, device)
    read = 0

    def prefill() -> None:
        with torch.inference_mode():
            engine.backbone.model(
                torch.tensor([ids], device=device), use_cache=True, logits_to_keep=1
            )

    def ask(*numbers: int, of: list[Any] = documents) -> None:
        nonlocal read
        asked = [questions[number] for number in numbers]
        if how == "finch":  # chooses while it encodes
            for question in asked:
                engine.compress(of, question, **settings)
            return
        with meter.part("choosing"):
            chosen = engine.select_many(of, asked, **settings)
        with meter.part("encoding"):
            for selection in chosen:
                engine.encode(selection)
        read = chosen[0].stats.read_tokens  # the same for all of a call

    def ask_apart() -> None:
        for number in range(MANY):
            ask(number)

    work: dict[str, Callable[[], None]] = {
        "prefill": prefill,
        "first": lambda: ask(0),
        "repeat": lambda: ask(0),
        "many": lambda: ask(*range(MANY)),
        "apart": ask_apart,
    }
    loaded = start_memory(device)
    with tempfile.TemporaryDirectory() as folder:
        engine.store = PassageStore(memory_bytes=STORE_BYTES)
        if kind in ("first", "many", "apart"):
            engine.store = PassageStore(memory_bytes=0)
        elif kind == "restart":
            engine.store = PassageStore(memory_bytes=0, folder=Path(folder) / "passages")
        if kind in ("second", "prepared", "restart", "repeat", *OVERLAPS):
            ask(0, of=earlier)
        if kind in ("prepared", "restart"):
            engine.read_ahead(documents, **settings)
        if kind == "restart":
            engine.store = PassageStore(memory_bytes=0, folder=Path(folder) / "passages")
        meter.reset()
        wall = time.perf_counter()
        with meter.part("all"):
            work.get(kind, lambda: ask(1))()
        wall = time.perf_counter() - wall
    peak = peak_bytes(device)
    each = MANY if kind in ("many", "apart") else 1
    parts = {f"{name}_seconds": took / each for name, took in meter.seconds.items()}
    return {
        "seconds": parts.pop("all_seconds"),
        "wall_seconds": wall / each,
        **parts,
        "peak_bytes": peak,
        "bytes_over_model": peak - loaded,
        "tokens": len(ids),
        "read_tokens": read,
    }


def read_questions() -> list[str]:
    """The questions that are asked."""
    return [entry["question"] for entry in json.loads(QUESTIONS.read_text("utf-8"))]


def make_engine(options: argparse.Namespace) -> Any:
    """The embedded model, or one of a shape with random weights."""
    if options.shape:
        from benchmarks.length import make_engine as of_shape
        from finch_integrations.engine.loading import resolve_device

        return of_shape(options.shape, resolve_device(options.device))
    from finch_integrations import FinchEngine

    return FinchEngine.from_pretrained("embedded", device=options.device, dtype=options.dtype)


def make_documents(engine: Any, tokens: int) -> tuple[list[Any], list[int]]:
    """Documents of so many tokens together, and the ids of their text in one piece."""
    from finch_integrations import Document
    from finch_integrations.reading import read_documents

    pages = read_documents([FILES]).documents
    tokenizer = engine.backbone.tokenizer
    documents: list[Document] = []
    ids: list[int] = []
    copy = 0
    while len(ids) < tokens - 20:
        copy += 1
        for page in pages:
            title = f"{Path(str(page.id)).stem}, copy {copy}"
            text = f"# {title}\n\n{page.text}"
            found = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            found = found[: tokens - len(ids)]
            if len(found) < 20:
                break
            own = tokenizer.decode(found).partition("\n\n")[2]
            documents.append(Document(own, id=f"{title}", title=title))
            ids += found
    return documents, ids


def _overlapping(engine: Any, tokens: int, share: float) -> tuple[list[Any], list[Any]]:
    """Two sets of about so many tokens, as of a search, that have this share of them in common."""
    from finch_integrations import Document

    documents, _ = make_documents(engine, int(tokens * (2 - share)))
    tokenizer = engine.backbone.tokenizer
    found = []
    for one in documents:
        ids = tokenizer(one.text, add_special_tokens=False, verbose=False).input_ids
        for number, start in enumerate(range(0, len(ids), PART), start=1):
            text = tokenizer.decode(ids[start : start + PART])
            found.append(Document(text, id=f"{one.id}, {number}", title=one.title))
    count = round(len(found) / (2 - share))
    return found[:count], found[-count:]
