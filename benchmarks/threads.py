"""How threads share a busy machine: the same question with 1 and all threads, spinning and passive.

    python -m benchmarks.threads

Other processes keep all processors busy. Per setting the embedded model reads the same text in a
process of its own; the settings take turns. Reported are medians, in multiples of one thread.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from datetime import date
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "threads.json"
CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

_READ = """
import time, torch
from finch_integrations import FinchEngine
with FinchEngine.from_pretrained("embedded", device="cpu", dtype="float32") as engine:
    ids = list(range(100, 356))
    engine.backbone.encode(ids[:64], 64)
    started = time.perf_counter()
    engine.backbone.encode(ids, 256)
    print(time.perf_counter() - started)
"""
_SPIN = "while True: pass"


def settings() -> dict[str, dict[str, str]]:
    """The environments that are compared."""
    passive = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0"}
    return {
        "1 thread": {"OMP_NUM_THREADS": "1"},
        f"{CPUS} threads, spinning": {"OMP_NUM_THREADS": str(CPUS), "OMP_WAIT_POLICY": "ACTIVE"},
        f"{CPUS} threads, as torch has it": {"OMP_NUM_THREADS": str(CPUS)},
        f"{CPUS} threads, passive": {"OMP_NUM_THREADS": str(CPUS), **passive},
    }


def measure(repeats: int) -> dict[str, list[float]]:
    """Seconds per setting, in turns."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_", "GOMP_"))}
    found: dict[str, list[float]] = {name: [] for name in settings()}
    for _ in range(repeats):
        for name, environment in settings().items():
            command = [sys.executable, "-c", _READ]
            output = subprocess.run(
                command, env=clean | environment, capture_output=True, text=True, check=True
            )
            found[name].append(float(output.stdout.splitlines()[-1]))
    return found


def main() -> None:
    """Measure on a busy machine, print a table and write the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", type=int, default=CPUS, help="processes that compute meanwhile")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    others = [subprocess.Popen([sys.executable, "-c", _SPIN]) for _ in range(options.busy)]
    try:
        found = measure(options.repeats)
    finally:
        for other in others:
            other.kill()
            other.wait()
    one = statistics.median(found["1 thread"])
    import torch

    report = {
        "date": date.today().isoformat(),
        "hardware": {"machine": platform.machine(), "processors": CPUS},
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "busy": options.busy,
        "load": os.getloadavg()[0],
        "times_of_one_thread": {
            name: round(statistics.median(seconds) / one, 2) for name, seconds in found.items()
        },
        "spread": {
            name: [round(second / one, 2) for second in sorted(seconds)]
            for name, seconds in found.items()
        },
    }
    options.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
