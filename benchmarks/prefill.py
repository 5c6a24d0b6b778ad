"""Speed and memory of compression against one full prefill of the same text, same model.

    python -m benchmarks.prefill

Each measurement runs in its own process, so that its peak memory can be measured; runs alternate
and the median of the ratios is reported. Absolute times are not comparable between machines.
"""

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parent.parent
FILES = ROOT / "examples" / "station-handbook"
QUESTION = "What is the door code of the chemical store?"
TOKENS, TARGET, CHUNK = 7900, 1024, 1024
METHODS = ("likelihood", "contrast", "finch")


def measure(kind: str) -> dict[str, float]:
    """Run one kind of work in this process."""
    import torch

    from finch_integrations import FinchEngine
    from finch_integrations.reading import read_documents

    engine = FinchEngine.from_pretrained("embedded", device="cpu", dtype=torch.float32)
    text = "\n\n".join(document.text for document in read_documents([FILES]).documents)
    tokenizer = engine.backbone.tokenizer
    ids = tokenizer(text, add_special_tokens=False, verbose=False).input_ids[:TOKENS]
    text = tokenizer.decode(ids)
    engine.generate(engine.compress(["Warm up. " * 50], "Why?", target_size=20), max_tokens=2)
    loaded = _peak_bytes()
    if kind == "prefill":
        batch = torch.tensor([ids])
        started = time.perf_counter()
        with torch.inference_mode():
            engine.backbone.model(batch, use_cache=True, logits_to_keep=1)
        result = {"seconds": time.perf_counter() - started}
    else:
        scoring = _time_scoring()
        context = engine.compress(
            [text], QUESTION, method=kind, target_size=TARGET, chunk_length=CHUNK
        )
        stats = context.stats
        result = {
            "seconds": stats.seconds,
            "scoring_seconds": scoring["seconds"],
            "document_tokens": stats.document_tokens,
            "peak_kv_tokens": stats.peak_kv_tokens,
        }
    return result | {"peak_bytes": _peak_bytes(), "bytes_over_model": _peak_bytes() - loaded}


def first_chunk() -> dict[str, float]:
    """Time a second start of `finch ask`, from the process's start to its first chunk.

    That is until everything is read and loaded, and until the first chunk is done.
    """
    import psutil

    from finch_integrations.cli import app, console

    class Done(Exception):
        pass

    times = {}
    started = psutil.Process().create_time()

    def loaded(bar: object) -> object:
        times["seconds_to_start"] = time.time() - started
        return bar

    def stop(*_: object) -> None:
        times["seconds_to_end"] = time.time() - started
        raise Done

    console.CompressionBar.__enter__ = loaded  # type: ignore[method-assign,assignment]
    console.CompressionBar.__exit__ = lambda *_: None  # type: ignore[method-assign]
    console.CompressionBar.__call__ = stop  # type: ignore[method-assign,assignment]
    try:
        app.app(["ask", QUESTION, str(FILES)], standalone_mode=False)
    except Done:
        return times
    raise AssertionError("the command ended before its first chunk")


def _time_scoring() -> dict[str, float]:
    """Add up the time spent on scores and selection, without the model's own work."""
    from finch_integrations.engine import attention
    from finch_integrations.engine.methods import contrast, finch, likelihood, passages

    spent = {"seconds": 0.0}
    for module, name in (
        (attention, "question_attention"),
        (finch, "score_tokens"),
        (finch, "pool_scores"),
        (finch, "select_tokens"),
        (likelihood, "split_segments"),
        (likelihood, "WordMatcher"),
        (contrast, "split_segments"),
        (contrast, "contrast_scores"),
        (contrast, "WordMatcher"),
        (passages, "take_best"),
        (passages, "arrange"),
    ):

        def timed(*args: object, _run: object = getattr(module, name), **kwargs: object) -> object:
            started = time.perf_counter()
            try:
                return _run(*args, **kwargs)
            finally:
                spent["seconds"] += time.perf_counter() - started

        setattr(module, name, timed)
    return spent


def _peak_bytes() -> int:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _run(kind: str) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.prefill", "--only", kind]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    return result


def main() -> None:
    """Measure, print a table and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["prefill", *METHODS, "first-chunk"])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--out", type=Path, default=ROOT / "benchmarks" / "results" / "prefill.json"
    )
    options = parser.parse_args()
    if options.only:
        print(json.dumps(first_chunk() if options.only == "first-chunk" else measure(options.only)))
        return

    import torch
    import transformers

    runs = [{kind: _run(kind) for kind in ("prefill", *METHODS)} for _ in range(options.repeats)]
    results = {}
    for method in METHODS:
        for name, key in (
            ("time", "seconds"),
            ("memory over the model", "bytes_over_model"),
            ("process peak memory", "peak_bytes"),
        ):
            ratios = [run[method][key] / run["prefill"][key] for run in runs]
            results[f"{name}: {method} / full prefill"] = ratios
        shares = [run[method]["scoring_seconds"] / run[method]["seconds"] for run in runs]
        results[f"time: scoring / {method}"] = shares
    starts = [_run("first-chunk") for _ in range(options.repeats)]
    for place in ("start", "end"):
        seconds = [start[f"seconds_to_{place}"] for start in starts]
        results[f"seconds from process start to the first chunk's {place}"] = seconds
    report = {
        "date": date.today().isoformat(),
        "model": "SmolLM2-135M-Instruct, float32",
        "tokens": TOKENS,
        "target_size": TARGET,
        "chunk_length": CHUNK,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "ratios": results,
        "runs": runs,
    }
    for name, values in results.items():
        listed = ", ".join(f"{value:.2f}" for value in values)
        print(f"{name}: {statistics.median(values):.2f}  ({listed})")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
