"""The `finch` command."""

import sys

from finch_integrations.errors import install_command


def main() -> None:
    """Run the command line; a missing extra is named on one line."""
    try:
        try:
            from finch_integrations.cli.app import app
        except ImportError as error:
            sys.stderr.write(
                f"finch: the command line needs an extra ({error}): {install_command('cli')}\n"
            )
            raise SystemExit(1) from None
        app()
    except KeyboardInterrupt:  # before a command runs
        sys.stderr.write("error: interrupted\n")
        raise SystemExit(130) from None
