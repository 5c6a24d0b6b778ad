"""Objects as answers: the LLM with an output class, and streams of objects that grow."""

from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable
from functools import partial
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import BasePromptTemplate

from finch_integrations.errors import FinchError
from finch_integrations.llama_index.templates import VARIABLES, format_marked


class FinchStructuredLLM(StructuredLLM):
    """Like `StructuredLLM`; the model inside learns where prompts put their context."""

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        variables = getattr(self.llm, "marked_variables", VARIABLES)
        return format_marked(partial(super()._get_messages, prompt), prompt, prompt_args, variables)


def until_complete(outputs: Iterable[Any], output_cls: type[Any]) -> Generator[Any, None, None]:
    """Pass objects on as they grow.

    Raises:
        FinchError: The last one is incomplete.
    """
    last = None
    for last in outputs:
        yield last
    _check_complete(last, output_cls)


async def auntil_complete(
    outputs: AsyncIterable[Any], output_cls: type[Any]
) -> AsyncGenerator[Any, None]:
    """Like `until_complete`, without blocking the event loop."""
    last = None
    async for last in outputs:
        yield last
    _check_complete(last, output_cls)


def _check_complete(output: Any, output_cls: type[Any]) -> None:
    if not isinstance(output, output_cls):
        raise FinchError(
            f"the answer ended before the {output_cls.__name__} was complete, or fails the "
            "class's own checks. Raise max_tokens, or ask for less"
        )
