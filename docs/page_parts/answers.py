"""Tables of what was answered: from sets of any length, and in the models' own words."""

import re

from page_parts.markdown import make_table
from page_parts.saved import circumstances


def long_sets() -> str:
    """The table of `benchmarks.long_sets`."""
    from benchmarks.long_sets import BUDGET, PACKED, compare
    from benchmarks.quality_results import read_buckets, read_rows

    facts = read_rows(PACKED)[0]
    head = (
        f"Model `{facts['model']}`, {BUDGET:,} tokens kept; {circumstances(facts)}. The distance "
        "from the default is paired, with its 95 % interval; above zero the default is better."
    )
    names = ["tokens (questions)", "method", "gain over none", "answers kept", "NLL, distance"]
    return f"{head}\n\n" + make_table(names, compare(read_buckets(PACKED)))


def written() -> str:
    """The tables of `benchmarks.answer_report`, for every model whose answers were written."""
    from benchmarks.answer_report import PACKED, answer_tables
    from benchmarks.quality_results import read_all

    parts = []
    for (model, bucket), rows in read_all(PACKED).items():
        facts = next(row for measured in rows.values() for row in measured.values())
        found = re.sub("^## ", f"**{model}**, ", answer_tables(rows, bucket), flags=re.M).strip()
        parts.append(f"{found}\n\n{circumstances(facts)}.")
    return "\n\n".join(parts)
