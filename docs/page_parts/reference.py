"""The references of the command line and of Python, from the code itself."""

from importlib import import_module
from typing import Any

from page_parts.markdown import make_table

PACKAGES = {
    "finch_integrations": "The engine",
    "finch_integrations.adapters": "Options of all adapters",
    "finch_integrations.retrieval": "Retrieval",
    "finch_integrations.langchain": "LangChain",
    "finch_integrations.llama_index": "LlamaIndex",
    "finch_integrations.report": "Report",
    "finch_integrations.serve": "Server",
}


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
            make_table(
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
