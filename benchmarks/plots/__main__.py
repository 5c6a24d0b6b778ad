"""The command that writes all figures: python -m benchmarks.plots --out FOLDER, or --docs."""

import argparse
import hashlib
from pathlib import Path

from matplotlib import rc_context

from benchmarks import plots
from benchmarks.plots.style import RC
from benchmarks.quality import RESULTS

DOCS = Path(__file__).parents[2] / "docs" / "plots"
# The figures that README and docs/ show.
SHOWN = ("long-sets", "length", "paper", "price")
_CODE = ("long_sets", "paper", "quality_report")
_RESULTS = ("quality", "long_sets", "length", "paper", "price")


def digest() -> str:
    """Identifies what the figures of the documentation are made from: results and code."""
    code = sorted(Path(__file__).parent.glob("*.py"))
    code += [Path(__file__).parents[1] / f"{name}.py" for name in _CODE]
    results = [RESULTS / f"{name}.json" for name in _RESULTS]
    found = hashlib.sha256()
    for path in (*code, *results):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def write_shown(folder: Path = DOCS) -> None:
    """Write the figures of the documentation; each says what it was made from."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"Date": None, "Description": f"made from {digest()}"}
    with rc_context(RC):
        for name, figure in plots.figures():
            if name in SHOWN:
                figure.savefig(folder / f"{name}.svg", metadata=about)
                print(folder / f"{name}.svg")


def main() -> None:
    """Write all figures, or those of the documentation."""
    parser = argparse.ArgumentParser(
        description=plots.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--out", type=Path)
    where.add_argument("--docs", action="store_true", help="those of docs/, in their place")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    if options.docs:
        write_shown()
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with rc_context(RC):
        for name, figure in plots.figures(options.results):
            # Without the date the same results give the same file.
            figure.savefig(options.out / f"{name}.svg", metadata={"Date": None})
            figure.savefig(options.out / f"{name}.png", dpi=150)
            print(options.out / name)


if __name__ == "__main__":
    main()
