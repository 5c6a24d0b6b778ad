"""The price of a question: the first, the second, after a restart, eight at once, the same again.

    python -m benchmarks.price
    python -m benchmarks.price --tokens 32000 --out .benchmarks/price-32k.json

Everything is a ratio to one full prefill of the same text by the same model in one pass, which is
what a user without this package would run. A question is choosing and encoding; its answer costs
the same either way. Each measurement runs in its own process, so that its peak memory can be
measured; runs alternate and the median of the ratios is reported. The time is the processor's, so
that other programs on the machine matter less; the wall clock's is in the file, too. Absolute times
are not comparable between machines. The text is the example handbook, again and again under other
headings where it is too short.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FILES = ROOT / "examples" / "station-handbook"
QUESTIONS = ROOT / "examples" / "questions.json"
TOKENS, TARGET, MANY = 7900, 1024, 8
# What is measured, in the order of the table. Of "read": how much the model may read.
READ = {"everything": "all", "cascade": "auto"}
KINDS = ("first", "second", "restart", "many", "repeat")


def measure(kind: str, read: str, tokens: int, target: int) -> dict[str, float]:
    """Run one kind of work in this process; `prefill` ignores `read`."""
    import torch

    from finch_integrations import FinchEngine, PassageStore

    questions = [entry["question"] for entry in json.loads(QUESTIONS.read_text("utf-8"))]
    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=torch.float32)
    documents, ids = _documents(engine, tokens)
    engine.generate(engine.compress(["Warm up. " * 50], "Why?", target_size=20), max_tokens=2)
    loaded = _peak_bytes()
    if kind == "prefill":
        batch = torch.tensor([ids])

        def prefill() -> None:
            with torch.inference_mode():
                engine.backbone.model(batch, use_cache=True, logits_to_keep=1)

        return {**_time(prefill), **_memory(loaded)}
    options: dict[str, Any] = {"target_size": target, "read_size": READ[read]}

    def ask(number: int) -> None:
        engine.encode(engine.select(documents, questions[number], **options))

    def ask_many() -> None:
        for selection in engine.select_many(documents, questions[:MANY], **options):
            engine.encode(selection)

    # The first question of a process that keeps nothing for later ones is the plain price.
    engine.store = PassageStore(memory_bytes=0 if kind in ("first", "many") else 2 << 30)
    if kind == "second":
        ask(0)
        seconds = _time(lambda: ask(1))
    elif kind == "repeat":
        ask(0)
        seconds = _time(lambda: ask(0))
    elif kind == "restart":
        with tempfile.TemporaryDirectory() as folder:
            engine.store = PassageStore(memory_bytes=0, folder=Path(folder) / "passages")
            ask(0)
            engine.store = PassageStore(memory_bytes=0, folder=Path(folder) / "passages")
            seconds = _time(lambda: ask(1))
    elif kind == "many":
        seconds = {name: value / MANY for name, value in _time(ask_many).items()}
    else:
        seconds = _time(lambda: ask(0))
    return {**seconds, **_memory(loaded)}


def _documents(engine: Any, tokens: int) -> tuple[list[Any], list[int]]:
    """Documents of so many tokens together, and the ids of their text in one piece."""
    from finch_integrations import Document
    from finch_integrations.reading import read_documents

    pages = read_documents([FILES]).documents
    tokenizer = engine.backbone.tokenizer
    documents: list[Document] = []
    ids: list[int] = []
    copy = 0
    while len(ids) < tokens:
        copy += 1
        for page in pages:
            title = f"{page.title or page.id}, copy {copy}"
            text = f"# {title}\n\n{page.text}"
            found = tokenizer(text, add_special_tokens=False, verbose=False).input_ids
            if len(ids) + len(found) > tokens:
                found = found[: tokens - len(ids)]
            if len(found) < 20:
                break
            own = tokenizer.decode(found).partition("\n\n")[2]
            documents.append(Document(own, id=f"{page.id}-{copy}", title=title))
            ids += found
        if len(ids) > tokens - 20:
            break
    return documents, ids


def _time(work: Callable[[], None]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.process_time() - cpu, "wall_seconds": time.perf_counter() - wall}


def _memory(loaded: int) -> dict[str, float]:
    return {"peak_bytes": _peak_bytes(), "bytes_over_model": _peak_bytes() - loaded}


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run(kind: str, read: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.price", "--only", kind, read]
    command += ["--tokens", str(options.tokens), "--target", str(options.target)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    print(f"{kind}, {read}: {result['seconds']:.1f} s", file=sys.stderr, flush=True)
    return result


def main() -> None:
    """Measure, print a table and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs=2, metavar=("KIND", "READ"), help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--target", type=int, default=TARGET)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "price.json")
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(*options.only, options.tokens, options.target)))
        return

    import torch
    import transformers

    cells = [(kind, read) for kind in KINDS for read in READ]
    runs = [
        {
            "prefill": _run("prefill", "everything", options),
            **{f"{kind}, {read}": _run(kind, read, options) for kind, read in cells},
        }
        for _ in range(options.repeats)
    ]
    ratios = {
        f"{measured}: {kind}, {read}": [
            run[f"{kind}, {read}"][key] / run["prefill"][key] for run in runs
        ]
        for measured, key in (
            ("processor time", "seconds"),
            ("wall-clock time", "wall_seconds"),
            ("memory over the model", "bytes_over_model"),
        )
        for kind, read in cells
    }
    report = {
        "date": date.today().isoformat(),
        "model": "SmolLM2-135M-Instruct, float32",
        "tokens": options.tokens,
        "target_size": options.target,
        "questions_at_once": MANY,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "ratios": ratios,
        "runs": runs,
    }
    for name, values in ratios.items():
        print(f"{name}: {statistics.median(values):.2f}  ({', '.join(f'{v:.2f}' for v in values)})")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
