"""Parts of the pages that are made from code and results when the site is built.

A page says `<!-- generated: NAME -->`; the function of that name below writes what stands there.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
PACKAGES = {
    "finch_integrations": "The engine",
    "finch_integrations.retrieval": "Retrieval",
    "finch_integrations.adapters": "Options of all adapters",
    "finch_integrations.langchain": "LangChain",
    "finch_integrations.llama_index": "LlamaIndex",
    "finch_integrations.report": "Report",
}


@dataclass(frozen=True, slots=True)
class Model:
    """What the size of a model's cache depends on, from its published configuration."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    window: int

    def cache_bytes(self, tokens: int, *, bytes_per_number: int = 2) -> int:
        """Size of the keys and values of so many tokens."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_number * tokens


MODELS = (
    Model("Llama-3.1-8B", layers=32, kv_heads=8, head_dim=128, window=131_072),
    Model("Qwen3-8B", layers=36, kv_heads=8, head_dim=128, window=40_960),
    Model("Qwen3-4B", layers=36, kv_heads=8, head_dim=128, window=40_960),
    Model("Mistral-7B v0.3", layers=32, kv_heads=8, head_dim=128, window=32_768),
    Model("SmolLM2-135M", layers=30, kv_heads=3, head_dim=64, window=8_192),
)
LENGTHS = (8, 16, 32, 64, 128)  # thousands of 1,024 tokens
# An example: a short system text and question, and the default target and chunk.
PREFIX, TARGET, CHUNK, QUESTION = 100, 2048, 1024, 50
BOUND = PREFIX + TARGET + CHUNK + QUESTION


def memory() -> str:
    """Sizes of full caches, by model and length, against the longest that is ever held."""
    rows = [
        [
            model.name,
            *(
                f"*{size}*" if length * 1024 > model.window else size
                for length in LENGTHS
                for size in [_bytes(model.cache_bytes(length * 1024))]
            ),
            f"**{_bytes(model.cache_bytes(BOUND))}**",
        ]
        for model in MODELS
    ]
    return _table(["", *(f"{length}k" for length in LENGTHS), "compressed, any length"], rows)


def kv_bytes() -> str:
    """Bytes per token, and what they come from."""
    return _table(
        ["", "layers", "KV heads", "head size", "a token", "window"],
        [
            [
                model.name,
                str(model.layers),
                str(model.kv_heads),
                str(model.head_dim),
                _bytes(model.cache_bytes(1)),
                f"{model.window:,}",
            ]
            for model in MODELS
        ],
    )


def commands() -> str:
    """Every command with its arguments and options, as `finch COMMAND --help` has them."""
    import typer

    from finch_integrations.cli.app import app

    group: Any = typer.main.get_command(app)
    parts = []
    for name, command in group.commands.items():
        arguments = [p for p in command.params if p.param_type_name == "argument"]
        options = [p for p in command.params if p.param_type_name == "option"]
        usage = " ".join([f"finch {name}", *(_argument(p) for p in arguments), "[OPTIONS]"])
        parts += [f"## finch {name}", command.help, f"```text\n{usage}\n```"]
        parts.append(
            _table(
                ["", "", "default"],
                [[f"`{_argument(p)}`", p.help, ""] for p in arguments]
                + [[_names(p), *_split_default(p)] for p in options],
            )
        )
    return "\n\n".join(parts)


def public_names() -> str:
    """Every name that the packages export, described by its docstring."""
    parts = []
    described: set[str] = set()
    for package, title in PACKAGES.items():
        parts.append(f"## {title}\n\n`{package}`")
        for name in import_module(package).__all__:
            if name not in described:  # HybridRetriever and RetrievalConfig are in two of them
                parts.append(f"::: {package}.{name}")
            described.add(name)
    return "\n\n".join(parts)


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
            _table(["", "median", "range"], rows),
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
        parts += [
            f"Model `{model}`, documents of about {bucket} tokens; {'; '.join(sorted(where))}.",
            re.sub("^## ", f"### {model}, ", tables(rows, bucket), flags=re.M),
        ]
    return "\n\n".join(parts)


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
        whole = f"{full['seconds']:.1f} s, {_bytes(full['bytes'])}"
        rows.append([f"{size}k", whole, *cells])
    head = (
        f"{report['model']}; target {report['target_size']:,}, chunk {report['chunk_length']:,}; "
        f"{report['machine']}; {_versions(report)}; {report['date']}; {report['repeats']} run each."
    )
    return head + "\n\n" + _table(["document tokens", "full prefill", *methods], rows)


def recall() -> str:
    """The table of `benchmarks.retrieval`."""
    report = _read("retrieval.json")
    results = report["results"]
    measures = list(next(iter(next(iter(results.values())).values())))
    rows = [
        [f"{task} ({report['questions'][task]})", leg, *(f"{values[m]:.3f}" for m in measures)]
        for task, legs in results.items()
        for leg, values in legs.items()
    ]
    return "\n\n".join(
        [
            f"{report['documents']:,} documents in {report['chunks']:,} chunks of at most "
            f"{report['chunk_size']:,} characters; encoder `{report['encoder']}`; "
            f"{report['machine']}; {_versions(report)}; {report['date']}.",
            _table(["questions", "leg", *measures], rows),
        ]
    )


def scale() -> str:
    """The table of `benchmarks.scale`."""
    report = _read("scale.json")
    rows = []
    for name, value in report.items():
        if name.endswith("_seconds"):
            rows.append([name.removesuffix("_seconds"), f"{value:.3g} s"])
        elif name.endswith("_bytes"):
            rows.append([name.removesuffix("_bytes"), _bytes(value)])
    head = f"{report['chunks']:,} chunks; {report['machine']}, one thread; {report['date']}."
    return f"{head}\n\n" + _table(
        ["", ""], [[name.replace("_", " "), value] for name, value in rows]
    )


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands,
    "kv_bytes": kv_bytes,
    "length": length,
    "memory": memory,
    "prefill": prefill,
    "public_names": public_names,
    "quality": quality,
    "recall": recall,
    "scale": scale,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write the generated parts; called by mkdocs."""
    markdown = re.sub(r"<!-- generated: (\w+) -->", lambda part: GENERATED[part[1]](), markdown)
    # A list inside a numbered one: three spaces are enough everywhere but here.
    return re.sub(r"^   (?=- )", "    ", markdown, flags=re.M)


def on_page_content(html: str, **_: Any) -> str:
    """Put diagrams into the page itself, where they follow its colours; called by mkdocs."""
    return re.sub(
        r'<img alt="([^"]*)" src="(diagrams/[^"]+\.svg)"[^>]*>',
        lambda image: (
            (ROOT / "docs" / image[2])
            .read_text(encoding="utf-8")
            .replace("<svg ", f'<svg role="img" aria-label="{image[1]}" ', 1)
        ),
        html,
    )


def _argument(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    name = name if parameter.required else f"[{name}]"
    return f"{name}..." if parameter.nargs == -1 else name


def _names(option: Any) -> str:
    return ", ".join(f"`{name}`" for name in sorted(option.opts, key=lambda name: name[:2] != "--"))


def _split_default(option: Any) -> list[str]:
    """Text and default; help may bring one that the option cannot have: 'Tokens (default: 9).'."""
    text, _, default = (option.help or "").partition(" (default: ")
    if default:
        return [f"{text}.", default.removesuffix(").")]
    if option.required:
        return [text, "required"]
    none = option.default is None or option.is_flag
    return [text, "" if none else f"`{option.default}`"]


def _bytes(number: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if number < 1024 or unit == "GiB":
            break
        number /= 1024
    digits = 0 if number >= 100 or number == int(number) else 1
    return f"{number:.{digits}f} {unit}"


def _versions(report: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in report["versions"].items())


def _read(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines
    )
