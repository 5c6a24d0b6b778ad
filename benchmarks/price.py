"""The price of a question: the first, the second, after a restart, eight at once, the same again.

    python -m benchmarks.price
    python -m benchmarks.price --tokens 32000 80000
    python -m benchmarks.price --tokens 32000 64000 128000 --target 2048 --names "first, cascade"
    python -m benchmarks.price --shape 1b --device cuda --out .benchmarks/price-1b.json

A question is choosing and encoding; its answer costs the same either way. It is compared with one
full prefill of the same text by the same model in one pass, which is what a user without this
package would run, and with the first question. Each measurement runs in its own process, so that
its peak memory can be measured. A run is one of each, and ratios are taken within a run; one that
was interrupted continues where it stopped. On a CPU the time is the processor's, so that other
programs on the machine matter less; the wall clock's is in the file, too. Absolute times are not
comparable between machines. Of every time the file also has the parts: choosing, encoding, and what
the model took of both. The text is the example handbook, again and again under other headings
where it is too short. With `--shape` the model has random weights, on which no time depends.

    first       nothing is kept
    second      another question after the first
    prepared    another question, after the rest was read while nobody waited (`read_ahead`)
    restart     likewise, by a process that finds what was read on disk only
    repeat      the first question again
    many        eight questions at once, for each
    apart       the same eight one after the other, nothing is kept; for each
    overlap-50  another question to documents half of whose tokens were there in the first one;
    overlap-80  likewise, four fifths

    everything  the model reads all documents
    cascade     it reads those whose words match best (`read_size="auto"`, the default)
    contrast, finch  other methods, which keep nothing
"""

import argparse
import json
import platform
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

from benchmarks.price_work import HOW, MANY, OVERLAPS, ROOT, measure

OUT = ROOT / "benchmarks" / "results" / "price.json"
TOKENS, TARGET = 7900, 1024
# Longer texts are measured once.
REPEATED = 16_000
KINDS = ("second", "prepared", "restart", "repeat", "many")
# Up to so many tokens -> what is measured; longer texts take too long for the rest.
CELLS: dict[int, list[tuple[str, str]]] = {
    REPEATED: [
        ("prefill", ""),
        *(("first", how) for how in HOW),
        *((kind, "everything") for kind in KINDS if kind != "prepared"),
        *((kind, "cascade") for kind in KINDS),
        *((kind, how) for kind in ("apart", *OVERLAPS) for how in ("everything", "cascade")),
    ],
    40_000: [
        ("first", "everything"),
        ("second", "everything"),
        *((kind, "cascade") for kind in ("first", *KINDS)),
        *(("first", how) for how in ("contrast", "finch")),
        ("prefill", ""),
    ],
    sys.maxsize: [(kind, "cascade") for kind in ("first", *KINDS)],
}


def _run(kind: str, how: str, tokens: int, options: argparse.Namespace) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.price", "--only", kind, how]
    command += ["--tokens", str(tokens)]
    for name in ("target", "device", "dtype", "shape"):
        if (value := getattr(options, name)) is not None:
            command += [f"--{name}", str(value)]
    output = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    result: dict[str, float] = json.loads(output.stdout.splitlines()[-1])
    print(f"{kind} {how}: {result['seconds']:.1f} s", file=sys.stderr, flush=True)
    return result


def name_of(kind: str, how: str) -> str:
    """What a measurement is called in the results."""
    return f"{kind}, {how}" if how else kind


def _section(
    report: list[dict[str, Any]], tokens: int, options: argparse.Namespace
) -> dict[str, Any]:
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
        "tokens": tokens,
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
    parser.add_argument("--tokens", type=int, nargs="+", default=[TOKENS])
    parser.add_argument("--target", type=int, default=TARGET)
    parser.add_argument("--names", nargs="+", help="only these, such as 'first, cascade'")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--shape", choices=("0.1b", "1b"))
    parser.add_argument(
        "--repeats", type=int, default=3, help=f"of texts of at most {REPEATED:,} tokens"
    )
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    if options.only:
        kind, how = options.only
        print(json.dumps(measure(kind, how, options.tokens[0], options)))
        return
    report = json.loads(options.out.read_text("utf-8")) if options.out.exists() else []
    for tokens in options.tokens:
        runs = _section(report, tokens, options)["runs"]
        for number in range(options.repeats if tokens <= REPEATED else 1):
            if len(runs) <= number:
                runs.append({})
            for kind, how in next(cells for most, cells in CELLS.items() if tokens <= most):
                name = name_of(kind, how)
                if name in runs[number] or name not in (options.names or [name]):
                    continue
                runs[number][name] = _run(kind, how, tokens, options)
                # At once: a run may be cut off.
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
