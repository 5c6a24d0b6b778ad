"""Tables of what `benchmarks/` measured."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from page_parts.markdown import folded, format_bytes, make_table

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"


def prefill() -> str:
    """Ratios of `benchmarks.prefill`."""
    report = _read("prefill.json")
    ratios: Mapping[str, Sequence[float]] = report["ratios"]
    rows = [
        [name, f"{median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"]
        for name, values in ratios.items()
    ]
    return "\n\n".join(
        [
            f"{report['model']}; {report['tokens']:,} document tokens, target "
            f"{report['target_size']:,}, chunk {report['chunk_length']:,}; {report['machine']}; "
            f"{_versions(report)}; {report['date']}.",
            make_table(["", "median", "range"], rows),
        ]
    )


def quality() -> str:
    """The tables of `benchmarks.quality_report`, for every length and model that was measured."""
    # They take seconds to import, which pages without them need not wait for.
    from benchmarks.quality_report import pooled, tables
    from benchmarks.quality_results import read_all

    results = read_all()
    parts = []
    for model in sorted({model for model, _ in results}):
        of_model = {bucket: rows for (name, bucket), rows in results.items() if name == model}
        parts += [
            f"Model `{model}`, all lengths ({', '.join(of_model)}) and budgets together: NLL of "
            "other methods minus likelihood's, 95 % interval. A question counts at every length "
            "and budget that it was measured at.",
            pooled(of_model),
        ]
    for (model, bucket), rows in results.items():
        where = {
            f"{row['machine']}, {row['dtype']}, torch {row['torch']}, "
            f"transformers {row['transformers']}, commit {row['commit']}"
            for measured in rows.values()
            for row in measured.values()
        }
        about = f"Model `{model}`, documents of about {bucket} tokens; {'; '.join(sorted(where))}."
        found = re.sub("^## ", f"### {model}, ", tables(rows, bucket), flags=re.M)
        parts.append(folded(f"{model}, {bucket}", f"{about}\n\n{found}"))
    return "\n\n".join(parts)


def same_items() -> str:
    """The default against its strongest rivals on the very same questions."""
    from benchmarks.quality_results import read_all
    from benchmarks.shared_items import OWN, difference, read_shared

    rivals = {"best-bm25": "BM25, best segmentation", "rag-hybrid": "BM25 + embeddings"}
    table = []
    for (model, bucket), rows in read_all().items():
        for budget in sorted({budget for _, _, budget in rows if budget}):
            # At 8k tokens there are 19 questions of a task.
            shared = read_shared(rows, [OWN, "rag-hybrid"], budget, fewest=15)
            if shared is None:
                continue
            for method, label in rivals.items():
                mean, (low, high), middle = difference(shared, method)
                left_out = [difference(shared, method, task)[0] for task in shared.nll[OWN]]
                table.append(
                    [
                        f"{model}, {bucket}, 1/{budget} ({len(shared.all(OWN))})",
                        f"{label} ({shared.best[method]})" if method == "best-bm25" else label,
                        f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]",
                        f"{middle:+.2f}",
                        f"{min(left_out):+.2f} to {max(left_out):+.2f}",
                    ]
                )
    head = ["documents, kept (questions)", "", "mean", "median", "without one task"]
    return make_table(head, table)


def length() -> str:
    """The table of `benchmarks.length`: each method against one full prefill."""
    report = _read("length.json")
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
        f"{report['machine']}; {_versions(report)}; {report['date']}; {report['repeats']} run each."
    )
    return head + "\n\n" + make_table(["document tokens", "full prefill", *methods], rows)


def price() -> str:
    """The tables of `benchmarks.price`: shares of a full prefill, and of the first question."""
    sections = _read("price.json")
    names = list(dict.fromkeys(name for s in sections for run in s["runs"] for name in run))
    heads = [f"{s['tokens']:,} tokens, {s['dtype']}" for s in sections]

    def ratio(section: Mapping[str, Any], name: str, base: str, key: str) -> str:
        runs = [
            run for run in section["runs"] if key in run.get(name, ()) and key in run.get(base, ())
        ]
        return f"{median(run[name][key] / run[base][key] for run in runs):.2f}×" if runs else ""

    whole = [
        [
            name,
            *(
                ", ".join(
                    f"{share} {what}"
                    for what, key in (("time", "seconds"), ("memory", "bytes_over_model"))
                    if (share := ratio(s, name, "prefill", key))
                )
                for s in sections
            ),
        ]
        for name in names
        if name != "prefill"
    ]
    later = [
        [name, *(ratio(s, name, f"first, {name.split(', ')[1]}", "seconds") for s in sections)]
        for name in names
        if ", " in name and not name.startswith("first")
    ]
    default = [
        [name, *(ratio(s, name, "first, everything", "seconds") for s in sections)]
        for name in names
        if name.endswith(", cascade")
    ]
    facts = sorted(
        {
            f"{s['tokens']:,} tokens, {s['dtype']}, runs: {len(s['runs'])}; {s['model']}; target "
            f"{s['target_size']:,}; {s['machine']}; {_versions(s)}; {s['date']}"
            for s in sections
        }
    )
    return "\n\n".join(
        [
            ".\n".join(facts) + ".",
            "Shares of one full prefill:",
            make_table(["", *heads], whole),
            "Times as shares of the first question's, with the documents read in the same way:",
            make_table(["", *heads], later),
            "Of the default, as shares of a first question that reads everything:",
            make_table(["", *heads], default),
        ]
    )


def start() -> str:
    """The numbers of `benchmarks.start`."""
    report = _read("start.json")
    found = report["medians"]
    return (
        f"{found['ready_seconds']:.1f} seconds of the processor's time, "
        f"{found['ready_wall_seconds']:.1f} on the clock of a machine that did other work as well "
        f"({report['model']}, {report['machine']}, {_versions(report)}, {report['date']}; medians "
        f"of {len(report['runs'])}). Importing torch and transformers, whose model classes import "
        "parts for training on several machines, takes most of that; the command itself "
        f"{found['imports_seconds']:.1f}."
    )


def recall() -> str:
    """The table of `benchmarks.retrieval`."""
    report = _read("retrieval.json")
    results = report["results"]
    measures = list(next(iter(next(iter(results.values())).values())))
    rows = [
        [f"{task} ({report['questions'][task]})", search, *(f"{values[m]:.3f}" for m in measures)]
        for task, searches in results.items()
        for search, values in searches.items()
    ]
    return "\n\n".join(
        [
            f"{report['documents']:,} documents in {report['chunks']:,} chunks of at most "
            f"{report['chunk_size']:,} characters; encoder `{report['encoder']}`; "
            f"{report['machine']}; {_versions(report)}; {report['date']}.",
            make_table(["questions", "searcher", *measures], rows),
        ]
    )


def two_steps() -> str:
    """The table of `benchmarks.two_steps`."""
    # They take seconds to import, which pages without them need not wait for.
    from benchmarks.quality_results import read_rows
    from benchmarks.two_steps import PACKED, PART, compare

    rows = read_rows(PACKED)
    facts = rows[0]
    head = (
        f"`python -m benchmarks.two_steps`: model `{facts['model']}`, 1/{PART} kept; "
        f"{facts['machine']}, {facts['dtype']}, torch {facts['torch']}, transformers "
        f"{facts['transformers']}, commit {facts['commit']}. `needle:twohop` are facts in books "
        "that take two steps, `needle:single` those that take one; other tasks are those of the "
        "benchmarks. The change of the right answer's NLL is paired, with its 95 % interval; below "
        "zero links are better."
    )
    names = ["task", "answer kept, without links", "with links", "NLL, change", "median"]
    return f"{head}\n\n" + make_table(names, compare(rows))


_READ = {
    "words 1/2": "1/2, words",
    "words 3/8": "**3/8, words**",
    "words x3": "x3, words",
    "meaning x3": "x3, meaning",
    "layer 12 3/8": "3/8, layer 12",
    "nothing": "nothing (words alone)",
}


def cascade_choice() -> str:
    """What `benchmarks.cascade` lost: on the half for choosing a default, and on the other."""
    from benchmarks.cascade_report import PACKED, halves, losses
    from benchmarks.quality_results import read_rows

    rows = read_rows(PACKED)
    choice, test = (losses(some) for some in halves(rows).values())
    counts = ", ".join(
        f"{len({row['id'] for row in rows if row['bucket'] == bucket})} at {bucket}"
        for bucket in sorted({row["bucket"] for row in rows}, key=lambda it: int(it[:-1]))
    )
    table = [
        [
            label,
            f"{test[name].share:.2f}",
            *(text for half in (choice, test) for text in _loss(half[name])),
        ]
        for name, label in ({"everything": "everything"} | _READ).items()
    ]
    return (
        f"{len({row['id'] for row in rows})} questions ({counts}); {choice['everything'].count} "
        f"measurements for choosing, {test['everything'].count} for testing.\n\n"
        + make_table(
            [
                *("read, chosen by", "share read"),
                *("half for choosing", "answers kept"),
                *("half for testing", "answers kept"),
            ],
            table,
        )
    )


def cascade() -> str:
    """What `benchmarks.cascade` lost: at each length and budget, and of each task."""
    from benchmarks.cascade_report import PACKED, cells, losses
    from benchmarks.quality_results import read_rows

    rows = read_rows(PACKED)
    groups = {f"{bucket}, 1/{budget}": some for bucket, budget, some in cells(rows)}
    for task in dict.fromkeys(row["task"] for row in rows):
        groups[f"all, `{task}`"] = [row for row in rows if row["task"] == task]
    shown = ("words 3/8", "words 1/2", "words x3", "nothing")
    table = []
    for name, some in groups.items():
        found = losses(some)
        whole = found["everything"]
        cells_of = (_loss(found[variant]) for variant in shown)
        table.append(
            [
                f"{name} ({whole.count})",
                f"{whole.kept:.0%}",
                *(f"{loss}; {kept}" for loss, kept in cells_of),
            ]
        )
    head = ["documents, kept (measurements)", "everything", *(_READ[name] for name in shown)]
    return make_table(head, table)


def _loss(loss: Any) -> tuple[str, str]:
    low, high = loss.interval
    nll = f"{loss.nll:+.2f} [{low:+.2f}, {high:+.2f}]" if low or high else "0"
    return nll, f"{loss.kept:.0%}"


def hybrids() -> str:
    """The table of `benchmarks.hybrids`."""
    # They take seconds to import, which pages without them need not wait for.
    from benchmarks.hybrids import PACKED, compare
    from benchmarks.quality_results import read_rows

    rows = read_rows(PACKED)
    facts = rows[0]
    commits = ", ".join(sorted({row["commit"] for row in rows}))
    head = (
        f"Model `{facts['model']}`, 1/8 kept; {facts['machine']}, {facts['dtype']}, torch "
        f"{facts['torch']}, transformers {facts['transformers']}, commit {commits}."
    )
    names = ["documents (questions)", "rival", "NLL above the default's", "median"]
    tasks = [f"`{task}`" for task in sorted({row["task"] for row in rows})]
    return f"{head}\n\n" + make_table([*names, *tasks, "answer kept"], compare(rows))


def near_copies() -> str:
    """The table of `benchmarks.near_copies`."""
    report = _read("near_copies.json")
    head = (
        f"`python -m benchmarks.near_copies`: {report['items']} questions, documents of "
        f"{report['bucket']} tokens once and twice, 1/{report['part']} kept, by words alone; "
        f"transformers {report['facts']['transformers']}."
    )
    names = ["share of the words", "twice: answer kept", "said again", "once: kept", "again"]
    return f"{head}\n\n" + make_table(names, report["rows"])


def elsewhere() -> str:
    """The table of `benchmarks.elsewhere`."""
    report = _read("elsewhere.json")
    rows = []
    for cell in report["cells"]:
        low, high = cell["interval_95"]
        own = cell["model"] == cell["chooser"]
        change = "" if own else f"{cell['nll_over_own_choice']:+.2f} [{low:+.2f}, {high:+.2f}]"
        rows.append(
            [
                f"{cell['bucket']}, 1/{cell['part']} ({cell['items']})",
                cell["model"],
                cell["chooser"],
                f"{cell['nll_median']:.2f}",
                f"{cell['nll_mean']:.2f}",
                change,
                f"{cell['survives']:.0%}",
            ]
        )
    facts = report["facts"]
    head = (
        f"Questions of {report['cells'][0]['tasks']} kinds; {facts['machine']}, {facts['dtype']}, "
        f"torch {facts['torch']}, transformers {facts['transformers']}, commit {facts['commit']}."
    )
    names = ["documents, kept (questions)", "answers", "chooses", "NLL, median", "mean"]
    return f"{head}\n\n" + make_table([*names, "over its own choice", "answer kept"], rows)


def first_token() -> str:
    """The table of `benchmarks.first_token`."""
    rows, facts = [], []
    for report in _read("first_token.json"):
        runs = report["runs"]
        clock = [run["with"]["wall_seconds"] / run["without"]["wall_seconds"] for run in runs]
        rows.append(
            [
                report["model"],
                f"{report['tokens']:,}",
                f"{report['target_size']:,}",
                ", ".join(f"{run['ratio']:.2f}" for run in runs),
                ", ".join(f"{ratio:.2f}" for ratio in clock),
            ]
        )
        facts.append(
            f"{report['model']}: after {report['scorer']}; {report['machine']}, threads: "
            f"{report['threads']}; {_versions(report)}; {report['date']}"
        )
    head = ["generator", "document tokens", "kept", "with / without, question by question"]
    return ".\n".join(facts) + ".\n\n" + make_table([*head, "on the clock"], rows)


def scale() -> str:
    """The table of `benchmarks.scale`."""
    report = _read("scale.json")
    rows = []
    for name, value in report.items():
        if name.endswith("_seconds"):
            rows.append([name.removesuffix("_seconds"), f"{value:.3g} s"])
        elif name.endswith("_bytes"):
            rows.append([name.removesuffix("_bytes"), format_bytes(value)])
    head = f"{report['chunks']:,} chunks; {report['machine']}, one thread; {report['date']}."
    return f"{head}\n\n" + make_table(
        ["", ""], [[name.replace("_", " "), value] for name, value in rows]
    )


def _versions(report: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in report["versions"].items())


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))
