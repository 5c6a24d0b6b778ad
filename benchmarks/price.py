"""The price of a question: the first, the second, after a restart, eight at once, the same again.

    python -m benchmarks.price
    python -m benchmarks.price --tokens 80000
    python -m benchmarks.price --shape 1b --device cuda --out .benchmarks/price-1b.json

A question is choosing and encoding; its answer costs the same either way. It is compared with one
full prefill of the same text by the same model in one pass, which is what a user without this
package would run, and with the first question. Each measurement runs in its own process, so that
its peak memory can be measured. A run is one of each, and ratios are taken within a run; one that
was interrupted continues where it stopped. On a CPU the time is the processor's, so that other
programs on the machine matter less; the wall clock's is in the file, too. Absolute times are not
comparable between machines. The text is the example handbook, again and again under other headings
where it is too short. With `--shape` the model has random weights, on which no time depends.

    first       nothing is kept
    second      another question after the first
    prepared    another question, after the rest was read while nobody waited (`read_ahead`)
    restart     likewise, by a process that finds what was read on disk only
    repeat      the first question again
    many        eight questions at once, for each
    overlap-50  another question to documents half of whose tokens were there in the first one;
    overlap-80  likewise, four fifths

    everything  the model reads all documents
    cascade     it reads those whose words match best (`read_size="auto"`, the default)
    contrast, finch  other methods, which keep nothing
"""

import argparse
import json
import platform
import resource
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
OUT = ROOT / "benchmarks" / "results" / "price.json"
TOKENS, TARGET, MANY = 7900, 1024, 8
# Tokens of what a search finds.
PART = 400
STORE_BYTES = 6 << 30
HOW: dict[str, dict[str, Any]] = {
    "everything": {"read_size": "all"},
    "cascade": {"read_size": "auto"},
    "contrast": {"method": "contrast"},
    "finch": {"method": "finch"},
}
# Kind -> the share of the documents that the first question had, too.
OVERLAPS = {"overlap-50": 0.5, "overlap-80": 0.8}
KINDS = ("second", "prepared", "restart", "repeat", "many")
# Up to so many tokens -> what is measured; longer texts take too long for the rest.
CELLS: dict[int, list[tuple[str, str]]] = {
    16_000: [
        ("prefill", ""),
        *(("first", how) for how in HOW),
        *((kind, "everything") for kind in KINDS if kind != "prepared"),
        *((kind, "cascade") for kind in KINDS),
        *((kind, how) for kind in OVERLAPS for how in ("everything", "cascade")),
    ],
    40_000: [
        ("prefill", ""),
        ("first", "everything"),
        ("second", "everything"),
        *((kind, "cascade") for kind in ("first", *KINDS)),
        *(("first", how) for how in ("contrast", "finch")),
    ],
    sys.maxsize: [(kind, "cascade") for kind in ("first", *KINDS)],
}


def measure(kind: str, how: str, options: argparse.Namespace) -> dict[str, float]:
    """Run one kind of work in this process."""
    import torch

    from finch_integrations import PassageStore

    questions = [entry["question"] for entry in json.loads(QUESTIONS.read_text("utf-8"))]
    engine = _engine(options)
    device = engine.backbone.device
    documents, ids = _documents(engine, options.tokens)
    earlier = documents
    if kind in OVERLAPS:
        earlier, documents = _overlapping(engine, options.tokens, OVERLAPS[kind])
    engine.generate(engine.compress(["Warm up. " * 50], "Why?", target_size=20), max_tokens=2)
    loaded = _start_memory(device)
    settings = {"target_size": options.target, **HOW.get(how, {})}

    def prefill() -> None:
        with torch.inference_mode():
            engine.backbone.model(
                torch.tensor([ids], device=device), use_cache=True, logits_to_keep=1
            )

    def ask(number: int, of: list[Any] = documents) -> None:
        engine.compress(of, questions[number], **settings)

    def ask_many() -> None:
        for selection in engine.select_many(documents, questions[:MANY], **settings):
            engine.encode(selection)

    work: Callable[[], None] = lambda: ask(1)  # noqa: E731
    with tempfile.TemporaryDirectory() as folder:
        engine.store = PassageStore(memory_bytes=STORE_BYTES)
        if kind in ("first", "many"):
            engine.store = PassageStore(memory_bytes=0)
            work = ask_many if kind == "many" else lambda: ask(0)
        elif kind == "restart":
            engine.store = PassageStore(memory_bytes=0, folder=Path(folder) / "passages")
        if kind in ("second", "prepared", "restart", "repeat", *OVERLAPS):
            ask(0, earlier)
        if kind in ("prepared", "restart"):
            engine.read_ahead(documents, **settings)
        if kind == "restart":
            engine.store = PassageStore(memory_bytes=0, folder=Path(folder) / "passages")
        elif kind == "repeat":
            work = lambda: ask(0)  # noqa: E731
        elif kind == "prefill":
            work = prefill
        found = _time(work, device)
    each = MANY if kind == "many" else 1
    peak = _peak_bytes(device)
    return {
        **{name: value / each for name, value in found.items()},
        "peak_bytes": peak,
        "bytes_over_model": peak - loaded,
        "tokens": len(ids),
    }


def _engine(options: argparse.Namespace) -> Any:
    if options.shape:
        from benchmarks.length import make_engine
        from finch_integrations.engine.loading import resolve_device

        return make_engine(options.shape, resolve_device(options.device))
    from finch_integrations import FinchEngine

    return FinchEngine.from_pretrained("embedded", device=options.device, dtype=options.dtype)


def _documents(engine: Any, tokens: int) -> tuple[list[Any], list[int]]:
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

    documents, _ = _documents(engine, int(tokens * (2 - share)))
    tokenizer = engine.backbone.tokenizer
    found = []
    for one in documents:
        ids = tokenizer(one.text, add_special_tokens=False, verbose=False).input_ids
        for number, start in enumerate(range(0, len(ids), PART), start=1):
            text = tokenizer.decode(ids[start : start + PART])
            found.append(Document(text, id=f"{one.id}, {number}", title=one.title))
    count = round(len(found) / (2 - share))
    return found[:count], found[-count:]


def _time(work: Callable[[], None], device: Any) -> dict[str, float]:
    import torch

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    wait()
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    wait()
    passed = time.perf_counter() - wall
    used = passed if device.type == "cuda" else time.process_time() - cpu
    return {"seconds": used, "wall_seconds": passed}


def _start_memory(device: Any) -> int:
    """Bytes in use now; the peak is counted from here on, where the system allows that."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return int(torch.cuda.memory_allocated())
    if sys.platform == "linux":
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _peak_bytes(device)


def _peak_bytes(device: Any) -> int:
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    if sys.platform == "linux":
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run(kind: str, how: str, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.price", "--only", kind, how]
    for name in ("tokens", "target", "device", "dtype", "shape"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    print(f"{kind} {how}: {result['seconds']:.1f} s", file=sys.stderr, flush=True)
    return result


def name_of(kind: str, how: str) -> str:
    """What a measurement is called in the results."""
    return f"{kind}, {how}" if how else kind


def _section(report: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """The part of the results that has the same facts, or a new one."""
    import torch
    import transformers

    device = options.device or "cpu"
    machine = (
        torch.cuda.get_device_name()
        if device == "cuda"
        else f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}"
    )
    facts = {
        "model": f"shape {options.shape}, random weights"
        if options.shape
        else "SmolLM2-135M-Instruct",
        "dtype": options.dtype,
        "tokens": options.tokens,
        "target_size": options.target,
        "questions_at_once": MANY,
        "machine": machine,
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    for section in report:
        if facts.items() <= section.items():
            return section
    report.append({"date": date.today().isoformat(), **facts, "runs": []})
    return report[-1]


def main() -> None:
    """Measure and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", nargs=2, metavar=("KIND", "HOW"), help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, default=TOKENS)
    parser.add_argument("--target", type=int, default=TARGET)
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--shape", choices=("0.1b", "1b"))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.only:
        print(json.dumps(measure(options.only[0], options.only[1], options)))
        return
    report = json.loads(options.out.read_text("utf-8")) if options.out.exists() else []
    runs = _section(report, options)["runs"]
    cells = next(cells for most, cells in CELLS.items() if options.tokens <= most)
    for number in range(options.repeats):
        if len(runs) <= number:
            runs.append({})
        for kind, how in cells:
            name = name_of(kind, how)
            if name not in runs[number]:
                runs[number][name] = _run(kind, how, options)
                # At once: a run may be cut off.
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
