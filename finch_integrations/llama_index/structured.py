"""The LLM with an output class that `FinchLLM.as_structured_llm` makes."""

from functools import partial
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import BasePromptTemplate

from finch_integrations.llama_index.templates import format_marked


class FinchStructuredLLM(StructuredLLM):
    """Like `StructuredLLM`; the model inside learns where prompts put their context."""

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        return format_marked(partial(super()._get_messages, prompt), prompt, prompt_args)
