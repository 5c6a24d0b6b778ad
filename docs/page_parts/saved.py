"""What `benchmarks/` measured, as it was saved."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def versions(report: Mapping[str, Any]) -> str:
    """The versions that a result was measured with."""
    return ", ".join(f"{name} {version}" for name, version in report["versions"].items())


def circumstances(row: Mapping[str, Any]) -> str:
    """What a measured row depends on besides model and question."""
    return (
        f"{row['machine']}, {row['dtype']}, torch {row['torch']}, transformers "
        f"{row['transformers']}, commit {row['commit']}"
    )


def read_saved(name: str) -> Any:
    """A file of `benchmarks/results`."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))
