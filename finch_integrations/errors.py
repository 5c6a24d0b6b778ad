"""Every error this package raises on purpose.

FinchError (RuntimeError)
├── ConfigurationError      an option has a wrong value or does not exist
├── InvalidInputError       documents, question or files cannot be used
│   └── ConstraintError     a schema, expression or grammar cannot be compiled
├── ContextTooLongError     prompt and budget do not fit the window or the budget
├── UnsupportedModelError   the model's architecture or rope type is not supported
├── ModelLoadError          a model cannot be found, fetched, verified or read
├── MissingExtraError       an optional dependency is not installed
├── ServerUnavailableError  a model server cannot be reached, is overloaded or failed
└── ServerRefusedError      a model server does not accept the request, or its key

The root is a RuntimeError, not a ValueError: some frameworks swallow ValueErrors at call time.
"""


def install_command(extra: str) -> str:
    """Say how an extra of this package is installed."""
    return (
        f"pip install '.[{extra}]' in a clone of the repository, or "
        f"pip install 'finch-integrations[{extra}]' where a package index has it"
    )


class FinchError(RuntimeError):
    """Root of all errors raised by finch_integrations."""


class ConfigurationError(FinchError):
    """An option has a wrong value or does not exist."""


class InvalidInputError(FinchError):
    """Documents, question, messages or files cannot be used as given."""


class ConstraintError(InvalidInputError):
    """A schema, regular expression or grammar cannot be compiled or followed; says which part."""


class ContextTooLongError(FinchError):
    """The prompt, the budget and the chunk do not fit the model's window or the byte budget."""


class UnsupportedModelError(FinchError):
    """The model's architecture, layers or rope type are not supported."""


class ModelLoadError(FinchError):
    """A model cannot be found, fetched, verified or read."""


class MissingExtraError(FinchError):
    """An optional dependency is not installed."""


class ServerUnavailableError(FinchError):
    """A model server cannot be reached, is overloaded, takes too long or failed."""


class ServerRefusedError(FinchError):
    """A model server does not accept the request: the key, the model's name or an option."""
