"""How long `finch ask` takes until it begins to read: from the process's start, models loaded.

    python -m benchmarks.start

Each run is a process of its own; the first one, which fills the system's page cache, does not
count. `imports` is when the command line's own modules are imported, `ready` when documents are
read and the model is loaded, so that the first token can be read. Absolute times depend on the
machine.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.price_work import FILES, ROOT

OUT = ROOT / "benchmarks" / "results" / "start.json"
QUESTION = "What is the door code of the chemical store?"
# Prints when, and the processor time until then; then ends the process.
_PROGRAM = """
import json, os, sys, time
seen = {}
def note(name):
    seen[name] = [time.time(), time.process_time()]
from finch_integrations.cli.app import app
note("imports")
from finch_integrations.engine.engine import FinchEngine
def ready(*_, **__):
    note("ready")
    print(json.dumps(seen), flush=True)
    os._exit(0)
FinchEngine.compress = ready
app(sys.argv[1:])
"""


def run(arguments: list[str]) -> dict[str, float]:
    """Seconds from the start of a new process: on the clock, and of its processor."""
    started = time.time()
    output = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *arguments],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    seen = json.loads(output.stdout.splitlines()[-1])
    found = {f"{name}_wall_seconds": clock - started for name, (clock, _) in seen.items()}
    return found | {f"{name}_seconds": used for name, (_, used) in seen.items()}


def main() -> None:
    """Measure and write the medians."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    arguments = ["ask", QUESTION, str(FILES), "--device", "cpu"]
    run(arguments)
    runs = [run(arguments) for _ in range(options.repeats)]
    report: dict[str, Any] = {
        "date": date.today().isoformat(),
        "model": "embedded",
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "medians": {name: statistics.median(one[name] for one in runs) for name in runs[0]},
        "runs": runs,
    }
    options.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(report["medians"], indent=1))


if __name__ == "__main__":
    main()
