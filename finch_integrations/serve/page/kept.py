"""A report of what was kept, next to another way to choose; runs in the model's thread."""

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING

from finch_integrations.pipeline.ask import AskRequest
from finch_integrations.report import make_report
from finch_integrations.report.comparing import check_comparison, compare_with

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine


def draw_kept(
    engine: "FinchEngine",
    *,
    request: AskRequest,
    answer: str | None,
    other: str | None,
    check: Callable[[], None],
) -> Generator[str, None, None]:
    """Choose, and draw what was kept.

    Args:
        engine: Chooses.
        request: What was asked; its documents have ids.
        answer: What was answered.
        other: Another way to choose, as `compare_with` takes it; None: none.
        check: Called between steps; raises to cancel.

    Yields:
        The page, once.

    Raises:
        FinchError: As `FinchEngine.compress` and `compare_with` raise it.
    """
    if other is not None:
        check_comparison(other)
    question, options = request.messages[-1]["content"], dict(request.compression)
    kept = engine.compress(request.documents, question, progress=lambda _: check(), **options)
    check()
    others = {}
    if other is not None:
        name = f"{other} tokens" if other.isdecimal() else other
        others[name] = compare_with(
            other, engine, request.documents, question, kept.stats.kept_tokens, options
        )
    yield make_report(
        engine,
        request.documents,
        kept,
        answer=answer,
        method=str(options.get("method", engine.compression.method)),
        compare=others,
    ).html
