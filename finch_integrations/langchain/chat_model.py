"""ChatFinch: LangChain's chat model over the shared pipeline."""

import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import fields
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Self

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, ModelProfile
from langchain_core.language_models.chat_models import (
    BaseChatModel,
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.tools import BaseTool
from pydantic import Field, PrivateAttr, model_validator

from finch_integrations import __version__
from finch_integrations.config import CompressionConfig, SamplingParams, with_overrides
from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.langchain.citations import PROVIDER, document_scores, make_citations
from finch_integrations.langchain.detection import ContextDetection, Detected, detect
from finch_integrations.langchain.documents import as_documents, with_unique_ids
from finch_integrations.langchain.messages import to_turns
from finch_integrations.pipeline.ask import AnswerPiece, AnswerReport, AskRequest
from finch_integrations.pipeline.handle import EngineHandle

_COMPRESSION = {field.name for field in fields(CompressionConfig)}
_SAMPLING = {"temperature", "top_p", "top_k", "seed"}
_DETECTION = {"context_detection", "strict"}
_PROMPTING = {"instruction", "chat_template_kwargs"}
_TOOLS = {"functions", "response_format", "tool_choice", "tools"}
_PER_CALL = (
    {"documents", "max_tokens", "model"} | _COMPRESSION | _DETECTION | _PROMPTING | _SAMPLING
)
# What hosted models take and a local one has no use for; accepted so that ChatFinch can be
# put in their place.
_HOSTED = {"api_key", "max_retries", "timeout"}
_NO_TOOLS = (
    "ChatFinch cannot call tools or follow a schema: local models of any kind are not trained to, "
    "and decoding is not constrained. Let a tool-calling model choose the tools and ChatFinch "
    "answer from their results, retrieve first with FinchDocumentsMiddleware, or parse the "
    "answer's text with an output parser"
)
# The prompt of a chain that wrote the documents into its messages has its own instruction.
_CHAINS_OWN = "Question:"


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
    engine: EngineHandle | None = Field(default=None, exclude=True, repr=False)
    revision: str | None = None
    device: Any = None
    dtype: Any = "auto"
    model_kwargs: dict[str, Any] = Field(default_factory=dict)
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

    _handle: EngineHandle = PrivateAttr()

    _BUDGETS: ClassVar = ("target_size", "compression_ratio", "max_kv_bytes")

    @model_validator(mode="before")
    @classmethod
    def _take_loaded_models(cls, values: Any) -> Any:
        """Refuse unknown options, and put a loaded model behind a handle, which is never copied."""
        if not isinstance(values, Mapping):
            return values
        values = dict(values)
        for alias, name in (("model_name", "model"), ("max_new_tokens", "max_tokens")):
            if alias in values:
                values.setdefault(name, values.pop(alias))
        tokenizer = values.pop("tokenizer", None)
        unknown = sorted(values.keys() - cls.model_fields.keys() - _HOSTED)
        if unknown:
            known = ", ".join(sorted(cls.model_fields))
            raise ConfigurationError(
                f"ChatFinch has no option {', '.join(map(repr, unknown))}; known: {known}"
            )
        model, engine = values.get("model", "embedded"), values.get("engine")
        if isinstance(model, Path):
            values["model"] = str(model)
        elif not isinstance(model, str):
            if engine is not None:
                raise ConfigurationError("a loaded model is given twice: as model and as engine")
            engine = model
        if tokenizer is not None and isinstance(engine, EngineHandle | None):
            engine = EngineHandle(model, tokenizer)  # says that a name needs no tokenizer
        if engine is not None:
            if not isinstance(engine, EngineHandle):
                engine = EngineHandle(engine, tokenizer)
            values |= {"engine": engine, "model": engine.name}
        return values

    @model_validator(mode="after")
    def _set_finch_up(self) -> Self:
        self._add_version("finch-integrations", __version__)
        settings = {"revision": self.revision, "device": self.device, "dtype": self.dtype}
        if self.engine is None:
            self._handle = EngineHandle(self.model, **settings, model_kwargs=self.model_kwargs)
        else:
            given = [name for name in (*settings, "model_kwargs") if name in self.model_fields_set]
            if given:
                raise ConfigurationError(
                    f"{', '.join(given)} cannot be applied to a model that is already loaded"
                )
            self._handle = self.engine
        for pattern in self.context_patterns:
            if "context" not in pattern.groupindex:
                raise ConfigurationError(
                    f"the context pattern {pattern.pattern!r} has no group named 'context'. "
                    "Name the part that is documents: (?P<context>…)"
                )
        self._options(None, {})  # wrong values are named now, not at the first call
        return self

    # What LangChain asks about the model

    @property
    def _llm_type(self) -> str:
        return "chat-finch"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = self.__class__.model_fields.keys() - BaseChatModel.model_fields.keys()
        values = {name: getattr(self, name) for name in sorted(names - {"engine", "streaming"})}
        values["model_name"] = self.model
        if self.engine is not None:
            # Loaded models may share a name; their weights tell them apart.
            engine = self._handle.engine
            values["fingerprint"] = engine.backbone.fingerprint
            values["engine_defaults"] = (engine.compression, engine.sampling)
        return values

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
        if self.engine is not None:
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
            raise NotImplementedError(_NO_TOOLS)
        from finch_integrations.engine.prompt import build_chat

        plain = detect(to_turns(messages), mode="off")
        tokenizer = self._handle.engine.backbone.tokenizer
        texts = "\n\n".join(document.text for document in plain.documents)
        prompt = build_chat(
            tokenizer, plain.messages, chat_template_kwargs=self.chat_template_kwargs
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
        raise NotImplementedError(_NO_TOOLS)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> NoReturn:
        """Not possible.

        Raises:
            NotImplementedError: Always; it says what to do instead.
        """
        raise NotImplementedError(_NO_TOOLS)

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
        call = self._prepare(messages, stop, kwargs)
        with closing(call.handle.stream(call.request)) as pieces:
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
        call = self._prepare(messages, stop, kwargs)
        async with aclosing(call.handle.astream(call.request)) as pieces:
            async for piece in pieces:
                if chunk := call.make_chunk(piece):
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _prepare(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: dict[str, Any]
    ) -> "_Call":
        """Check a call's options and take its documents out of the messages."""
        if any(kwargs.get(name) for name in _TOOLS):
            raise NotImplementedError(_NO_TOOLS)
        known = _PER_CALL | {"max_new_tokens", *_TOOLS}
        if unknown := sorted(kwargs.keys() - known):
            raise ConfigurationError(
                f"a call takes no option {', '.join(map(repr, unknown))}; "
                f"known: {', '.join(sorted(_PER_CALL))}"
            )
        sampling, compression = self._options(stop, kwargs)
        documents, handed_over_by = _handed_over(messages, kwargs.get("documents"))
        found = detect(
            to_turns(messages),
            documents,
            handed_over_by,
            mode=_choice(kwargs.get("context_detection", self.context_detection)),
            patterns=self.context_patterns,
            strict=kwargs.get("strict", self.strict),
        )
        instruction = kwargs.get("instruction", self.instruction)
        if instruction is None and found.source in ("marked", "pattern"):
            instruction = _CHAINS_OWN
        request = AskRequest(
            messages=found.messages,
            documents=with_unique_ids(found.documents),
            instruction=instruction,
            chat_template_kwargs=kwargs.get("chat_template_kwargs", self.chat_template_kwargs),
            compression=compression,
            sampling=sampling,
        )
        return _Call(self._handle_for(kwargs.get("model")), request, found)

    def _options(
        self, stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Sampling and compression options: the call's over the model's; None leaves them be."""
        own = {name: getattr(self, name) for name in (*_SAMPLING, "max_tokens", "stop")}
        given = {"stop": stop, **kwargs}
        given.setdefault("max_tokens", given.pop("max_new_tokens", None))
        sampling = {}
        for name, value in own.items():
            chosen = value if given.get(name) is None else given[name]
            if chosen is not None:
                sampling["max_new_tokens" if name == "max_tokens" else name] = chosen
        budgets = {name: getattr(self, name) for name in self._BUDGETS}
        compression = {n: v for n, v in {**self.compression, **budgets}.items() if v is not None}
        changes = {n: v for n, v in kwargs.items() if n in _COMPRESSION and v is not None}
        if changes.keys() & set(self._BUDGETS):
            compression = {n: v for n, v in compression.items() if n not in self._BUDGETS}
        compression |= changes
        with_overrides(SamplingParams(), sampling)
        with_overrides(CompressionConfig(), compression)
        return sampling, compression

    def _handle_for(self, model: object) -> EngineHandle:
        """The handle of this model or of another one that a call names."""
        if model is None or model == self.model:
            return self._handle
        if not isinstance(model, str | Path):
            raise ConfigurationError(
                f"model= of a call must name a model, got {type(model).__name__}. "
                "Make a ChatFinch of its own for a loaded model"
            )
        if self.engine is not None:
            return EngineHandle(model)
        return EngineHandle(
            model, device=self.device, dtype=self.dtype, model_kwargs=self.model_kwargs
        )


class _Call:
    """One question under way; makes LangChain's chunks of the answer's pieces."""

    def __init__(self, handle: EngineHandle, request: AskRequest, found: Detected) -> None:
        self.handle = handle
        self.request = request
        self._found = found

    def make_chunk(self, piece: AnswerPiece) -> ChatGenerationChunk | None:
        """Make a chunk; pieces without text have none, except for the last one."""
        report = piece.report
        if report is None:
            if not piece.text:
                return None
            message = AIMessageChunk(
                content=piece.text, response_metadata={"model_provider": PROVIDER}
            )
            return ChatGenerationChunk(message=message)
        message = AIMessageChunk(
            content=piece.text,
            chunk_position="last",
            usage_metadata=UsageMetadata(
                input_tokens=report.prompt_tokens,
                output_tokens=report.generation_tokens,
                total_tokens=report.prompt_tokens + report.generation_tokens,
            ),
            # Only here: LangChain joins the strings and adds the numbers of all chunks.
            response_metadata={
                "model_provider": PROVIDER,
                "model_name": self.handle.name,
                "finish_reason": report.finish_reason,
                "citations": make_citations(
                    report.quotes, self.request.documents, report.documents
                ),
                "finch": self._statistics(report),
            },
        )
        return ChatGenerationChunk(message=message)

    def _statistics(self, report: AnswerReport) -> dict[str, Any]:
        statistics: dict[str, Any] = {
            "documents_from": self._found.source,
            "documents": len(self.request.documents),
            "decode_s": report.generation_seconds,
        }
        if stats := report.compression:
            statistics |= {
                "document_tokens": stats.document_tokens,
                "kept_tokens": stats.kept_tokens,
                "compression_ratio": stats.compression_ratio,
                "peak_kv_tokens": stats.peak_kv_tokens,
                "kv_bytes": stats.kv_bytes,
                "compress_s": stats.seconds,
                "document_scores": document_scores(report.documents),
            }
        return statistics


def _handed_over(messages: Sequence[BaseMessage], documents: object) -> tuple[Any, Any]:
    """Documents of the call, or of the last human message's `additional_kwargs`."""
    beside = None
    for message in reversed(messages):
        if message.type == "human":
            beside = message.additional_kwargs.get("documents")
            break
    if documents is not None and beside is not None:
        raise InvalidInputError(
            "documents are given twice: with documents=… and in the last human message's "
            "additional_kwargs. Give them in one way"
        )
    if beside is not None:
        return as_documents(beside, "additional_kwargs['documents']"), "message"
    if documents is not None:
        return as_documents(documents, "documents"), "kwarg"
    return (), "kwarg"


def _choice(value: Any) -> ContextDetection:
    if value not in ("auto", "marked", "off"):
        raise ConfigurationError(
            f"context_detection must be one of auto, marked, off, got {value!r}"
        )
    chosen: ContextDetection = value
    return chosen
