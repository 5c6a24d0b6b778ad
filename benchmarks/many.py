"""Many clients of one model: their answers together against one after the other.

    python -m benchmarks.many
    python -m benchmarks.many --loads answers --clients 2 4 8 --rounds 5 --dtype float32

What is compared is a worker with one place and one with a place for every client. There are four
kinds of load: `answers`, over contexts that are there; `questions`, each with documents of its own,
which begin with reading these; `shared`, several questions over the same documents; and `batch`:
the `questions` as one call of an adapter's (`answer_all`), against a call for each. Everything
is a ratio of one run, of wall-clock time and, because other processes may share the cores, of CPU
time; the median of the rounds is reported, which alternate. Answers are greedy; in float32 they
must be equal, in lower precisions it is counted how many are.
"""

from finch_integrations.cli.threads import set_threads

set_threads(None)  # as `finch serve` does, before torch is imported

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import statistics  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
from contextlib import ExitStack  # noqa: E402
from datetime import date  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
import transformers  # noqa: E402

from finch_integrations import CompressedContext, FinchEngine, PassageStore  # noqa: E402
from finch_integrations.pipeline.ask import AskRequest, ask  # noqa: E402
from finch_integrations.pipeline.shared_engine import SharedEngine  # noqa: E402
from finch_integrations.pipeline.waiting import Waiting  # noqa: E402
from finch_integrations.pipeline.worker import Worker  # noqa: E402
from finch_integrations.reading import read_documents  # noqa: E402

ROOT = Path(__file__).parent.parent
FILES = ROOT / "examples" / "station-handbook"
QUESTIONS = ROOT / "examples" / "questions.json"
LOADS = ("answers", "questions", "shared", "batch")
TOKENS, TARGET = 64, 256


def main() -> None:
    """Measure and write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--loads", choices=LOADS, nargs="+", default=LOADS)
    parser.add_argument("--clients", type=int, nargs="+", default=[8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/many.json")
    options = parser.parse_args()
    result: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": {"processor": platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "most_answer_tokens": TOKENS,
        "target_size": TARGET,
        "rounds": options.rounds,
        "rows": [],
    }
    with FinchEngine.from_pretrained("embedded", device="cpu", dtype=options.dtype) as engine:
        result["dtype"] = str(engine.backbone.model.dtype).removeprefix("torch.")
        engine.store = PassageStore(memory_bytes=0)  # what another question read is read again
        for load in options.loads:
            for clients in options.clients:
                result["rows"].append(compare(engine, load, clients, options.rounds))
                print(json.dumps(result["rows"][-1]), flush=True)
                options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def compare(engine: FinchEngine, load: str, clients: int, rounds: int) -> dict[str, Any]:
    """Run the same load one after the other and together."""
    requests = make_requests(load, clients)
    contexts: list[CompressedContext | None] = [None] * clients
    if load == "answers":
        contexts = [
            engine.compress(request.documents, question_of(request), target_size=TARGET)
            for request in requests
        ]
    ratios: dict[str, list[float]] = {"wall": [], "cpu": []}
    if load != "batch":
        ratios["first_piece"] = []
    for _ in range(rounds):
        if load == "batch":
            alone, together = run_calls(engine, requests, 1), run_calls(engine, requests, clients)
        else:
            alone, together = (run(engine, requests, contexts, places) for places in (1, clients))
        equal = sum(text == together["answers"][n] for n, text in alone["answers"].items())
        if engine.backbone.model.dtype == torch.float32:
            assert equal == clients, "an answer depends on the others"
        for name, values in ratios.items():
            values.append(alone[name] / together[name])
    return {
        "load": load,
        "clients": clients,
        "answer_tokens": together["tokens"],
        "answer_tokens_alone": alone["tokens"],
        "equal_answers": equal,
        # How many times as much is done in the same time; above 1, together is better.
        **{name: round(statistics.median(values), 2) for name, values in ratios.items()},
        "wall_of_rounds": [round(value, 2) for value in ratios["wall"]],
    }


def make_requests(load: str, clients: int) -> list[AskRequest]:
    """What each client asks."""
    questions = [entry["question"] for entry in json.loads(QUESTIONS.read_text("utf-8"))]
    pages = read_documents([FILES]).documents
    return [
        AskRequest(
            messages=({"role": "user", "content": questions[number % len(questions)]},),
            documents=(pages[0 if load == "shared" else number % len(pages)],),
            compression={"target_size": TARGET},
            sampling={"max_tokens": TOKENS},
        )
        for number in range(clients)
    ]


def question_of(request: AskRequest) -> str:
    """What a request asks."""
    return str(request.messages[-1]["content"])


def run(
    engine: FinchEngine, requests: list[AskRequest], contexts: list[Any], places: int
) -> dict[str, Any]:
    """Let every client ask at the same time."""
    worker = Worker(places)
    answers: dict[int, str] = {}
    first: list[float] = []
    tokens: list[int] = []
    wall, cpu = time.perf_counter(), time.process_time()

    def client(number: int, turn: Any) -> None:
        request, context = requests[number], contexts[number]

        def work(check: Any) -> Any:
            if context is not None:
                return engine.stream(context, max_tokens=TOKENS)
            return ask(engine, request, turn=turn, check=check)

        pieces: list[str] = []
        for piece in worker.stream(work):
            if not pieces:
                first.append(time.perf_counter() - wall)
            pieces.append(piece.text)
        tokens.append(len(pieces))
        answers[number] = "".join(pieces)

    # One after the other, nobody knows of the next question.
    groups = [requests] if places > 1 else [[request] for request in requests]
    with ExitStack() as queued:
        turns = [turn for group in groups for turn in queued.enter_context(Waiting().queue(*group))]
        threads = [threading.Thread(target=client, args=item) for item in enumerate(turns)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    worker.stop()
    return {
        "answers": answers,
        "tokens": sum(tokens),
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
        "first_piece": statistics.mean(first),
    }


def run_calls(engine: FinchEngine, requests: list[AskRequest], at_once: int) -> dict[str, Any]:
    """Answer so many requests with each call."""
    shared = SharedEngine(engine)
    wall, cpu = time.perf_counter(), time.process_time()
    answers = [
        details
        for start in range(0, len(requests), at_once)
        for details in shared.answer_all(requests[start : start + at_once])
    ]
    return {
        "answers": dict(enumerate(details.text for details in answers)),
        "tokens": sum(details.generation_tokens for details in answers),
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
    }


if __name__ == "__main__":
    main()
