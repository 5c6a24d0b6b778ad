"""Passages chosen here for a model elsewhere, by a budget in that one's tokens."""

import asyncio
import math
from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from finch_integrations.config import DEFAULT_TARGET_SIZE
from finch_integrations.documents import prepare_documents, with_unique_ids
from finch_integrations.errors import ConfigurationError
from finch_integrations.pipeline.ask import Progress
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.shorten import ShortenedDocument, shorten
from finch_integrations.pipeline.worker import Check
from finch_integrations.types import CompressionProgress, Document, DocumentShare, SelectionStats

if TYPE_CHECKING:
    from finch_integrations.engine.engine import FinchEngine
    from finch_integrations.engine.selection import Selection

TokenCount = Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What was chosen of documents.

    Attributes:
        documents: All documents, each with an id.
        shortened: What is left of those of which anything is.
        shares: Per document, how much of it was kept.
        stats: What the choice cost, in tokens of the model that chose.
        tokens_before: Tokens of all documents, as the model that answers counts them.
        tokens_after: Tokens of what was kept, counted in the same way.
    """

    documents: tuple[Document, ...]
    shortened: tuple[ShortenedDocument, ...]
    shares: tuple[DocumentShare, ...]
    stats: SelectionStats
    tokens_before: int
    tokens_after: int

    @property
    def complete(self) -> bool:
        """Whether everything was kept."""
        return self.stats.kept_tokens == self.stats.document_tokens


@dataclass(frozen=True, slots=True)
class Chooser:
    """A local model that chooses passages for a model elsewhere.

    Attributes:
        model: Reads the documents and chooses.
        compression: Fields of `CompressionConfig`, with the budget.
        count_tokens: Counts a text's tokens as the model that answers does; None: as the one that
            chooses does.
        most_tokens: What `target_size="auto"` keeps at most, as the model that answers counts.
    """

    model: SharedEngine
    compression: Mapping[str, Any]
    count_tokens: TokenCount | None = None
    most_tokens: int = DEFAULT_TARGET_SIZE

    def choose(
        self, documents: Iterable[Document], question: str, *, progress: Progress | None = None
    ) -> Choice:
        """Choose in the model's thread, after all earlier requests.

        Args:
            documents: To choose from.
            question: Decides what matters.
            progress: Called after every chunk.

        Raises:
            FinchError: As `FinchEngine.select` raises it.
        """
        task = partial(self._choosing, tuple(documents), question, progress)
        with closing(self.model.run(task)) as results:
            return next(results)

    async def achoose(
        self, documents: Iterable[Document], question: str, *, progress: Progress | None = None
    ) -> Choice:
        """Like `choose`, without blocking the event loop; cancelling the task stops the work."""
        task = partial(self._choosing, tuple(documents), question, progress)
        async with aclosing(self.model.arun(task)) as results:
            return await anext(results)

    def count(self, text: str) -> int:
        """Count the tokens of a text as the budget does."""
        return (self.count_tokens or self.model.count_tokens)(text)

    async def acount(self, text: str) -> int:
        """Like `count`, without blocking the event loop."""
        return await asyncio.to_thread(self.count, text)

    def _choosing(
        self,
        documents: tuple[Document, ...],
        question: str,
        progress: Progress | None,
        engine: "FinchEngine",
        check: Check,
    ) -> Generator[Choice, None, None]:
        def proceed(state: CompressionProgress) -> None:
            check()
            if progress is not None:
                progress(state)

        prepared = tuple(prepare_documents(with_unique_ids(documents)))
        select = partial(engine.select, prepared, question, progress=proceed)
        yield self._measured(prepared, select)

    def _measured(
        self, documents: tuple[Document, ...], select: Callable[..., "Selection"]
    ) -> Choice:
        """Select until what is kept fits the budget as the other model counts."""
        options = dict(self.compression)
        count = self.count_tokens
        if count is None:
            return _make(documents, select(**options), None)
        before = sum(count(document.text) for document in documents)
        if options.get("compression_ratio") is not None:
            budget = max(1, round(before * (1 - options.pop("compression_ratio"))))
        elif options.get("target_size") == "auto":
            choice = _make(documents, select(**options), count, before)
            if choice.tokens_after <= self.most_tokens:
                return choice
            del options["target_size"]
            budget = self.most_tokens
        else:
            budget = options.pop("target_size", None) or DEFAULT_TARGET_SIZE
        # What fits is not read: nothing needs to be chosen.
        own = sum(self.model.count_tokens(document.text) for document in documents)
        target = own * 2 if before <= budget else max(1, math.floor(budget * own / max(1, before)))
        while True:
            choice = _make(documents, select(**options, target_size=target), count, before)
            if choice.tokens_after <= budget or target == 1:
                return choice
            # Passages may have more tokens per character than the documents on average.
            target = max(1, min(target - 1, math.floor(target * budget / choice.tokens_after)))


def check_elsewhere(compression: Mapping[str, Any]) -> None:
    """Refuse what makes no sense where the answer is generated elsewhere.

    Raises:
        ConfigurationError: The method needs the cache of the model that answers, or the budget
            measures that.
    """
    if compression.get("method") == "finch":
        raise ConfigurationError(
            "the method 'finch' prunes the cache of the model that answers, and a model elsewhere "
            "shows nobody its cache. Take method='likelihood' or 'contrast', which keep text, or "
            "run the model here"
        )
    if compression.get("max_kv_bytes") is not None:
        raise ConfigurationError(
            "max_kv_bytes limits a cache here, but the answer is generated elsewhere. Give the "
            "budget in tokens (target_size) or as compression_ratio"
        )


def token_count(
    model: SharedEngine, count_tokens: TokenCount | None, ratio: float | None
) -> TokenCount | None:
    """How a budget is counted; None: as the model that chooses counts.

    Args:
        model: The model that chooses.
        count_tokens: Counts a text's tokens as the model that answers does.
        ratio: Or: tokens of that one per token of the model that chooses.

    Raises:
        ConfigurationError: There are two ways, or one is unusable.
    """
    if count_tokens is not None and ratio is not None:
        raise ConfigurationError("count_tokens and token_ratio are given; give one of them")
    return count_tokens if ratio is None else _by_ratio(model, ratio)


def _by_ratio(model: SharedEngine, ratio: float) -> TokenCount:
    if not isinstance(ratio, int | float) or isinstance(ratio, bool) or not 0 < ratio < math.inf:
        raise ConfigurationError(
            f"token_ratio must be a number above 0 (tokens of the model that answers per token of "
            f"the one that chooses), got {ratio!r}"
        )
    return lambda text: math.ceil(model.count_tokens(text) * ratio)


def _make(
    documents: tuple[Document, ...],
    selection: "Selection",
    count: TokenCount | None,
    before: int | None = None,
) -> Choice:
    shortened = shorten(documents, selection.excerpts)
    after = selection.stats.kept_tokens
    if count is not None:
        after = sum(count(excerpt.text) for excerpt in selection.excerpts)
    return Choice(
        documents=documents,
        shortened=shortened,
        shares=selection.document_shares,
        stats=selection.stats,
        tokens_before=selection.stats.document_tokens if before is None else before,
        tokens_after=after,
    )
