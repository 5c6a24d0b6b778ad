"""The page that `finch ask --report` writes, and what `--compare` shows next to it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finch_integrations.cli import console
from finch_integrations.errors import InvalidInputError
from finch_integrations.pipeline.rag import RagAnswer

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine
    from finch_integrations.report import Report


def check_report(path: Path | None, compare: Sequence[str]) -> None:
    """Refuse a place that cannot be a file's, and unknown comparisons, before anything slow.

    Raises:
        InvalidInputError: The report cannot be written there, or there is none to compare in.
        ConfigurationError: There is nothing like that to compare with.
        ModelLoadError: The comparison needs a model that has not been fetched.
    """
    if path is None:
        if compare:
            raise InvalidInputError("--compare needs --report: the comparison is shown there")
        return
    if path.is_dir():
        raise InvalidInputError(f"{path} is a folder. Give the report a file name in it")
    if not path.absolute().parent.is_dir():
        raise InvalidInputError(
            f"there is no folder {path.parent} to write the report to. Make it first"
        )
    if compare:
        from finch_integrations.report.comparing import check_comparison

        for what in compare:
            check_comparison(what)


def make_page(
    engine: "FinchEngine",
    answer: RagAnswer,
    compression: Mapping[str, Any],
    compare: Sequence[str],
) -> "Report":
    """Make the report, and the comparisons in it.

    Raises:
        FinchError: As the comparisons raise it.
    """
    from finch_integrations.report import make_report
    from finch_integrations.report.comparing import compare_with

    context = answer.details.context
    assert context is not None, "it was asked for"
    others = {}
    for what in compare:
        with console.busy(f"Comparing with {what}"):
            others[f"{what} tokens" if what.isdecimal() else what] = compare_with(
                what,
                engine,
                answer.documents,
                context.question,
                context.stats.kept_tokens,
                compression,
            )
    return make_report(
        engine,
        answer.documents,
        context,
        answer=answer.text,
        method=compression["method"],
        compare=others,
    )
