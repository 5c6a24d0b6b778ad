"""Tables of what is lost when not everything is read."""

from typing import Any

from page_parts.markdown import make_table

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


def read_cap() -> str:
    """What `benchmarks.read_cap` lost: on the half for choosing a cap, and on the other."""
    from benchmarks.quality_results import read_rows
    from benchmarks.read_cap import BUDGETS, CHOSEN, PACKED, compare, halves

    rows = read_rows(PACKED)
    choice, test = map(compare, halves(rows).values())
    table = [
        [length, f"**{name}**" if name == CHOSEN else name, *cells, *others]
        for (length, name, *cells), (_, _, *others) in zip(choice, test, strict=True)
    ]
    kept = f"answers kept, {', '.join(f'{budget:,}' for budget in BUDGETS)}"
    nll = [f"NLL, half for {half}" for half in ("choosing", "testing")]
    head = ["tokens", "read", nll[0], kept, nll[1], "answers kept"]
    facts = f"{len({row['id'] for row in rows})} questions; model `{rows[0]['model']}`, "
    return f"{facts}{rows[0]['dtype']}, {rows[0]['machine']}.\n\n" + make_table(head, table)
