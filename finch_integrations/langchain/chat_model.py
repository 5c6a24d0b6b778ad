"""ChatFinch: LangChain's chat model over the shared pipeline."""

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, NoReturn, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, ModelProfile
from langchain_core.language_models.chat_models import (
    BaseChatModel,
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool
from pydantic import Field, model_validator

from finch_integrations import __version__
from finch_integrations.langchain.call import Call, given_documents, make_call
from finch_integrations.langchain.citations import PROVIDER
from finch_integrations.langchain.messages import to_turns
from finch_integrations.pipeline.detection import ContextDetection, detect
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
    "ChatFinch cannot call tools or follow a schema: its decoding is not constrained, and many "
    "local models are not trained for it. Let a tool-calling model choose the tools and "
    "ChatFinch answer from their results, retrieve first with FinchDocumentsMiddleware, or parse "
    "the answer's text with an output parser"
)


class ChatFinch(BaseChatModel):
    """A local chat model that compresses the documents of its prompt under the question.

    Put it where another chat model stands in a RAG chain: documents that the chain writes into
    its prompt are recognised and compressed, everything else of the prompt stays as it is. Or
    hand documents over: `model.invoke(question, documents=documents)`.

    Constructing it loads nothing. All models of a process that name the same weights share
    them, and calls are served in order by one worker thread; cancelling a call, or leaving its
    stream, stops the work within a token.

    Example:
        model = ChatFinch(model="embedded", target_size=2048, max_tokens=200)
        chain = create_retrieval_chain(retriever, create_stuff_documents_chain(model, prompt))

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
        context_detection: `auto` recognises marked documents and well-known prompts, `marked`
            only marks and tool artifacts, `off` only documents that are handed over.
        context_patterns: Regular expressions for your own prompts: the group `context` is the
            documents, the group `question`, if there is one, the question.
        strict: Raise if no documents are found, and do not go by well-known prompts.
        instruction: Stands between the documents and the question. Default: the engine's, or
            `Question:` where the chain's prompt has its own.
        chat_template_kwargs: Further variables for the chat template.
        streaming: Have `invoke` stream to callbacks.
    """

    model: str = "embedded"
    engine: SharedEngine | None = Field(default=None, exclude=True, repr=False)
    revision: str | None = None
    device: Any = None
    dtype: Any = "auto"
    model_kwargs: dict[str, Any] = Field(default_factory=dict, repr=False)
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
    context_detection: ContextDetection = "auto"
    context_patterns: list[re.Pattern[str]] = Field(default_factory=list)
    strict: bool = False
    instruction: str | None = None
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    streaming: bool = False

    @model_validator(mode="before")
    @classmethod
    def _take_loaded_models(cls, values: Any) -> Any:
        """Refuse unknown options, and put a loaded model behind a handle, which is never copied."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        tokenizer = values.pop("tokenizer", None)
        values = with_known_names(values, cls.model_fields, owner="ChatFinch")
        values["model"], engine = resolve_model(
            values.get("model"), tokenizer, values.get("engine")
        )
        return values if engine is None else {**values, "engine": engine}

    @model_validator(mode="after")
    def _set_finch_up(self) -> Self:
        self._add_version("finch-integrations", __version__)
        # Wrong values are named now, not at the first call.
        _ = self._handle
        self._prompting({})
        self._options({})
        return self

    @property
    def _handle(self) -> SharedEngine:
        """Of the fields as they are now: copies and assignments may have changed them."""
        return handle_of(self)

    # What LangChain asks about the model

    @property
    def _llm_type(self) -> str:
        return "chat-finch"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # Where and how the model is loaded is part of the handle's identity.
        hidden = {"engine", "model_kwargs", "streaming", "device", "dtype", "revision"}
        names = self.__class__.model_fields.keys() - BaseChatModel.model_fields.keys() - hidden
        values = {name: getattr(self, name) for name in sorted(names)}
        return {"model_name": self.model, "identity": self._handle.identity, **values}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = PROVIDER
        return params

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        """Leave the documents out of traces and callbacks."""
        documents = kwargs.get("documents")
        if documents is not None:
            count = len(documents) if isinstance(documents, Sequence) else 1
            kwargs["documents"] = f"<{count} documents>"
        return super()._get_invocation_params(stop=stop, **kwargs)

    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            reasoning_output=False,
            tool_calling=False,
            tool_choice=False,
            structured_output=False,
            temperature=True,
        )
        if self.engine is not None and self.engine.loaded:
            # Of the messages; documents may be longer.
            profile["max_input_tokens"] = self.engine.engine.backbone.spec.window
        return profile

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenize with the model's own tokenizer; loads the model if need be."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        tokenizer = self._handle.engine.backbone.tokenizer
        return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Count the tokens of the model's prompt, documents uncompressed; loads the model."""
        if tools:
            raise NotImplementedError(NO_TOOLS)
        from finch_integrations.engine.prompt import build_chat

        turns = to_turns(messages)
        documents = [
            *given_documents(messages, None)[0],
            *(d for turn in turns for d in turn.blocks),
        ]
        texts = "\n\n".join(document.text for document in documents)
        # There may be no question: part of a chat is counted, too.
        without = [replace(turn, blocks=(), documents_removed=bool(turn.blocks)) for turn in turns]
        said = [m for m in detect(without, mode="off").messages if m["content"].strip()]
        tokenizer = self._handle.engine.backbone.tokenizer
        prompt = (
            build_chat(tokenizer, said, chat_template_kwargs=self.chat_template_kwargs)
            if said
            else ()
        )
        return len(prompt) + (len(self.get_token_ids(texts)) if texts else 0)

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> NoReturn:
        """Not possible.

        Raises:
            NotImplementedError: Always; it says what to do instead.
        """
        raise NotImplementedError(NO_TOOLS)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> NoReturn:
        """Not possible.

        Raises:
            NotImplementedError: Always; it says what to do instead.
        """
        raise NotImplementedError(NO_TOOLS)

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

    # Answering

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return generate_from_stream(self._stream(messages, stop, **kwargs))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        async with aclosing(self._astream(messages, stop, **kwargs)) as chunks:
            return await agenerate_from_stream(chunks)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        handle, call = self._prepare(messages, stop, kwargs)
        with closing(handle.stream(call.request)) as pieces:
            for piece in pieces:
                if chunk := call.make_chunk(piece):
                    if run_manager:
                        run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncGenerator[ChatGenerationChunk, None]:
        handle, call = self._prepare(messages, stop, kwargs)
        async with aclosing(handle.astream(call.request)) as pieces:
            async for piece in pieces:
                if chunk := call.make_chunk(piece):
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _prepare(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[SharedEngine, Call]:
        given = check_call(kwargs, no_tools=NO_TOOLS)
        handle = self._handle.named(given.get("model"))
        call = make_call(
            messages,
            given.get("documents"),
            self._prompting(given),
            self._options({**given, "stop": stop}),
            handle.name,
        )
        return handle, call

    def _prompting(self, call: Mapping[str, Any]) -> PromptOptions:
        names = ("context_detection", "strict", "instruction", "chat_template_kwargs")
        own = {name: getattr(self, name) for name in names}
        given = {name: call[name] for name in names if call.get(name) is not None}
        return PromptOptions(context_patterns=self.context_patterns, **(own | given))

    def _options(self, call: Mapping[str, Any]) -> CallOptions:
        return make_options(own_options(self), self.compression, call)
