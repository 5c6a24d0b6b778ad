"""ChatFinch: LangChain's chat model over the shared pipeline."""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, Self, cast

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.language_models.chat_models import (
    BaseChatModel,
    agenerate_from_stream,
    generate_from_stream,
)
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from pydantic import Field

from finch_integrations import __version__
from finch_integrations.adapters.llm import LLMAdapter
from finch_integrations.errors import ConfigurationError
from finch_integrations.langchain.call import ADVICE, Call, given_documents
from finch_integrations.langchain.citations import PROVIDER
from finch_integrations.langchain.evidence import current_run
from finch_integrations.langchain.messages import to_turns
from finch_integrations.langchain.structured import Method, structured
from finch_integrations.langchain.tools import AnyTool, check_choice, convert_tools
from finch_integrations.pipeline.answer_options import read_tools
from finch_integrations.pipeline.ask import convert
from finch_integrations.pipeline.detection import detect
from finch_integrations.pipeline.request import make_request


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
        n: Answers per prompt; `generate` returns all, `invoke` the first.
    """

    llm: BaseChatModel | None = Field(default=None, exclude=True, repr=False)
    streaming: bool = False
    n: int = 1

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
        return super()._get_invocation_params(stop=stop or self.stop, **kwargs)

    def _resolve_model_profile(self) -> ModelProfile:
        profile = ModelProfile(
            text_inputs=True,
            text_outputs=True,
            image_inputs=False,
            audio_inputs=False,
            video_inputs=False,
            reasoning_output=True,
            tool_calling=True,
            tool_choice=True,
            structured_output=True,
            temperature=True,
        )
        return profile | self._window_profile()

    def _window_profile(self) -> ModelProfile:
        """What is only known of a model that is loaded."""
        engine = self.handle.loaded
        # Of the messages; documents may be longer.
        return ModelProfile() if engine is None else ModelProfile(max_input_tokens=engine.window)

    def _note_window(self) -> None:
        """Complete the profile once the model is loaded; one that the user gave stays."""
        if self.profile is not None and "max_input_tokens" not in self.profile:
            self.profile.update(self._window_profile())

    def warm_up(self) -> Self:
        """Load the model now instead of at the first call; its profile then has its window.

        Raises:
            ModelLoadError: There is no such model, or it cannot be read.
            UnsupportedModelError: The model cannot be compressed for.
        """
        super().warm_up()
        self._note_window()
        return self

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
        turns = to_turns(messages)
        documents = [
            *(given_documents(messages, None) or ()),
            *(d for turn in turns for d in turn.blocks),
        ]
        texts = "\n\n".join(document.text for document in documents)
        # There may be no question, because a part of a chat is counted, too.
        without = [replace(turn, blocks=(), documents_removed=bool(turn.blocks)) for turn in turns]
        said = [
            m
            for m in detect(without, mode="off").messages
            if m["content"].strip() or m.get("tool_calls")
        ]
        count = len(self.get_token_ids(texts)) if texts else 0
        if said:
            count += self.handle.engine.count_chat_tokens(
                said,
                tools=read_tools(convert_tools(tools or ())),
                chat_template_kwargs=self.chat_template_kwargs,
            )
        return count

    def bind_tools(
        self,
        tools: Sequence[AnyTool],
        *,
        tool_choice: str | bool | dict[str, Any] | None = None,
        parallel_tool_calls: bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools. Arguments always follow the tools' schemas.

        Args:
            tools: LangChain's tools, functions, pydantic classes, TypedDicts or JSON schemas.
            tool_choice: `auto`: the model chooses between text and calls; `any`: it must call; a
                name: it must call that tool; `none`: it must not call.
            parallel_tool_calls: Whether it may make several calls at once. Default: if it chooses
                whether to call.
            strict: Refuse schemas that allow what they do not name.
            kwargs: Further options of every call.

        Raises:
            InvalidInputError: A tool or the choice is unusable.
        """
        converted = convert_tools(tools, strict=strict)
        choice = check_choice(tool_choice, converted)
        if parallel_tool_calls is not None:
            kwargs["parallel_tool_calls"] = parallel_tool_calls
        return self.bind(tools=converted, tool_choice=choice, **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type | None = None,
        *,
        method: Method = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Make the model answer with an object that follows a schema, which it always does.

        Args:
            schema: A pydantic class, a TypedDict or a JSON schema. With a class the result is one
                of its objects, else a dictionary.
            method: `json_schema`: the answer is constrained to the schema, which is added to the
                system text. `function_calling`: it is the call of a tool. `json_mode`: the prompt
                says which object; without a schema it is any.
            include_raw: Return a dictionary with `raw`, the message, `parsed` and `parsing_error`.
            strict: As for `bind_tools`.
            kwargs: Further options of every call.

        Raises:
            ConfigurationError: The method is unknown.
            InvalidInputError: The schema cannot be used.
        """
        return structured(
            self, schema, method=method, include_raw=include_raw, strict=strict, options=kwargs
        )

    # Answering

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _together(
            [
                generate_from_stream(self._stream(messages, stop, **options))
                for options in self._several(kwargs)
            ]
        )

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        answers = []
        for options in self._several(kwargs):
            async with aclosing(self._astream(messages, stop, **options)) as chunks:
                answers.append(await agenerate_from_stream(chunks))
        return _together(answers)

    def _several(self, kwargs: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The options of each of `n` answers; with a seed, each has its own."""
        options = dict(kwargs)
        number = self.n if options.get("n") is None else options["n"]
        options.pop("n", None)
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            raise ConfigurationError(f"n must be a whole number of at least 1, got {number!r}")
        seed = options.get("seed", self.seed)
        if number == 1 or seed is None:
            return [options] * number
        return [{**options, "seed": seed + number} for number in range(number)]

    def _should_stream(self, **kwargs: Any) -> bool:
        # Several answers are no stream.
        several = (kwargs.get("n") or self.n) != 1
        return not several and super()._should_stream(**kwargs)

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
                    self._note_window()
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
                    self._note_window()
                    if run_manager:
                        await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                    yield chunk

    def _prepare(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> Call:
        """Read a call's options, and take the documents out of its messages."""
        arguments, run = self._read_call({**kwargs, "stop": stop}), current_run()
        prompt = arguments.prompt
        request, source = make_request(
            to_turns(messages),
            given_documents(messages, arguments.documents),
            replace(prompt, strict=prompt.strict and not run.retrieving),
            arguments.options,
            arguments.answer,
            run=run.root,
            advice=ADVICE,
            trim_history=True,
        )
        return Call(arguments.handle, request, source)


def _together(answers: Sequence[ChatResult]) -> ChatResult:
    """Several answers to one prompt as one result."""
    return ChatResult(generations=[one for answer in answers for one in answer.generations])
