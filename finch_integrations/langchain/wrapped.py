"""ChatFinch(llm=…): another chat model answers, from what a model here chooses for it."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, ClassVar
from uuid import uuid4

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForLLMRun,
    CallbackManager,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import LangSmithParams, LanguageModelInput, ModelProfile
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, get_buffer_string
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import (
    Runnable,
    RunnableBinding,
    RunnableConfig,
    RunnableParallel,
    RunnableSequence,
    ensure_config,
)
from pydantic import Field

from finch_integrations.adapters.wrapping import WrappedArguments, WrappingAdapter
from finch_integrations.errors import ConfigurationError
from finch_integrations.langchain.call import ADVICE, given_documents
from finch_integrations.langchain.chat_model import ChatFinch
from finch_integrations.langchain.citations import PROVIDER, make_citations
from finch_integrations.langchain.evidence import current_run
from finch_integrations.langchain.messages import to_turns
from finch_integrations.langchain.rewriting import rewrite
from finch_integrations.pipeline.chooser import TokenCount
from finch_integrations.pipeline.placement import Placement
from finch_integrations.pipeline.quotes import find_quotes
from finch_integrations.pipeline.request import find_documents
from finch_integrations.pipeline.turns import Detected

# LangGraph streams a model's tokens unless it has this tag: the outer run streams them already.
_NO_STREAM = "nostream"
# What streams pass on to learn whose child the wrapped model's run is.
_PARENT = "finch_parent"


class WrappedChat(WrappingAdapter, ChatFinch):
    """A chat model around another one: documents are found here, and passages chosen of them.

    `ChatFinch(llm=…)` makes it. The passages replace the documents where they are in the prompt,
    all else stays as it is: message by message, ids, labels and separators included. The wrapped
    model's run is a child of this one's. Its answer comes back with `citations` and, under
    `finch`, the costs in `response_metadata`; everything else of it, such as tool calls and usage,
    is its own.

    What matters is chosen under the last question alone. Options of a call that are not ours go to
    the wrapped model.

    Example:
        model = ChatFinch(llm=ChatOllama(model="qwen3:8b"), scorer="embedded", target_size=4096)

    Attributes:
        llm: Answers.
    """

    llm: BaseChatModel = Field(exclude=True, repr=False)
    _advice: ClassVar[str] = ADVICE

    # What LangChain asks about the model

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {**super()._identifying_params, "llm": self._llm_params}

    @property
    def _llm_params(self) -> dict[str, Any]:
        return {"type": self.llm._llm_type, **self.llm._identifying_params}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        return self.llm._get_ls_params(stop=stop, **kwargs)

    def _resolve_model_profile(self) -> ModelProfile:
        return self.llm.profile or ModelProfile()

    def _wrapped_window(self) -> int | None:
        return (self.llm.profile or {}).get("max_input_tokens")

    def _wrapped_tokenizer(self) -> TokenCount | None:
        # What `get_num_tokens` uses otherwise may be downloaded.
        own = self.llm.custom_get_token_ids
        return None if own is None else lambda text: len(own(text))

    def get_token_ids(self, text: str) -> list[int]:
        """Tokenize with the wrapped model's own tokenizer if it has one, else the scorer's."""
        if self.custom_get_token_ids is None and self.llm.custom_get_token_ids is not None:
            return self.llm.custom_get_token_ids(text)
        return super().get_token_ids(text)

    def get_num_tokens(self, text: str) -> int:
        """Count tokens as the budget does."""
        return self._read_wrapped({}).chooser.count(text)

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """Count the tokens of messages, documents uncompressed, without their template."""
        return sum(self.get_num_tokens(get_buffer_string([message])) for message in messages)

    # Tools and schemas are the wrapped model's

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Runnable[Any, Any]:
        """Bind tools as the wrapped model does; errors are its own."""
        return self._around(self.llm.bind_tools(tools, **kwargs))

    def with_structured_output(self, schema: Any = None, **kwargs: Any) -> Runnable[Any, Any]:
        """Follow a schema as the wrapped model does; errors are its own."""
        return self._around(self.llm.with_structured_output(schema, **kwargs))

    def _around(self, runnable: Runnable[Any, Any]) -> Runnable[Any, Any]:
        """The same with this model in the wrapped one's place.

        Raises:
            ConfigurationError: The wrapped model is not found in it.
        """
        changed = _put_in_place(runnable, self.llm, self)
        if changed is runnable:
            raise ConfigurationError(
                f"{type(self.llm).__name__} makes a {type(runnable).__name__}, in front of which "
                "ChatFinch cannot be put. Shorten the documents with FinchCompressor instead"
            )
        return changed

    # Answering

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = _child(run_manager, kwargs.pop(_PARENT, None))
        call = self._prepare_wrapped(messages, kwargs)
        answer = self.llm.invoke(call.messages, config, stop=stop, **call.rest)
        return _result(Answering(call.placement).whole(answer))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        config = _child(run_manager, kwargs.pop(_PARENT, None))
        call = await self._aprepare_wrapped(messages, kwargs)
        answer = await self.llm.ainvoke(call.messages, config, stop=stop, **call.rest)
        return _result(await asyncio.to_thread(Answering(call.placement).whole, answer))

    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Answer piece by piece; as other chat models do."""
        config = _with_run_id(config)
        yield from super().stream(input, config, stop=stop, **kwargs, **{_PARENT: config})

    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """Answer piece by piece; as other chat models do."""
        config = _with_run_id(config)
        chunks: Any = super().astream(input, config, stop=stop, **kwargs, **{_PARENT: config})
        async with aclosing(chunks):
            async for chunk in chunks:
                yield chunk

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        config = _child(run_manager, kwargs.pop(_PARENT, None))
        call = self._prepare_wrapped(messages, kwargs)
        answering = Answering(call.placement)
        for answer in self.llm.stream(call.messages, config, stop=stop, **call.rest):
            chunk = ChatGenerationChunk(message=answering.piece(answer))
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
        config = _child(run_manager, kwargs.pop(_PARENT, None))
        call = await self._aprepare_wrapped(messages, kwargs)
        answering = Answering(call.placement)
        answers: Any = self.llm.astream(call.messages, config, stop=stop, **call.rest)
        async with aclosing(answers):
            async for answer in answers:
                if _is_last(answer):  # quotes are found: that takes time
                    message = await asyncio.to_thread(answering.piece, answer)
                else:
                    message = answering.piece(answer)
                chunk = ChatGenerationChunk(message=message)
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk

    def _get_invocation_params(
        self, stop: list[str] | None = None, **kwargs: Any
    ) -> dict[str, Any]:
        kwargs.pop(_PARENT, None)
        return super()._get_invocation_params(stop=stop, **kwargs)

    def _prepare_wrapped(
        self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]
    ) -> "WrappedCall":
        arguments = self._read_wrapped(kwargs)
        texts, found = _find(messages, arguments)
        return self._call(messages, arguments.place(texts, found), arguments)

    async def _aprepare_wrapped(
        self, messages: Sequence[BaseMessage], kwargs: Mapping[str, Any]
    ) -> "WrappedCall":
        arguments = self._read_wrapped(kwargs)
        texts, found = await asyncio.to_thread(_find, messages, arguments)
        placement = await arguments.aplace(texts, found)
        return await asyncio.to_thread(self._call, messages, placement, arguments)

    def _call(
        self, messages: Sequence[BaseMessage], placement: Placement, arguments: WrappedArguments
    ) -> "WrappedCall":
        rewritten = rewrite(messages, placement)
        roles = ["user" if message.type == "human" else message.type for message in rewritten]
        kept = self._fit(roles, [message.text for message in rewritten], placement, arguments)
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

    messages: list[BaseMessage]
    placement: Placement
    rest: Mapping[str, Any]


class Answering:
    """Adds citations and costs to the wrapped model's answer."""

    def __init__(self, placement: Placement) -> None:
        self._placement = placement
        self._said = ""
        self._name: str | None = None

    def whole(self, answer: AIMessage) -> AIMessage:
        """The whole answer with citations and costs."""
        facts = self._take_name(answer.response_metadata)
        facts = {"model_provider": PROVIDER, **facts, **self._facts(answer.text)}
        return answer.model_copy(update={"response_metadata": facts})

    def piece(self, answer: AIMessage) -> AIMessageChunk:
        """A piece of the answer; the last one with citations and costs."""
        self._said += answer.text
        facts = self._take_name(answer.response_metadata)
        if _is_last(answer):
            facts |= self._facts(self._said)
        if not isinstance(answer, AIMessageChunk):  # the model does not stream
            content = answer.model_dump(exclude={"type", "response_metadata"})
            return AIMessageChunk(**content, response_metadata=facts, chunk_position="last")
        return answer.model_copy(update={"response_metadata": facts})

    def _take_name(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the model's name, by which usage is added up: the wrapped model's run has it."""
        self._name = facts.get("model_name", self._name)
        return {name: value for name, value in facts.items() if name != "model_name"}

    def _facts(self, said: str) -> dict[str, Any]:
        choice = self._placement.choice
        citations = []
        if choice is not None:
            quotes = find_quotes(said, choice.documents)
            citations = make_citations(quotes, choice.documents, choice.shares)
        return {
            "citations": citations,
            "finch": {"model": self._name, **self._placement.describe()},
        }


def _is_last(answer: AIMessage) -> bool:
    return not isinstance(answer, AIMessageChunk) or answer.chunk_position == "last"


def _find(
    messages: Sequence[BaseMessage], arguments: WrappedArguments
) -> tuple[list[str], Detected]:
    """The messages' texts, and the documents in them."""
    turns = to_turns(messages, only_text=False)
    given = given_documents(messages, arguments.documents)
    run = current_run()
    prompt = replace(arguments.prompt, strict=arguments.prompt.strict and not run.retrieving)
    found = find_documents(turns, given, prompt, run=run.root)
    return [turn.text[turn.offset :] for turn in turns], found


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _with_run_id(config: RunnableConfig | None) -> RunnableConfig:
    """Say beforehand which id the run of a stream will have."""
    config = ensure_config(config)
    return {**config, "run_id": config.get("run_id") or uuid4()}


def _child(
    run_manager: CallbackManagerForLLMRun | AsyncCallbackManagerForLLMRun | None,
    parent: RunnableConfig | None,
) -> RunnableConfig:
    """Make the wrapped model's run a child of this one's.

    Args:
        run_manager: Of this model's run; streams get none.
        parent: What a stream was called with.
    """
    if run_manager is not None:
        is_async = isinstance(run_manager, AsyncCallbackManagerForLLMRun)
        manager = (AsyncCallbackManager if is_async else CallbackManager)(
            handlers=[], parent_run_id=run_manager.run_id
        )
        manager.set_handlers(run_manager.inheritable_handlers)
        manager.add_tags(run_manager.inheritable_tags)
        manager.add_metadata(run_manager.inheritable_metadata)
        return {"tags": [_NO_STREAM], "callbacks": manager}
    if parent is None:
        return {"tags": [_NO_STREAM]}
    manager = CallbackManager.configure(parent.get("callbacks"))
    manager.parent_run_id = parent["run_id"]
    return {
        "tags": [*(parent.get("tags") or ()), _NO_STREAM],
        "metadata": parent.get("metadata") or {},
        "callbacks": manager,
    }


def _put_in_place(
    runnable: Runnable[Any, Any], old: BaseChatModel, new: BaseChatModel
) -> Runnable[Any, Any]:
    """Put a model in another's place, wherever that is in a runnable."""
    if runnable is old:
        return new
    if isinstance(runnable, RunnableBinding):
        bound = _put_in_place(runnable.bound, old, new)
        return runnable if bound is runnable.bound else runnable.model_copy(update={"bound": bound})
    if isinstance(runnable, RunnableSequence):
        steps = [_put_in_place(step, old, new) for step in runnable.steps]
        same = all(a is b for a, b in zip(steps, runnable.steps, strict=True))
        return runnable if same else RunnableSequence(*steps, name=runnable.name)
    if isinstance(runnable, RunnableParallel):
        named = {key: _put_in_place(step, old, new) for key, step in runnable.steps__.items()}
        same = all(named[key] is step for key, step in runnable.steps__.items())
        return runnable if same else RunnableParallel(named)
    return runnable
