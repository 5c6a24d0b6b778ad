"""The command that writes all figures: python -m benchmarks.plots --out FOLDER."""

import argparse
from pathlib import Path

from matplotlib import rc_context

from benchmarks import plots
from benchmarks.plots.style import RC
from benchmarks.quality import RESULTS


def main() -> None:
    """Write all figures."""
    parser = argparse.ArgumentParser(
        description=plots.__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with rc_context(RC):
        for name, figure in plots.figures(options.results):
            # Without the date the same results give the same file.
            figure.savefig(options.out / f"{name}.svg", metadata={"Date": None})
            figure.savefig(options.out / f"{name}.png", dpi=150)
            print(options.out / name)


if __name__ == "__main__":
    main()
