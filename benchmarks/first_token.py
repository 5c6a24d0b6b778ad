"""Time to the first token through a llama.cpp server, with and without a model here that chooses.

    python -m benchmarks.first_token --python .venv-servers/llama-cpp/bin/python --gguf MODEL.gguf

Both prompts are from the same documents and question, one after the other. From the second question
on, what the model here read of passages is kept. Ratios below 1 mean that the first token comes
earlier with Finch in front. The time is the processor's, of server and scorer together, so that
other programs on the machine matter less; the wall clock's is in the file, too. For a larger
generator than there is at hand see `benchmarks.random_gguf`.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
import urllib.request
from datetime import date
from pathlib import Path
from socket import socket
from typing import Any

import psutil
import torch
import transformers

from benchmarks.quality import RESULTS
from finch_integrations import ChooseThenGenerate, Document, FinchEngine, OpenAIServer
from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.reading import read_documents

FILES = Path(__file__).parent.parent / "examples" / "station-handbook"
QUESTIONS = (
    "What is the door code of the chemical store?",
    "When is dinner served?",
    "Who repairs the boat?",
)


def documents_of(engine: FinchEngine, tokens: int) -> list[Document]:
    """The first so many tokens of the example's files."""
    found = []
    for document in read_documents([FILES]).documents:
        ids = engine.backbone.tokenizer(document.text, add_special_tokens=False).input_ids[:tokens]
        tokens -= len(ids)
        if ids:
            found.append(Document(engine.backbone.tokenizer.decode(ids), id=document.id))
    return found


def first_piece(
    handle: ChooseThenGenerate, request: AskRequest, server: psutil.Process
) -> dict[str, float]:
    """Seconds until the first piece of text: of processors, and on the clock."""

    def used() -> float:
        times = server.cpu_times()
        return float(time.process_time() + times.user + times.system)

    started, before = time.perf_counter(), used()
    pieces = handle.stream(request)
    next(pieces)
    found = {"seconds": used() - before, "wall_seconds": time.perf_counter() - started}
    pieces.close()
    return found


def start(
    python: Path, gguf: Path, window: int, threads: int
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server and wait until it answers."""
    with socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "llama_cpp.server", "--model", gguf, "--port", port]
    command += ["--n_ctx", window, "--n_threads", threads, "--n_threads_batch", threads]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    process = subprocess.Popen(
        [str(part) for part in command],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}/v1"
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{url}/models", timeout=5).read()
            return process, url
        except OSError:
            time.sleep(0.5)
    process.terminate()
    raise SystemExit("the server does not answer")


def main() -> None:
    """Measure, alternating, and write the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--python", type=Path, required=True, help="with llama-cpp-python[server]")
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=8000)
    parser.add_argument("--target", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=len(QUESTIONS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS / "first_token.json")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    engine = FinchEngine.from_pretrained("embedded", device="cpu")
    documents = documents_of(engine, options.tokens)
    window = options.tokens + options.tokens // 8 + 1024
    process, url = start(options.python, options.gguf, window, options.threads)
    runs: list[dict[str, Any]] = []
    try:
        server = psutil.Process(process.pid)
        handle = ChooseThenGenerate(OpenAIServer(url, "model", timeout=3600), engine)
        for question in QUESTIONS[: options.repeats]:
            request = AskRequest(
                messages=({"role": "user", "content": question},),
                documents=tuple(documents),
                sampling={"max_tokens": 1, "temperature": 0.0},
            )
            run: dict[str, Any] = {}
            for name, target in (("without", options.tokens * 2), ("with", options.target)):
                asked = AskRequest(
                    messages=request.messages,
                    documents=request.documents,
                    sampling=request.sampling,
                    compression={"target_size": target},
                )
                run[name] = first_piece(handle, asked, server)
            run["ratio"] = run["with"]["seconds"] / run["without"]["seconds"]
            runs.append(run)
            print(run, flush=True)
    finally:
        process.terminate()
        process.wait()
    report = {
        "model": options.gguf.name,
        "scorer": f"embedded, {engine.backbone.model.dtype}".replace("torch.", ""),
        "tokens": options.tokens,
        "target_size": options.target,
        "threads": options.threads,
        "machine": platform.machine(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "date": date.today().isoformat(),
        "ratio_median": statistics.median(run["ratio"] for run in runs),
        "runs": runs,
    }
    known = json.loads(options.out.read_text("utf-8")) if options.out.exists() else []
    same = ("model", "tokens", "target_size")
    others = [one for one in known if any(one[name] != report[name] for name in same)]
    options.out.write_text(json.dumps([*others, report], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
