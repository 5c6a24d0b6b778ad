"""FinchLLM: LlamaIndex's LLM over the shared pipeline."""

import re
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing
from functools import partial
from typing import Any, Self

from llama_index.core.base.llms.generic_utils import messages_to_prompt
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import (
    BaseModel,
    Field,
    field_serializer,
    model_validator,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.llm import LLM, default_completion_to_prompt
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import BasePromptTemplate

from finch_integrations.config import SamplingParams
from finch_integrations.errors import ConfigurationError
from finch_integrations.llama_index.call import Call, as_completion, make_call, never_a_value_error
from finch_integrations.llama_index.fields import ByName, ModelKwargs
from finch_integrations.llama_index.structured import FinchStructuredLLM
from finch_integrations.llama_index.templates import MarkedPrompt, format_marked
from finch_integrations.pipeline.detection import ContextDetection
from finch_integrations.pipeline.options import (
    CallOptions,
    check_call,
    make_options,
    own_options,
    with_known_names,
)
from finch_integrations.pipeline.request import PromptOptions
from finch_integrations.pipeline.shared_engine import SharedEngine, handle_of, resolve_model

NO_TOOLS = (
    "FinchLLM cannot call tools or constrain its decoding to a schema. Use ReActAgent, which "
    "works with plain chat, let a function-calling model choose the tools, or ask for an output "
    "class with structured_predict, which puts the schema into the prompt"
)
_FAILED = "the model failed"
NO_OUTPUT = "the answer does not follow the output class's schema"


class FinchLLM(LLM):
    """A local LLM that compresses the documents of its prompt under the query.

    Put it where another LLM stands: query engines, chat engines and evaluators tell it exactly
    where their prompt templates put context and query. The context is compressed, everything
    else of the prompt stays as it is. Or hand documents over: `llm.chat(messages,
    documents=nodes)`, or `CitableBlock`s in the messages.

    Constructing it loads nothing. All models of a process that name the same weights share
    them, and calls are served in order by one worker thread; cancelling a call, or leaving its
    stream, stops the work within a token.

    LlamaIndex splits a context over several calls when it exceeds `context_window`, unless
    `Settings.context_window`, `Settings.num_output` or `Settings.prompt_helper` were set: then
    theirs counts. Chat engines allow their memory the same length, but history is not
    compressed; give them a memory with a `token_limit` below the model's own window. What does
    not fit is a `ContextTooLongError`, never cut.

    Example:
        llm = FinchLLM(model="embedded", target_size=2048, max_tokens=200)
        query_engine = index.as_query_engine(llm=llm, similarity_top_k=50)

    Attributes:
        model: `embedded`, a folder, a `.gguf` file or a hub id. A loaded transformers model
            (with `tokenizer=`) or a `FinchEngine` is taken too and then found in `engine`.
        engine: A model that is already loaded, instead of `model`.
        revision: Of a hub model.
        device: Default: the accelerator if there is one.
        dtype: Default: by device.
        model_kwargs: Passed to transformers' `from_pretrained`.
        max_tokens: Upper limit of generated tokens.
        temperature: 0 is deterministic.
        top_p: Sample from the smallest set of tokens with this probability.
        top_k: Sample from this many most likely tokens; 0 means all.
        seed: Makes sampling repeatable.
        stop: Strings that end the answer and are left out of it.
        target_size: Document tokens to keep.
        compression_ratio: Fraction of the document tokens to remove, instead of `target_size`.
        max_kv_bytes: Size of the cache in bytes, instead of `target_size`.
        compression: Further fields of `CompressionConfig`.
        context_window: Tokens of documents that LlamaIndex may put into one prompt, by its own
            tokenizer. Not the model's window, which the engine knows and keeps.
        context_detection: `auto` goes by templates, marked documents and well-known prompts,
            `marked` not by well-known prompts, `off` only by documents that are handed over.
        context_patterns: Regular expressions for your own prompts: the group `context` is the
            documents, the group `question`, if there is one, the question.
        strict: Raise if no documents are found, and do not go by well-known prompts.
        instruction: Stands between the documents and the question, behind the prompt's own.
        chat_template_kwargs: Further variables for the chat template.
    """

    model: str = "embedded"
    engine: SharedEngine | None = Field(default=None, exclude=True, repr=False)
    revision: str | None = None
    device: ByName = None
    dtype: ByName = "auto"
    model_kwargs: ModelKwargs = Field(default_factory=dict, repr=False)
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    stop: list[str] | None = None
    target_size: int | None = None
    compression_ratio: float | None = None
    max_kv_bytes: int | None = None
    compression: dict[str, Any] = Field(default_factory=dict)
    context_window: int = 1_000_000
    context_detection: ContextDetection = "auto"
    context_patterns: list[re.Pattern[str]] = Field(default_factory=list)
    strict: bool = False
    instruction: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _take_loaded_models(cls, values: Any) -> Any:
        """Refuse unknown options, and put a loaded model behind a handle, which is never copied."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        tokenizer = values.pop("tokenizer", None)
        values = with_known_names(values, cls.model_fields, owner="FinchLLM")
        values["model"], engine = resolve_model(
            values.get("model"), tokenizer, values.get("engine")
        )
        return values if engine is None else {**values, "engine": engine}

    @model_validator(mode="after")
    def _set_finch_up(self) -> Self:
        rendering = (self.messages_to_prompt, self.completion_to_prompt, self.query_wrapper_prompt)
        defaults = (messages_to_prompt, default_completion_to_prompt, None)
        if any(
            own not in (default, None) for own, default in zip(rendering, defaults, strict=True)
        ):
            raise ConfigurationError(
                "FinchLLM renders prompts with the model's own chat template. Leave "
                "messages_to_prompt, completion_to_prompt and query_wrapper_prompt out"
            )
        # Wrong values are named now, not at the first call.
        _ = self._handle
        self._prompting({})
        self._options({})
        if self.context_window <= self._num_output:
            raise ConfigurationError(
                f"context_window must be above max_tokens ({self._num_output}), "
                f"got {self.context_window}. It limits the documents in one prompt"
            )
        return self

    @property
    def _handle(self) -> SharedEngine:
        """Of the fields as they are now: copies and assignments may have changed them."""
        return handle_of(self)

    # What LlamaIndex asks about the model

    @classmethod
    def class_name(cls) -> str:
        """Name of the class in serialised settings and telemetry."""
        return "FinchLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What prompt helpers and chat engines go by; loads nothing."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self._num_output,
            is_chat_model=True,
            is_function_calling_model=False,
            model_name=self._handle.name,
        )

    @property
    def _num_output(self) -> int:
        if self.max_tokens is not None:
            return self.max_tokens
        ready = self.engine is not None and self.engine.loaded
        sampling = self._handle.engine.sampling if ready else SamplingParams()
        return sampling.max_tokens

    @field_serializer("context_patterns")
    def _as_texts(self, patterns: list[re.Pattern[str]]) -> list[str]:
        return [_with_inline_flags(pattern) for pattern in patterns]

    def __getstate__(self) -> dict[str, Any]:
        if self.engine is not None:
            self.engine.__getstate__()  # raises if it holds weights; the base would drop them
        return super().__getstate__()

    def warm_up(self) -> Self:
        """Load the model now instead of at the first call.

        Raises:
            ModelLoadError: There is no such model, or it cannot be read.
            UnsupportedModelError: The model cannot be compressed for.
        """
        _ = self._handle.engine
        return self

    def close(self) -> None:
        """Unload the model for everyone in this process; the next call loads it again."""
        self._handle.close()

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
        return as_completion(self._chat(_as_messages(prompt), kwargs))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> Generator[CompletionResponse, None, None]:
        """Answer a prompt piece by piece; errors and options as for `chat`."""
        call = self._prepare(_as_messages(prompt), kwargs)
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
        return self._astream(self._prepare(messages, kwargs))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """Like `complete`, without blocking the event loop."""
        return as_completion(await self._achat(_as_messages(prompt), kwargs))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> AsyncGenerator[CompletionResponse, None]:
        """Like `stream_complete`, without blocking the event loop."""
        call = self._prepare(_as_messages(prompt), kwargs)
        return (as_completion(response) async for response in self._astream(call))

    def _chat(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> ChatResponse:
        for response in self._stream(self._prepare(messages, kwargs)):
            last = response
        return last.model_copy(update={"delta": None})

    async def _achat(
        self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> ChatResponse:
        async with aclosing(self._astream(self._prepare(messages, kwargs))) as responses:
            async for response in responses:
                last = response
        return last.model_copy(update={"delta": None})

    def _stream(self, call: Call) -> Generator[ChatResponse, None, None]:
        said = ""
        with never_a_value_error(_FAILED), closing(call.handle.stream(call.request)) as pieces:
            for piece in pieces:
                said += piece.text
                if piece.text or piece.report:
                    yield call.respond(said, piece)

    async def _astream(self, call: Call) -> AsyncGenerator[ChatResponse, None]:
        said = ""
        with never_a_value_error(_FAILED):
            async with aclosing(call.handle.astream(call.request)) as pieces:
                async for piece in pieces:
                    said += piece.text
                    if piece.text or piece.report:
                        yield call.respond(said, piece)

    def _prepare(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Call:
        given = check_call(kwargs, no_tools=NO_TOOLS)
        return make_call(
            messages,
            given.get("documents"),
            self._prompting(given),
            self._options(given),
            self._handle.named(given.get("model")),
        )

    def _prompting(self, call: Mapping[str, Any]) -> PromptOptions:
        names = ("context_detection", "strict", "instruction", "chat_template_kwargs")
        own = {name: getattr(self, name) for name in names}
        given = {name: call[name] for name in names if call.get(name) is not None}
        return PromptOptions(context_patterns=self.context_patterns, **(own | given))

    def _options(self, call: Mapping[str, Any]) -> CallOptions:
        return make_options(own_options(self), self.compression, call)

    # Prompt templates: through these hooks LlamaIndex formats all prompts of its synthesizers,
    # chat engines and evaluators.

    def _get_messages(self, prompt: BasePromptTemplate, **prompt_args: Any) -> list[ChatMessage]:
        return format_marked(partial(super()._get_messages, prompt), prompt, prompt_args)

    def structured_predict(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        """Answer with an object of the output class, whose schema is put into the prompt.

        Raises:
            FinchError: As `chat` raises it, or the answer does not follow the schema.
        """
        with never_a_value_error(NO_OUTPUT):
            return super().structured_predict(
                output_cls, _marked(prompt), llm_kwargs, **prompt_args
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
                output_cls, _marked(prompt), llm_kwargs, **prompt_args
            )

    def _structured_stream_call(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        return super()._structured_stream_call(
            output_cls, _marked(prompt), llm_kwargs, **prompt_args
        )

    async def _structured_astream_call(
        self,
        output_cls: type[Any],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        return await super()._structured_astream_call(
            output_cls, _marked(prompt), llm_kwargs, **prompt_args
        )

    def as_structured_llm(self, output_cls: type[BaseModel], **kwargs: Any) -> StructuredLLM:
        """Make an LLM whose answers are objects of the output class."""
        return FinchStructuredLLM(llm=self, output_cls=output_cls, **kwargs)


def _as_messages(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


def _marked(prompt: BasePromptTemplate) -> Any:
    return MarkedPrompt.around(prompt)


def _with_inline_flags(pattern: re.Pattern[str]) -> str:
    missing = pattern.flags & ~re.compile(pattern.pattern).flags
    letters = ((re.I, "i"), (re.M, "m"), (re.S, "s"), (re.X, "x"))
    flags = "".join(letter for flag, letter in letters if missing & flag)
    return f"(?{flags}){pattern.pattern}" if flags else pattern.pattern
