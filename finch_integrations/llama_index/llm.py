"""FinchLLM: LlamaIndex's LLM over the shared pipeline."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from typing import Any, Self, cast, get_args

from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection, default_completion_to_prompt
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools.types import BaseTool
from llama_index.core.types import PydanticProgramMode

from finch_integrations.adapters.llm import LLMAdapter
from finch_integrations.config import SamplingParams
from finch_integrations.constraints import Constraint
from finch_integrations.errors import ConfigurationError
from finch_integrations.llama_index.call import (
    AnswerSoFar,
    Call,
    as_completion,
    make_call,
    never_a_value_error,
)
from finch_integrations.llama_index.evidence import current_run
from finch_integrations.llama_index.messages import as_messages
from finch_integrations.llama_index.structured import (
    FinchStructuredLLM,
    auntil_complete,
    until_complete,
)
from finch_integrations.llama_index.templates import VARIABLES, Kind, MarkedPrompt, format_marked
from finch_integrations.llama_index.tools import convert_tools, read_calls
from finch_integrations.pipeline.ask import convert

_FAILED = "the model failed"
NO_OUTPUT = "the answer does not follow the output class's schema"


class FinchLLM(LLMAdapter, FunctionCallingLLM):
    """A local LLM that compresses the documents of its prompt under the question.

    Use it instead of another LLM: query engines, chat engines and evaluators tell it exactly where
    their prompt templates put context and question. The context is compressed, everything else in
    the prompt stays as it is. Or pass documents: `llm.chat(messages, documents=nodes)`, or
    `CitableBlock`s in the messages.

    Constructing it loads nothing. All models in a process that name the same weights share them. A
    model answers its calls in order, in its own thread; cancelling a call, or leaving its
    stream, stops the work within a token.

    LlamaIndex splits a context over several calls when it exceeds `context_window`, unless
    `Settings.context_window`, `Settings.num_output` or `Settings.prompt_helper` is set: then that
    one counts. Chat engines allow their memory the same length, but history is not compressed: of
    one that outgrows the model's own window the oldest turns are left out, with a warning. What
    does not fit otherwise is a `ContextTooLongError`, never cut.

    Example:
        llm = FinchLLM(model="embedded", target_size=2048, max_tokens=200)
        query_engine = index.as_query_engine(llm=llm, similarity_top_k=50)

    The options of `LLMAdapter` and `Adapter` are this one's, too.

    Attributes:
        context_window: Tokens of documents that LlamaIndex may put into one prompt, by its own
            tokenizer. Not the model's window, which the engine knows and stays within.
        template_variables: Your own templates' variables, as `"context"` or `"query"`: with
            `{"notes": "context", "ask": "query"}`, `notes` and `ask` are used like LlamaIndex's
            `context_str` and `query_str`.
        llm: Another LLM, which answers; passages are chosen for it here, by `scorer`. Its function
            calling, structured output and options stay its own. See `WrappedLLM`.
    """

    context_window: int = 1_000_000
    template_variables: dict[str, Any] = Field(default_factory=dict)
    llm: LLM | None = Field(default=None, exclude=True, repr=False)
    # An answer that is constrained to a schema needs no tool.
    pydantic_program_mode: PydanticProgramMode = PydanticProgramMode.LLM

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Make a `WrappedLLM` of `FinchLLM(llm=…)`."""
        if cls is FinchLLM and options.get("llm") is not None:
            from finch_integrations.llama_index.wrapped import WrappedLLM

            return cast(Self, super().__new__(WrappedLLM))
        return super().__new__(cls)

    def _check_options(self) -> None:
        rendering = (self.messages_to_prompt, self.completion_to_prompt, self.query_wrapper_prompt)
        defaults = (messages_to_prompt, default_completion_to_prompt, None)
        if any(
            own not in (default, None) for own, default in zip(rendering, defaults, strict=True)
        ):
            raise ConfigurationError(
                "FinchLLM renders prompts with the model's own chat template. Leave "
                "messages_to_prompt, completion_to_prompt and query_wrapper_prompt out"
            )
        for name, kind in self.template_variables.items():
            if kind not in get_args(Kind):
                raise ConfigurationError(
                    f"template_variables says of a variable that it is 'context' or 'query', got "
                    f"{kind!r} for {name!r}"
                )
        super()._check_options()
        if self.context_window <= self._num_output:
            raise ConfigurationError(
                f"context_window must be above max_tokens ({self._num_output}), "
                f"got {self.context_window}. It limits the documents in one prompt"
            )

    # What LlamaIndex asks about the model

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised settings and telemetry."""
        return "FinchLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What prompt helpers and chat engines use; loads nothing."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self._num_output,
            is_chat_model=True,
            is_function_calling_model=True,
            model_name=self.handle.name,
        )

    @property
    def _num_output(self) -> int:
        if self.max_tokens is not None:
            return self.max_tokens
        engine = self.engine.loaded if self.engine is not None else None
        sampling = SamplingParams() if engine is None else engine.sampling
        return sampling.max_tokens

    # Answering. Decorated methods must not call one another: each call is to be one event.

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Answer a chat.

        Args:
            messages: The chat.
            kwargs: `documents=…`, and options to change for this call.

        Raises:
            FinchError: Messages, documents or options are unusable, or they do not fit.
        """
        return self._chat(messages, kwargs)

    @llm_chat_callback()
    def stream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> Generator[ChatResponse, None, None]:
        """Answer a chat piece by piece; arguments and errors as for `chat`."""
        return self._stream(self._prepare(messages, kwargs))

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, which becomes the user's turn; errors and options as for `chat`."""
        return as_completion(self._chat(as_messages(prompt), kwargs))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """Answer a prompt piece by piece; errors and options as for `chat`."""
        call = self._prepare(as_messages(prompt), kwargs)
        return (as_completion(response) for response in self._stream(call))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Like `chat`, without blocking the event loop."""
        return await self._achat(messages, kwargs)

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> AsyncGenerator[ChatResponse, None]:
        """Like `stream_chat`, without blocking the event loop."""
        return self._astream(await self._aprepare(messages, kwargs))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Like `complete`, without blocking the event loop."""
        return as_completion(await self._achat(as_messages(prompt), kwargs))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """Like `stream_complete`, without blocking the event loop."""
        call = await self._aprepare(as_messages(prompt), kwargs)
        return (as_completion(response) async for response in self._astream(call))

    def _chat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> ChatResponse:
        for response in self._stream(self._prepare(messages, kwargs)):
            last = response
        return last.model_copy(update={"delta": None})

    async def _achat(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> ChatResponse:
        call = await self._aprepare(messages, kwargs)
        async with aclosing(self._astream(call)) as responses:
            async for response in responses:
                last = response
        return last.model_copy(update={"delta": None})

    def _stream(self, call: Call) -> Generator[ChatResponse, None, None]:
        answer = AnswerSoFar()
        with never_a_value_error(_FAILED), closing(call.handle.stream(call.request)) as pieces:
            for piece in pieces:
                answer = answer.and_then(piece)
                if piece.text or piece.reasoning or piece.calls or piece.details:
                    yield call.respond(answer, piece)

    async def _astream(self, call: Call) -> AsyncGenerator[ChatResponse, None]:
        answer = AnswerSoFar()
        with never_a_value_error(_FAILED):
            async with aclosing(call.handle.astream(call.request)) as pieces:
                async for piece in pieces:
                    answer = answer.and_then(piece)
                    if piece.text or piece.reasoning or piece.calls or piece.details:
                        yield await convert(partial(call.respond, answer), piece)

    def _prepare(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Call:
        return make_call(messages, self._read_call(kwargs), current_run())

    async def _aprepare(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Call:
        """Finding documents in long messages takes time that belongs to the loop."""
        arguments = self._read_call(kwargs)
        return await asyncio.to_thread(make_call, messages, arguments, current_run())

    # Tools: LlamaIndex's methods chat_with_tools, predict_and_call and their like use these.

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages += as_messages(user_msg) if isinstance(user_msg, str) else [user_msg]
        if kwargs.get("tool_choice") is None:  # LlamaIndex's programs give None with tool_required
            kwargs["tool_choice"] = "any" if tool_required and tools else None
        return {
            "messages": messages,
            "tools": convert_tools(tools),
            "parallel_tool_calls": allow_parallel_tool_calls,
            **kwargs,
        }

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the calls of a response.

        Raises:
            FinchError: There is none, and `error_on_no_tool_call` is set.
        """
        return read_calls(response, required=error_on_no_tool_call)

    # Prompt templates: through these hooks LlamaIndex formats all prompts of its synthesizers,
    # chat engines and evaluators.

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        return format_marked(
            partial(super()._get_messages, prompt), prompt, prompt_args, self.marked_variables
        )

    @property
    def marked_variables(self) -> dict[str, Kind]:
        """Which variables of templates are context and query."""
        return {**VARIABLES, **self.template_variables}

    def structured_predict(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer with an object of the output class, whose schema the answer always follows.

        Raises:
            FinchError: As `chat` raises it, or the answer was cut or fails the class's own checks.
        """
        with never_a_value_error(NO_OUTPUT):
            return super().structured_predict(
                output_cls,
                self._marked(prompt),
                self._constrained(output_cls, llm_kwargs),
                **prompt_args,
            )

    async def astructured_predict(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Like `structured_predict`, without blocking the event loop."""
        with never_a_value_error(NO_OUTPUT):
            return await super().astructured_predict(
                output_cls,
                self._marked(prompt),
                self._constrained(output_cls, llm_kwargs),
                **prompt_args,
            )

    def _structured_stream_call(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        options = self._constrained(output_cls, llm_kwargs)
        outputs = super()._structured_stream_call(
            output_cls, self._marked(prompt), options, **prompt_args
        )
        return until_complete(outputs, output_cls)

    async def _structured_astream_call(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        options = self._constrained(output_cls, llm_kwargs)
        outputs = await super()._structured_astream_call(
            output_cls, self._marked(prompt), options, **prompt_args
        )
        return auntil_complete(outputs, output_cls)

    def _marked(self, prompt: BasePromptTemplate) -> Any:
        return MarkedPrompt.around(prompt, self.marked_variables)

    def _constrained(
        self, output_cls: type[BaseModel], llm_kwargs: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Options that let an answer follow a class's schema, which the prompt has already."""
        if self.pydantic_program_mode != PydanticProgramMode.LLM:
            return dict(llm_kwargs or {})  # the program uses tools
        constraint = Constraint.json_schema(output_cls.model_json_schema())
        return {"constraint": constraint, **(llm_kwargs or {})}

    def as_structured_llm(self, output_cls: type[BaseModel], **kwargs: Any) -> StructuredLLM:
        """Make an LLM whose answers are objects of the output class."""
        return FinchStructuredLLM(llm=self, output_cls=output_cls, **kwargs)
