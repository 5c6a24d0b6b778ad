"""`finch cache`."""

import json
from dataclasses import asdict
from pathlib import Path

from finch_integrations.cli import console


def run_cache(folder: Path | None, *, empty: bool, as_json: bool) -> None:
    """Describe the folder of passages that models have read, or empty it."""
    from finch_integrations.engine.passage_folder import clear, summarize
    from finch_integrations.storage import passages_folder

    folder = folder or passages_folder()
    before = summarize(folder)
    if empty:
        clear(folder)
    summary = summarize(folder) if empty else before
    removed = before.entries - summary.entries
    speed = summary.read_speed
    if as_json:
        facts = {
            "folder": str(folder),
            "passages": summary.entries,
            "bytes": summary.nbytes,
            "max_bytes": summary.max_bytes,
            "read_bytes_per_second": speed and speed.bytes_per_second,
            "read_cold": speed and speed.cold,
            "models": {
                name: {**asdict(model), "kept_on_disk": summary.pays(name)}
                for name, model in summary.models.items()
            },
            "removed": removed,
        }
        console.write(json.dumps(facts, ensure_ascii=False, indent=2))
        return
    if empty:
        console.note(f"deleted {removed:,} passages, {_megabytes(before.nbytes - summary.nbytes)}")
    cap = "" if summary.max_bytes is None else f" of at most {_megabytes(summary.max_bytes)}"
    console.write(f"{folder}\n{summary.entries:,} passages, {_megabytes(summary.nbytes)}{cap}")
    if speed:
        where = "from the device" if speed.cold else "from the page cache"
        console.write(f"read at {_megabytes(speed.bytes_per_second)}/s, {where}")
    else:
        console.write("reading speed not measured yet")
    for name, model in summary.models.items():
        needed = _megabytes(model.tokens_per_second * model.bytes_per_token)
        use = "used" if summary.pays(name) else "not used: reading again is faster"
        console.write(
            f"{name}: reads {model.tokens_per_second:,.0f} tokens/s, which is {needed}/s; {use}"
        )


def _megabytes(number: float) -> str:
    return f"{number / 1e6:,.0f} MB"
