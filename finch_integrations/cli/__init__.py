"""The `finch` command."""

import sys


def main() -> None:
    """Run the command line; a missing extra is named on one line."""
    try:
        from finch_integrations.cli.app import app
    except ImportError as error:
        sys.stderr.write(
            f"finch: the command line needs an extra ({error}): "
            "pip install 'finch-integrations[cli]'\n"
        )
        raise SystemExit(1) from None
    app()
