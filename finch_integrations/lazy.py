"""Names that are imported when they are first used, because what they need is heavy or optional."""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from finch_integrations.errors import MissingExtraError


def lazy_exports(
    module: str, places: Mapping[str, str], install: Mapping[str, str] | None = None
) -> Callable[[str], Any]:
    """Make a module's `__getattr__`.

    Args:
        module: The module's name.
        places: For every name, the module that defines it.
        install: For every optional package, the command that installs it.

    Returns:
        A function that raises AttributeError for other names, and MissingExtraError where an
        optional package is not installed.
    """

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        try:
            return getattr(import_module(places[name]), name)
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package not in (install or {}):
                raise
            raise MissingExtraError(
                f"{name} needs the package {package}, which is not installed. "
                f"Install it: {(install or {})[package]}"
            ) from error

    return get
