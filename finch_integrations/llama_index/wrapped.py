"""FinchLLM(llm=…): another LLM answers, from what a model here chooses for it."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Hashable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate
from llama_index.core.types import PydanticProgramMode

from finch_integrations.adapters.wrapping import WrappedArguments, WrappingAdapter
from finch_integrations.errors import ConfigurationError
from finch_integrations.llama_index.call import ADVICE, make_citations, never_a_value_error
from finch_integrations.llama_index.documents import as_documents
from finch_integrations.llama_index.evidence import current_run, is_retrieving
from finch_integrations.llama_index.llm import NO_OUTPUT, FinchLLM
from finch_integrations.llama_index.messages import as_messages, shows_a_chat, to_turns
from finch_integrations.llama_index.rewriting import rewrite
from finch_integrations.llama_index.templates import format_marked
from finch_integrations.pipeline.chooser import TokenCount
from finch_integrations.pipeline.placement import Placement
from finch_integrations.pipeline.request import find_documents
from finch_integrations.pipeline.turns import Detected

Response = TypeVar("Response", ChatResponse, CompletionResponse)
_CHOOSING = "choosing passages failed"


class WrappedLLM(WrappingAdapter, FinchLLM, FunctionCallingLLM):
    """An LLM around another one: documents are found here, and passages chosen of them.

    `FinchLLM(llm=…)` makes it. The passages replace the documents where they are in the prompt, all
    else stays as it is. The wrapped model's events are its own. Its answers come back with
    `citations` and, under `finch`, the costs in `additional_kwargs`; of a stream, the last response
    has them.

    What matters is chosen under the last question alone. Options of a call that are not ours go to
    the wrapped model. LlamaIndex may put `context_window` tokens of documents into one prompt; what
    is left after choosing must fit the wrapped model's own window.

    Example:
        llm = FinchLLM(llm=Ollama(model="qwen3:8b"), scorer="embedded", target_size=4096)
        query_engine = index.as_query_engine(llm=llm, similarity_top_k=50)

    Attributes:
        llm: Answers.
    """

    llm: LLM = Field(exclude=True, repr=False)
    _advice: ClassVar[str] = ADVICE
    pydantic_program_mode: PydanticProgramMode = PydanticProgramMode.DEFAULT

    # What LlamaIndex asks about the model

    @property
    def metadata(self) -> LLMMetadata:
        """The wrapped model's, with the room for documents that there is in front of it."""
        return self.llm.metadata.model_copy(update={"context_window": self.context_window})

    def _wrapped_window(self) -> int | None:
        return self.llm.metadata.context_window

    def _wrapped_tokenizer(self) -> TokenCount | None:
        return None  # LlamaIndex's models do not say how they count

    # Answering. Undecorated: the wrapped model's events are the call's events.

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a chat; errors as for `FinchLLM.chat`, and the wrapped model's own."""
        call = self._prepare_wrapped(messages, kwargs)
        return call.described(self.llm.chat(call.messages, **call.rest))

    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> Generator[ChatResponse, None, None]:
        """Answer a chat piece by piece; arguments and errors as for `chat`."""
        call = self._prepare_wrapped(messages, kwargs)
        return call.stream(self.llm.stream_chat(call.messages, **call.rest))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt; errors and options as for `chat`."""
        call = self._prepare_wrapped(as_messages(prompt), kwargs)
        return call.described(self.llm.complete(call.prompt, formatted, **call.rest))

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """Answer a prompt piece by piece; errors and options as for `chat`."""
        call = self._prepare_wrapped(as_messages(prompt), kwargs)
        return call.stream(self.llm.stream_complete(call.prompt, formatted, **call.rest))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like `chat`, without blocking the event loop."""
        call = await self._aprepare_wrapped(messages, kwargs)
        answer = await self.llm.achat(call.messages, **call.rest)
        return await asyncio.to_thread(call.described, answer)

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        """Like `stream_chat`, without blocking the event loop."""
        call = await self._aprepare_wrapped(messages, kwargs)
        return call.astream(await self.llm.astream_chat(call.messages, **call.rest))

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Like `complete`, without blocking the event loop."""
        call = await self._aprepare_wrapped(as_messages(prompt), kwargs)
        answer = await self.llm.acomplete(call.prompt, formatted, **call.rest)
        return await asyncio.to_thread(call.described, answer)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """Like `stream_complete`, without blocking the event loop."""
        call = await self._aprepare_wrapped(as_messages(prompt), kwargs)
        return call.astream(await self.llm.astream_complete(call.prompt, formatted, **call.rest))

    # Tools and output classes are the wrapped model's

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[Any],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        return self._calling._prepare_chat_with_tools_compat(
            tools,
            user_msg=user_msg,
            chat_history=chat_history,
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            tool_required=tool_required,
            **kwargs,
        )

    def _validate_chat_with_tools_response(
        self, response: ChatResponse, tools: Sequence[Any], *args: Any, **kwargs: Any
    ) -> ChatResponse:
        return self._calling._validate_chat_with_tools_response(response, tools, *args, **kwargs)

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read an answer's tool calls as the wrapped model does."""
        return self._calling.get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    @property
    def _calling(self) -> FunctionCallingLLM:
        if not isinstance(self.llm, FunctionCallingLLM):
            raise ConfigurationError(
                f"the wrapped model, a {type(self.llm).__name__}, cannot call tools. Wrap one that "
                "can, or use ReActAgent, which works with plain chat"
            )
        return self.llm

    def structured_predict(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer with an object as the wrapped model does."""
        call = self._prepare_wrapped(self._marked_messages(prompt, prompt_args), llm_kwargs or {})
        with never_a_value_error(NO_OUTPUT):
            return self.llm.structured_predict(output_cls, call.template, dict(call.rest))

    async def astructured_predict(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Like `structured_predict`, without blocking the event loop."""
        call = await self._aprepare_wrapped(
            self._marked_messages(prompt, prompt_args), llm_kwargs or {}
        )
        with never_a_value_error(NO_OUTPUT):
            return await self.llm.astructured_predict(output_cls, call.template, dict(call.rest))

    def stream_structured_predict(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Like `structured_predict`, object by object as it grows."""
        call = self._prepare_wrapped(self._marked_messages(prompt, prompt_args), llm_kwargs or {})
        return self.llm.stream_structured_predict(output_cls, call.template, dict(call.rest))

    async def astream_structured_predict(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        """Like `stream_structured_predict`, without blocking the event loop."""
        call = await self._aprepare_wrapped(
            self._marked_messages(prompt, prompt_args), llm_kwargs or {}
        )
        found: Any = await self.llm.astream_structured_predict(
            output_cls, call.template, dict(call.rest)
        )
        return found  # type: ignore[no-any-return]

    def _marked_messages(
        self, prompt: BasePromptTemplate, prompt_args: Mapping[str, Any]
    ) -> list[ChatMessage]:
        """Format a prompt; its messages say where the context is."""

        def format(**values: Any) -> list[ChatMessage]:
            return prompt.format_messages(llm=self, **values)

        return self._extend_messages(
            format_marked(format, prompt, prompt_args, self.marked_variables)
        )

    # Choosing

    def _prepare_wrapped(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> "WrappedCall":
        with never_a_value_error(_CHOOSING):
            arguments = self._read_wrapped(kwargs)
            texts, found = _find(messages, arguments, current_run())
            return self._call(messages, arguments.place(texts, found), arguments)

    async def _aprepare_wrapped(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> "WrappedCall":
        with never_a_value_error(_CHOOSING):
            # The wrapped model may ask its server for its window.
            arguments = await asyncio.to_thread(self._read_wrapped, kwargs)
            texts, found = await asyncio.to_thread(_find, messages, arguments, current_run())
            placement = await arguments.aplace(texts, found)
            return await asyncio.to_thread(self._call, messages, placement, arguments)

    def _call(
        self, messages: Sequence[ChatMessage], placement: Placement, arguments: WrappedArguments
    ) -> "WrappedCall":
        rewritten = rewrite(messages, placement)
        texts = [message.content or "" for message in rewritten]
        roles = [
            "system" if message.role == MessageRole.DEVELOPER else message.role.value
            for message in rewritten
        ]
        answer = max(1, self.llm.metadata.num_output)
        kept = self._fit(roles, texts, placement, arguments, answer)
        placement = replace(placement, trimmed=len(rewritten) - len(kept))
        return WrappedCall([rewritten[number] for number in kept], placement, arguments.rest)


@dataclass(frozen=True, slots=True)
class WrappedCall:
    """What the wrapped model is asked, and what its answer reports.

    Attributes:
        messages: With chosen passages in place of the documents.
        placement: What was changed in them.
        rest: Options for the wrapped model.
    """

    messages: list[ChatMessage]
    placement: Placement
    rest: Mapping[str, Any]

    @property
    def prompt(self) -> str:
        """The text of a call with a prompt."""
        return self.messages[0].content or ""

    @property
    def template(self) -> ChatPromptTemplate:
        """The messages as a template without variables, as `StructuredLLM` makes it."""
        return ChatPromptTemplate(message_templates=self.messages)

    def described(self, answer: Response) -> Response:
        """The wrapped model's answer with citations and costs."""
        choice = self.placement.choice
        said = answer.text if isinstance(answer, CompletionResponse) else answer.message.content
        citations = (
            [] if choice is None else make_citations(said or "", choice.documents, choice.shares)
        )
        facts = {"citations": citations, "finch": self.placement.describe()}
        return answer.model_copy(
            update={"additional_kwargs": {**answer.additional_kwargs, **facts}}
        )

    def stream(self, answers: Generator[Response, None, None]) -> Generator[Response, None, None]:
        """Pass an answer on as it grows; in the end once more, with citations and costs."""
        last = None
        with closing(answers):
            for last in answers:
                yield last
        if last is not None:
            yield self.described(last.model_copy(update={"delta": ""}))

    async def astream(
        self, answers: AsyncGenerator[Response, None]
    ) -> AsyncGenerator[Response, None]:
        """Like `stream`, without blocking the event loop."""
        last = None
        async with aclosing(answers):
            async for last in answers:
                yield last
        if last is not None:
            ended = last.model_copy(update={"delta": ""})
            yield await asyncio.to_thread(self.described, ended)


def _find(
    messages: Sequence[ChatMessage], arguments: WrappedArguments, run: Hashable
) -> tuple[list[str], Detected]:
    """The messages' texts, and the documents in them."""
    documents, prompt = arguments.documents, arguments.prompt
    given = None if documents is None else as_documents(documents, "documents")
    if shows_a_chat(messages) or is_retrieving():
        prompt = replace(prompt, strict=False)
    read_templates = prompt.context_detection != "off"
    turns = to_turns(messages, read_templates=read_templates, only_text=False)
    found = find_documents(turns, given, prompt, run=run)
    return [message.content or "" for message in messages], found
