"""FinchSynthesizer: each node goes to the model as a document, not all as one text."""

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, cast

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.llm import LLM
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.prompts import BasePromptTemplate, PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryType
from llama_index.core.settings import Settings
from llama_index.core.types import RESPONSE_TEXT_TYPE

from finch_integrations.constraints import Constraint
from finch_integrations.errors import ConfigurationError
from finch_integrations.llama_index.call import never_a_value_error
from finch_integrations.llama_index.llm import NO_OUTPUT, FinchLLM
from finch_integrations.pipeline.options import check_call

# The engine's instruction is between documents and question.
_QUESTION = PromptTemplate("{query_str}")
_CONTEXT_VARIABLES = {"context_str", "context_msg", "context_messages"}


class FinchSynthesizer(BaseSynthesizer):
    """Answers from all nodes in one call and says how much of each node was kept.

    The model gets every node as a document with its id. The response's `metadata["finch"]` has
    the statistics, including `document_scores` by node id; a streamed response has them when the
    stream has ended.

    Example:
        synthesizer = FinchSynthesizer(llm=FinchLLM(), target_size=4096)
        query_engine = index.as_query_engine(llm=llm, response_synthesizer=synthesizer)
    """

    def __init__(
        self,
        llm: LLM | None = None,
        callback_manager: CallbackManager | None = None,
        text_qa_template: BasePromptTemplate | None = None,
        streaming: bool = False,
        output_cls: type[BaseModel] | None = None,
        empty_response: str | None = None,
        **options: Any,
    ) -> None:
        """Take a model and options.

        Args:
            llm: A `FinchLLM`; default: `Settings.llm`.
            callback_manager: Default: that of the settings.
            text_qa_template: Formats the question; its only variable is `query_str`.
            streaming: Answer piece by piece.
            output_cls: Answer with an object of this class.
            empty_response: The answer if there are no nodes.
            options: Of every call to the model: `target_size`, `max_tokens`, `instruction`, …

        Raises:
            ConfigurationError: The model is not a `FinchLLM`, or an option is unknown.
        """
        llm = llm or Settings.llm
        if not isinstance(llm, FinchLLM):
            raise ConfigurationError(
                f"FinchSynthesizer needs a FinchLLM, got {type(llm).__name__}. "
                "Give it with llm=…; for structured answers give output_cls=… as well"
            )
        if streaming and output_cls is not None:
            raise ConfigurationError(
                "an object cannot be streamed: leave streaming or output_cls out"
            )
        if "documents" in options:
            raise ConfigurationError("documents are the nodes to synthesize from; leave them out")
        check_call(options)
        super().__init__(
            llm=llm,
            callback_manager=callback_manager,
            streaming=streaming,
            output_cls=output_cls,
            empty_response=empty_response,
        )
        self._finch = llm
        self._options = options
        self._set_template(text_qa_template or _QUESTION)

    def _set_template(self, template: BasePromptTemplate) -> None:
        if context := sorted(_CONTEXT_VARIABLES & set(template.template_vars)):
            raise ConfigurationError(
                f"text_qa_template has the variable {context[0]!r}, but the nodes are passed "
                "separately from the prompt. Leave the variable out"
            )
        self._text_qa_template = template

    def _get_prompts(self) -> PromptDictType:
        return {"text_qa_template": self._text_qa_template}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "text_qa_template" in prompts:
            self._set_template(prompts["text_qa_template"])

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Answer a question from nodes.

        Args:
            query: The query.
            nodes: To answer from.
            additional_source_nodes: Named as sources, too.
            response_kwargs: Further variables for the template.

        Raises:
            FinchError: The nodes are unusable, or prompt and budget do not fit the window.
        """
        statistics: dict[str, Any] = {}
        response = super().synthesize(
            query,
            nodes,
            additional_source_nodes,
            finch_nodes=nodes,
            finch_statistics=statistics,
            **response_kwargs,
        )
        return _with_statistics(response, statistics)

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """Like `synthesize`, without blocking the event loop."""
        statistics: dict[str, Any] = {}
        response = await super().asynthesize(
            query,
            nodes,
            additional_source_nodes,
            finch_nodes=nodes,
            finch_statistics=statistics,
            **response_kwargs,
        )
        return _with_statistics(response, statistics)

    def get_response(
        self,
        query_str: str,
        text_chunks: Sequence[str],
        finch_nodes: Sequence[NodeWithScore] | None = None,
        finch_statistics: dict[str, Any] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TEXT_TYPE:
        """Answer from texts, or from the nodes that they are from; errors as for `synthesize`."""
        options = {**self._constraint(), **self._options, "documents": finch_nodes or text_chunks}
        statistics = {} if finch_statistics is None else finch_statistics
        messages = self._messages(query_str, response_kwargs)
        if self._streaming:
            return _deltas(self._finch.stream_chat(messages, **options), statistics)
        return self._read(self._finch.chat(messages, **options), statistics)

    async def aget_response(
        self,
        query_str: str,
        text_chunks: Sequence[str],
        finch_nodes: Sequence[NodeWithScore] | None = None,
        finch_statistics: dict[str, Any] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TEXT_TYPE:
        """Like `get_response`, without blocking the event loop."""
        options = {**self._constraint(), **self._options, "documents": finch_nodes or text_chunks}
        statistics = {} if finch_statistics is None else finch_statistics
        messages = self._messages(query_str, response_kwargs)
        if self._streaming:
            return _adeltas(await self._finch.astream_chat(messages, **options), statistics)
        return self._read(await self._finch.achat(messages, **options), statistics)

    def _constraint(self) -> dict[str, Any]:
        if self._output_cls is None or self._finch.llm is not None:
            return {}  # a wrapped model cannot be constrained from here
        return {"constraint": Constraint.json_schema(self._output_cls.model_json_schema())}

    def _messages(self, query: str, variables: Mapping[str, Any]) -> list[ChatMessage]:
        prompt = self._text_qa_template
        messages = prompt.format_messages(llm=self._finch, query_str=query, **variables)
        if self._output_cls is not None:
            messages = PydanticOutputParser(self._output_cls).format_messages(messages)
        return self._finch._extend_messages(messages)

    def _read(self, response: ChatResponse, statistics: dict[str, Any]) -> RESPONSE_TEXT_TYPE:
        statistics.update(_statistics(response))
        text = response.message.content or ""
        if self._output_cls is None:
            return text
        with never_a_value_error(NO_OUTPUT):
            return cast(BaseModel, PydanticOutputParser(self._output_cls).parse(text))


def _with_statistics(response: RESPONSE_TYPE, statistics: dict[str, Any]) -> RESPONSE_TYPE:
    """Streams fill in the statistics when they end, so they get the dictionary itself."""
    if response.metadata is not None:
        response.metadata["finch"] = statistics
    return response


def _deltas(
    responses: Generator[ChatResponse, None, None], statistics: dict[str, Any]
) -> Generator[str, None, None]:
    for response in responses:
        statistics.update(_statistics(response))
        yield response.delta or ""


async def _adeltas(
    responses: AsyncGenerator[ChatResponse, None], statistics: dict[str, Any]
) -> AsyncGenerator[str, None]:
    async for response in responses:
        statistics.update(_statistics(response))
        yield response.delta or ""


def _statistics(response: ChatResponse) -> dict[str, Any]:
    if (finch := response.additional_kwargs.get("finch")) is not None:  # of a wrapped model
        return dict(finch)
    return dict(response.raw["finch"]) if isinstance(response.raw, Mapping) else {}
