"""Tables of what `benchmarks/` measured: how good choices and searches are."""

import re
from pathlib import Path

from page_parts.markdown import folded, format_bytes, make_table
from page_parts.saved import circumstances, read_saved, versions


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
        where = {circumstances(row) for measured in rows.values() for row in measured.values()}
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


def recall() -> str:
    """The table of `benchmarks.retrieval`."""
    report = read_saved("retrieval.json")
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
            f"{report['machine']}; {versions(report)}; {report['date']}.",
            make_table(["questions", "searcher", *measures], rows),
        ]
    )


def auto_size() -> str:
    """The table of `benchmarks.auto_size`."""
    from benchmarks.auto_size import PACKED, compare
    from benchmarks.quality_results import read_rows

    rows = read_rows(PACKED)
    head = (
        f"`python -m benchmarks.auto_size`: model `{rows[0]['model']}`; {circumstances(rows[0])}. "
        "The questions of 2k tokens that the rule was chosen on are left out at both lengths; "
        "2,048 is what is kept without a budget. NLL minus that of `auto` is paired, with its 95 % "
        "interval."
    )
    names = ["documents (questions)", "`target_size`", "tokens", "answers kept", "NLL", "median"]
    return f"{head}\n\n" + make_table([*names, "by task"], compare(rows))


def two_steps() -> str:
    """The table of `benchmarks.two_steps`."""
    # They take seconds to import, which pages without them need not wait for.
    from benchmarks.quality_results import read_rows
    from benchmarks.two_steps import PACKED, PART, compare

    rows = read_rows(PACKED)
    head = (
        f"`python -m benchmarks.two_steps`: model `{rows[0]['model']}`, 1/{PART} kept; "
        f"{circumstances(rows[0])}. `needle:twohop` are facts in books that take two steps, "
        "`needle:single` those that take one; other tasks are those of the benchmarks. The change "
        "of the right answer's NLL is paired, with its 95 % interval; below zero links are better."
    )
    names = ["task", "answer kept, without links", "with links", "NLL, change", "median"]
    return f"{head}\n\n" + make_table(names, compare(rows))


def hybrids() -> str:
    """The tables of `benchmarks.hybrids`, of questions that nothing was chosen on."""
    from benchmarks.hybrids import PACKED

    return _rivals(PACKED)


def searched() -> str:
    """The same of questions over what a search finds for them."""
    from benchmarks.hybrids import SEARCHED

    return _rivals(SEARCHED)


def _rivals(path: Path) -> str:
    # They take seconds to import, which pages without them need not wait for.
    from benchmarks.hybrids import by_length, by_task, rivals
    from benchmarks.quality_results import read_buckets, read_rows

    by_bucket, facts = read_buckets(path), read_rows(path)[0]
    names = rivals(by_bucket)
    labels = [name.removeprefix("rag-") for name in names]
    lengths = make_table(
        ["documents, kept (questions)", "default", *labels], by_length(by_bucket, names)
    )
    tasks = make_table(["task (questions)", *labels], by_task(by_bucket, names))
    return (
        f"Model `{facts['model']}`, {circumstances(facts)}. NLL minus that of the default, paired, "
        "with its 95 % interval, and how often the answer is in the kept text.\n\n"
        f"{lengths}\n\nOver all lengths and budgets; a question counts once when intervals are "
        f"drawn:\n\n{tasks}"
    )


def near_copies() -> str:
    """The table of `benchmarks.near_copies`."""
    report = read_saved("near_copies.json")
    head = (
        f"`python -m benchmarks.near_copies`: {report['items']} questions, documents of "
        f"{report['bucket']} tokens once and twice, 1/{report['part']} kept, by words alone; "
        f"transformers {report['facts']['transformers']}."
    )
    names = ["share of the words", "twice: answer kept", "said again", "once: kept", "again"]
    return f"{head}\n\n" + make_table(names, report["rows"])


def elsewhere() -> str:
    """The table of `benchmarks.elsewhere`."""
    report = read_saved("elsewhere.json")
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
    about = circumstances(report["facts"])
    head = f"Questions of {report['cells'][0]['tasks']} kinds; {about}."
    names = ["documents, kept (questions)", "answers", "chooses", "NLL, median", "mean"]
    return f"{head}\n\n" + make_table([*names, "over its own choice", "answer kept"], rows)


def first_token() -> str:
    """The table of `benchmarks.first_token`."""
    rows, facts = [], []
    for report in read_saved("first_token.json"):
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
            f"{report['threads']}; {versions(report)}; {report['date']}"
        )
    head = ["generator", "document tokens", "kept", "with / without, question by question"]
    return ".\n".join(facts) + ".\n\n" + make_table([*head, "on the clock"], rows)


def scale() -> str:
    """The table of `benchmarks.scale`."""
    report = read_saved("scale.json")
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
