"""The options of adapters that choose passages for a model elsewhere."""

from collections.abc import Callable

from pydantic import Field

from finch_integrations.adapters.model import Adapter
from finch_integrations.pipeline.chooser import Chooser, check_elsewhere, token_count


class ChoosingAdapter(Adapter):
    """An adapter whose model chooses passages, and another model answers.

    Attributes:
        count_tokens: Counts a text's tokens as the model that answers does, so that the budget is
            in its tokens. Default: the model's that chooses.
        token_ratio: Or: tokens of the model that answers per token of the one that chooses.
    """

    count_tokens: Callable[[str], int] | None = Field(default=None, exclude=True, repr=False)
    token_ratio: float | None = None

    @property
    def chooser(self) -> Chooser:
        """Chooses by the fields as they are now.

        Raises:
            ConfigurationError: The fields contradict each other.
        """
        compression = self._compression()
        count = token_count(self.handle, self.count_tokens, self.token_ratio)
        if count is not None:
            check_elsewhere(compression)
        return Chooser(self.handle, compression, count)

    def _check_options(self) -> None:
        _ = self.chooser
