"""What answers a chat: a small interface for models here and elsewhere."""

import collections.abc as abc
from typing import Protocol

from finch_integrations.pipeline.ask import AnswerPiece, AskRequest


class Generator(Protocol):
    """Prompt in, pieces out. A `SharedEngine` is one, an `OpenAIServer` another.

    Attributes:
        name: The model's.
        takes_documents: Whether it compresses a request's documents into its own cache. One that
            does not takes only requests without documents: they are texts in the messages.
    """

    name: str
    takes_documents: bool

    def stream(self, request: AskRequest) -> abc.Generator[AnswerPiece, None, None]:
        """Answer piece by piece; closing the generator stops the work.

        Args:
            request: What to answer.

        Raises:
            FinchError: The request is unusable, or the model failed.
        """
        ...

    def astream(self, request: AskRequest) -> abc.AsyncGenerator[AnswerPiece, None]:
        """Like `stream`, without blocking the event loop; cancelling the task stops the work."""
        ...
