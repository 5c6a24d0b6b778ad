"""Many clients of one model: their answers together against one after the other.

    python -m benchmarks.many
    python -m benchmarks.many --rounds 5 --clients 1 2 4 8 16

Every client asks a question about documents of its own; what is compared is a worker with one place
and one with a place for every client. Two kinds of load: `answers`, over contexts that are there,
and `questions`, which begin with the compression. Everything is a ratio of one run, of wall-clock
time and, because other processes may share the cores, of CPU time; the median of the rounds is
reported, which alternate. Answers are greedy and must be equal.
"""

import argparse
import json
import platform
import statistics
import threading
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

from finch_integrations import FinchEngine, PassageStore
from finch_integrations.pipeline.ask import AskRequest, ask
from finch_integrations.pipeline.worker import Worker
from finch_integrations.reading import read_documents

ROOT = Path(__file__).parent.parent
FILES = ROOT / "examples" / "station-handbook"
QUESTIONS = ROOT / "examples" / "questions.json"
TOKENS, TARGET = 32, 256


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/many.json")
    options = parser.parse_args()
    rows = []
    with FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype) as engine:
        engine.store = PassageStore(memory_bytes=0)  # every question reads for itself
        for load in ("answers", "questions"):
            for clients in options.clients:
                rows.append(compare(engine, load, clients, options.rounds))
                print(json.dumps(rows[-1]))
    result = {
        "date": date.today().isoformat(),
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "dtype": options.dtype,
        "answer_tokens": TOKENS,
        "target_size": TARGET,
        "rows": rows,
    }
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def compare(engine: FinchEngine, load: str, clients: int, rounds: int) -> dict[str, Any]:
    """Run the same load one after the other and together."""
    works = make_works(engine, load, clients)
    ratios: dict[str, list[float]] = {"wall": [], "cpu": [], "first_piece": []}
    for _ in range(rounds):
        alone, together = (run(works, places) for places in (1, clients))
        assert alone["answers"] == together["answers"], "an answer depends on the others"
        for name, values in ratios.items():
            values.append(alone[name] / together[name])
    return {
        "load": load,
        "clients": clients,
        # How many times as much is done in the same time; above 1, together is better.
        **{name: round(statistics.median(values), 2) for name, values in ratios.items()},
    }


def make_works(engine: FinchEngine, load: str, clients: int) -> list[Any]:
    """What each client asks: a part of the handbook, and a question."""
    questions = [entry["question"] for entry in json.loads(QUESTIONS.read_text("utf-8"))]
    pages = read_documents([FILES]).documents
    works = []
    for number in range(clients):
        documents = (pages[number % len(pages)],)
        question = questions[number % len(questions)]
        if load == "answers":
            context = engine.compress(documents, question, target_size=TARGET)
            works.append(lambda _, context=context: engine.stream(context, max_tokens=TOKENS))
        else:
            request = AskRequest(
                messages=({"role": "user", "content": question},),
                documents=documents,
                compression={"target_size": TARGET},
                sampling={"max_tokens": TOKENS},
            )
            works.append(lambda check, request=request: ask(engine, request, check=check))
    return works


def run(works: list[Any], places: int) -> dict[str, Any]:
    """Let every client ask at the same time."""
    worker = Worker(places)
    answers: dict[int, str] = {}
    first: list[float] = []
    wall, cpu = time.perf_counter(), time.process_time()

    def client(number: int) -> None:
        pieces = []
        for piece in worker.stream(works[number]):
            if not pieces:
                first.append(time.perf_counter() - wall)
            pieces.append(piece.text)
        answers[number] = "".join(pieces)

    threads = [threading.Thread(target=client, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    worker.stop()
    return {
        "answers": answers,
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "first_piece": statistics.mean(first),
    }


if __name__ == "__main__":
    main()
