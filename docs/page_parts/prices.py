"""Tables of what `benchmarks/` measured: time and memory."""

from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from page_parts.markdown import format_bytes, make_table
from page_parts.saved import read_saved, versions

# Other budgets are in a table of their own.
TARGET = 1024


def prefill() -> str:
    """Ratios of `benchmarks.prefill`."""
    report = read_saved("prefill.json")
    ratios: Mapping[str, Sequence[float]] = report["ratios"]
    rows = [
        [name, f"{median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"]
        for name, values in ratios.items()
    ]
    return "\n\n".join(
        [
            f"{report['model']}; {report['tokens']:,} document tokens, target "
            f"{report['target_size']:,}, chunk {report['chunk_length']:,}; {report['machine']}; "
            f"{versions(report)}; {report['date']}.",
            make_table(["", "median", "range"], rows),
        ]
    )


def length() -> str:
    """The table of `benchmarks.length`: each method against one full prefill."""
    report = read_saved("length.json")
    by: dict[int, dict[str, Any]] = {}
    for row in report["rows"]:
        by.setdefault(row["length"], {})[row["method"]] = row
    methods = [name for name in next(iter(by.values())) if name != "full"]
    rows = []
    for size, measured in by.items():
        full = measured["full"]
        cells = [
            f"{measured[m]['seconds'] / full['seconds']:.2f}× time, "
            f"{measured[m]['bytes'] / full['bytes']:.2f}× memory"
            if m in measured
            else "not measured"
            for m in methods
        ]
        whole = f"{full['seconds']:.1f} s, {format_bytes(full['bytes'])}"
        rows.append([f"{size}k", whole, *cells])
    chunk = report.get("chunk_length")
    way = f"in chunks of {chunk:,} tokens" if chunk else "in one pass"
    head = (
        f"{report['model']}; target {report['target_size']:,}; full prefill {way}; "
        f"{report['machine']}; {versions(report)}; {report['date']}; {report['repeats']} run each."
    )
    return head + "\n\n" + make_table(["document tokens", "full prefill", *methods], rows)


def price() -> str:
    """The tables of `benchmarks.price`: time against a prefill and a first question, memory."""
    sections = [s for s in read_saved("price.json") if s["target_size"] == TARGET]
    names = list(dict.fromkeys(name for s in sections for run in s["runs"] for name in run))
    asked = [name for name in names if name != "prefill"]
    heads = [
        f"{s['tokens']:,} tokens, {s['dtype']}, {s['machine'].split(', ')[1]}" for s in sections
    ]

    def table(names: Sequence[str], cell: Callable[[Mapping[str, Any], str], str]) -> str:
        return make_table(
            ["", *heads], [[name, *(cell(s, name) for s in sections)] for name in names]
        )

    def of_first(section: Mapping[str, Any], name: str) -> str:
        return _ratio(section, name, f"first, {name.split(', ')[1]}")

    return "\n\n".join(
        [
            _price_facts(sections),
            "Times as shares of one full prefill's:",
            table(asked, lambda s, name: _ratio(s, name, "prefill")),
            "Times as shares of the first question's, with the documents read in the same way:",
            table([name for name in asked if not name.startswith("first")], of_first),
            "Of the default, as shares of a first question that reads everything:",
            table(
                [name for name in asked if name.endswith(", cascade")],
                lambda s, name: _ratio(s, name, "first, everything"),
            ),
            "Peak memory in addition to the loaded model:",
            table(names, _memory),
        ]
    )


def price_of_many() -> str:
    """Eight questions in one call, against the same ones one after the other."""
    section = read_saved("price.json")[0]
    keys = {"choosing": "choosing_seconds", "encoding": "encoding_seconds", "both": "seconds"}
    rows = [
        [how, *(_ratio(section, f"many, {how}", f"apart, {how}", key) for key in keys.values())]
        for how in ("everything", "cascade")
    ]
    names = dict.fromkeys(
        name for run in section["runs"] for name in run if "choosing_seconds" in run[name]
    )
    shares = [
        [name, *(_ratio(section, name, name, key, "seconds") for key in list(keys.values())[:2])]
        for name in names
        if not name.startswith("repeat")  # of nothing there are no shares
    ]
    return "\n\n".join(
        [
            make_table(["", *keys], rows),
            "How each measurement divides:",
            make_table(["", "choosing", "encoding"], shares),
        ]
    )


def price_of_length() -> str:
    """A first question about ever longer documents, against the shortest of them."""
    sections = [s for s in read_saved("price.json") if s["target_size"] != TARGET]
    (shortest, *_) = (s["runs"][0]["first, cascade"] for s in sections)
    rows = []
    for section in sections:
        found = section["runs"][0]["first, cascade"]
        outside = found["seconds"] - found["model_seconds"]
        rows.append(
            [
                f"{section['tokens']:,}",
                f"{found['read_tokens']:,}",
                f"{found['seconds'] / shortest['seconds']:.2f}×",
                f"{outside / found['seconds']:.0%}",
            ]
        )
    head = ["document tokens", "read", "time, of the shortest's", "of it outside the model"]
    return _price_facts(sections) + "\n\n" + make_table(head, rows)


def price_of_rows() -> str:
    """Where a first question's time goes, and the tokens that are fed for it."""
    report = read_saved("price_rows.json")
    runs = report["runs"]
    whole = [sum(run["seconds"].values()) for run in runs]
    times = [
        [name, *(f"{run['seconds'][name] / of:.0%}" for run, of in zip(runs, whole, strict=True))]
        for name in runs[0]["seconds"]
    ]
    fed = runs[0]["tokens"]
    tokens = [
        [name, f"{count:,}", f"{count / sum(fed.values()):.0%}"] for name, count in fed.items()
    ]
    head = (
        f"{report['model']}; {report['document_tokens']:,} tokens, target "
        f"{report['target_size']:,}; {runs[0]['segments']} segments read; {report['machine']}; "
        f"{versions(report)}; {report['date']}."
    )
    return "\n\n".join(
        [
            head,
            make_table(["tokens fed for", "", "share"], tokens),
            make_table(["share of the time", *(run["dtype"] for run in runs)], times),
        ]
    )


def start() -> str:
    """The numbers of `benchmarks.start`."""
    report = read_saved("start.json")
    found = report["medians"]
    return (
        f"{found['ready_seconds']:.1f} seconds of the processor's time, "
        f"{found['ready_wall_seconds']:.1f} on the clock of a machine that did other work as well "
        f"({report['model']}, {report['machine']}, {versions(report)}, {report['date']}; medians "
        f"of {len(report['runs'])}). Importing torch and transformers, whose model classes import "
        "parts for training on several machines, takes most of that; the command itself "
        f"{found['imports_seconds']:.1f}."
    )


def _price_facts(sections: Sequence[Mapping[str, Any]]) -> str:
    facts = dict.fromkeys(
        f"{s['tokens']:,} tokens, {s['dtype']}, runs: {len(s['runs'])}; {s['model']}; target "
        f"{s['target_size']:,}; {s['machine']}; {versions(s)}; {s['date']}"
        for s in sections
    )
    return ".\n".join(facts) + "."


def _ratio(
    section: Mapping[str, Any], name: str, base: str, key: str = "seconds", of: str | None = None
) -> str:
    """The median over the runs that have both; empty if none has."""
    of = of or key
    runs = [run for run in section["runs"] if key in run.get(name, ()) and of in run.get(base, ())]
    return f"{median(run[name][key] / run[base][of] for run in runs):.2f}×" if runs else ""


def _memory(section: Mapping[str, Any], name: str) -> str:
    """The median over the runs that measured it; empty if none has."""
    key = "bytes_over_model"
    found = [run[name][key] for run in section["runs"] if key in run.get(name, ())]
    return format_bytes(median(found)) if found else ""
