"""ChatFinch: LangChain's chat model over the shared pipeline."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, NoReturn, Self, cast

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
from pydantic import Field

from finch_integrations import __version__
from finch_integrations.adapters.llm import LLMAdapter
from finch_integrations.langchain.call import Call, given_documents, make_call
from finch_integrations.langchain.citations import PROVIDER
from finch_integrations.langchain.messages import to_turns
from finch_integrations.pipeline.ask import convert
from finch_integrations.pipeline.detection import detect

NO_TOOLS = (
    "ChatFinch cannot call tools or follow a schema: its decoding is not constrained, and many "
    "local models are not trained for it. Let a tool-calling model choose the tools and "
    "ChatFinch answer from their results, retrieve first with FinchDocumentsMiddleware, or parse "
    "the answer's text with an output parser"
)


class ChatFinch(LLMAdapter, BaseChatModel):
    """A local chat model that compresses the documents of its prompt under the question.

    Use it instead of another chat model in a RAG chain: documents that the chain writes into its
    prompt are recognised and compressed, everything else in the prompt stays as it is. Or pass
    documents: `model.invoke(question, documents=documents)`.

    Constructing it loads nothing. All models in a process that name the same weights share them. A
    model answers its calls in order, in its own thread; cancelling a call, or leaving its
    stream, stops the work within a token.

    Example:
        model = ChatFinch(model="embedded", target_size=2048, max_tokens=200)
        chain = create_retrieval_chain(retriever, create_stuff_documents_chain(model, prompt))

    The options of `LLMAdapter` and `Adapter` are this one's, too.

    Attributes:
        llm: Another chat model, which answers; passages are chosen for it here, by `scorer`. Its
            tools, structured output and options stay its own. See `WrappedChat`.
        streaming: Have `invoke` stream to callbacks.
    """

    llm: BaseChatModel | None = Field(default=None, exclude=True, repr=False)
    streaming: bool = False

    no_tools = NO_TOOLS

    def __new__(cls, *_: Any, **options: Any) -> Self:
        """Make a `WrappedChat` of `ChatFinch(llm=…)`."""
        if cls is ChatFinch and options.get("llm") is not None:
            from finch_integrations.langchain.wrapped import WrappedChat

            return cast(Self, super().__new__(WrappedChat))
        return super().__new__(cls)

    def _check_options(self) -> None:
        self._add_version("finch-integrations", __version__)
        super()._check_options()

    # What LangChain asks about the model

    @property
    def _llm_type(self) -> str:
        return "chat-finch"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # Where and how the model is loaded is part of the shared engine's identity.
        hidden = {"device", "dtype", "engine", "model_kwargs", "revision", "scorer", "streaming"}
        hidden |= {"llm", "count_tokens"}
        names = self.__class__.model_fields.keys() - BaseChatModel.model_fields.keys() - hidden
        values = {name: getattr(self, name) for name in sorted(names)}
        return {"model_name": self.model, "identity": self.handle.identity, **values}

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
        if self.engine is not None and (engine := self.engine.loaded):
            # Of the messages; documents may be longer.
            profile["max_input_tokens"] = engine.window
        return profile

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenize with the model's own tokenizer; loads the model if necessary."""
        if self.custom_get_token_ids is not None:
            return self.custom_get_token_ids(text)
        tokenizer = self.handle.engine.backbone.tokenizer
        return list(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Count the tokens of the model's prompt, documents uncompressed; loads the model."""
        if tools:
            raise NotImplementedError(NO_TOOLS)
        turns = to_turns(messages)
        documents = [
            *given_documents(messages, None),
            *(d for turn in turns for d in turn.blocks),
        ]
        texts = "\n\n".join(document.text for document in documents)
        # There may be no question, because a part of a chat is counted, too.
        without = [replace(turn, blocks=(), documents_removed=bool(turn.blocks)) for turn in turns]
        said = [m for m in detect(without, mode="off").messages if m["content"].strip()]
        count = len(self.get_token_ids(texts)) if texts else 0
        if said:
            count += self.handle.engine.count_chat_tokens(
                said, chat_template_kwargs=self.chat_template_kwargs
            )
        return count

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
        # Finding documents in long messages takes time that belongs to the loop.
        call = await asyncio.to_thread(self._prepare, messages, stop, kwargs)
        async with aclosing(call.handle.astream(call.request)) as pieces:
            async for piece in pieces:
                if chunk := await convert(call.make_chunk, piece):
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _prepare(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> Call:
        return make_call(messages, self._read_call({**kwargs, "stop": stop}))
