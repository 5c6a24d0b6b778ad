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


def overview() -> str:
    """Every public name with its first line, by page."""
    parts = []
    for package, title in PACKAGES.items():
        rows = [
            [f"[`{name}`]({page_of(package)}#{package}.{name})", _first_line(package, name)]
            for name in names_of(package)
        ]
        parts.append(
            f"## [{title}]({page_of(package)})\n\n`{package}`\n\n{make_table(['', ''], rows)}"
        )
    return "\n\n".join(parts)


def public_names(package: str) -> str:
    """Every name that a package exports, described by its docstring."""
    return "\n\n".join([f"`{package}`", *(f"::: {package}.{name}" for name in names_of(package))])


def names_of(package: str) -> list[str]:
    """What a package exports, but for what is described with an earlier one."""
    earlier = list(PACKAGES)[: list(PACKAGES).index(package)]
    described = {name for other in earlier for name in import_module(other).__all__}
    return [name for name in import_module(package).__all__ if name not in described]


def page_of(package: str) -> str:
    """The page of a package."""
    part = package.partition(".")[2].replace("_", "-") or "engine"
    return f"api-{part}.md"


def _first_line(package: str, name: str) -> str:
    thing = getattr(import_module(package), name)
    return (thing.__doc__ or "").strip().splitlines()[0]


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
