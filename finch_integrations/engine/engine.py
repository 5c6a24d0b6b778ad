"""FinchEngine, the public interface of the engine."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from finch_integrations.config import CompressionConfig, SamplingParams, with_overrides
from finch_integrations.constraints import Constraint
from finch_integrations.documents import prepare_documents
from finch_integrations.engine import context as contexts
from finch_integrations.engine import loading
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import Budget, check_answer_fits, make_budget
from finch_integrations.engine.chat import build_chat
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.encoding import encode_selection
from finch_integrations.engine.evicting import evict_tokens
from finch_integrations.engine.generate import join_responses, stream_chat, stream_generate
from finch_integrations.engine.guiding import make_guide
from finch_integrations.engine.methods import (
    METHODS_THAT_READ_AHEAD,
    SEGMENT_SCORERS,
    Method,
    PassageMethod,
    TokenMethod,
    check_method,
    get_method,
)
from finch_integrations.engine.model_input import ModelInput, make_input
from finch_integrations.engine.passage_store import PassageStore
from finch_integrations.engine.progress import ProgressTracker
from finch_integrations.engine.prompt import INSTRUCTION, build_frame, make_prompt
from finch_integrations.engine.selecting import Reader, further_inputs, read_ahead
from finch_integrations.engine.selection import Selection
from finch_integrations.engine.selector import Selector
from finch_integrations.errors import (
    ConfigurationError,
    InvalidInputError,
)
from finch_integrations.types import (
    CompressionProgress,
    Document,
    Excerpt,
    GenerationResponse,
    Message,
    Tool,
)

Documents = Iterable[Document | str | Mapping[str, Any]]
Progress = Callable[[CompressionProgress], None]


class FinchEngine:
    """Compress documents under a question and answer from the compressed cache.

    Safe to use from several threads: forward passes take turns, and compressed contexts are
    never changed. Use it as a context manager, or call `close()`, to free the weights.

    Example:
        engine = FinchEngine.from_pretrained("embedded")
        context = engine.compress(["The door code is 4711."], "What is the door code?")
        for piece in engine.stream(context):
            print(piece.text, end="")
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        compression: CompressionConfig | None = None,
        sampling: SamplingParams | None = None,
        scorer: "FinchEngine | None" = None,
        store: PassageStore | None = None,
    ) -> None:
        """Wrap a model that is already loaded; it is not changed.

        Args:
            model: A decoder-only transformers model in evaluation mode.
            tokenizer: Its fast tokenizer.
            compression: Defaults for `compress`.
            sampling: Defaults for `stream` and `generate`.
            scorer: As for `from_pretrained`.
            store: As for `from_pretrained`.

        Raises:
            UnsupportedModelError: The model cannot be compressed for.
            ConfigurationError: The model is in training mode.
        """
        name = getattr(model.config, "_name_or_path", "") or type(model).__name__
        backbone = Backbone(model, tokenizer, name)
        self._set_up(backbone, None, compression, sampling, scorer, store)

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path = "embedded",
        *,
        device: str | torch.device | None = None,
        dtype: str | torch.dtype = "auto",
        revision: str | None = None,
        compression: CompressionConfig | None = None,
        sampling: SamplingParams | None = None,
        scorer: "FinchEngine | None" = None,
        store: PassageStore | None = None,
        **model_kwargs: Any,
    ) -> Self:
        """Load a model; engines in one process share the weights of the same model.

        Args:
            model: `embedded` (a 135M demonstration model, see `finch fetch`), a folder, a
                `.gguf` file or a hub id.
            device: Default: the accelerator if there is one.
            dtype: Default: by device; float32 on CPUs without fast bfloat16.
            revision: Of a hub model.
            compression: Defaults for `compress`.
            sampling: Defaults for `stream` and `generate`.
            scorer: A smaller engine that reads the documents and chooses the passages, so that
                this one only encodes those. Used by methods that keep passages, not by `finch`;
                tokenizers may differ.
                It is not closed with this engine.
            store: Keeps what this model reads of passages, so that they are not read again for
                another question. Default: a store of its own, in memory, of 1 GiB at most.
            model_kwargs: Passed unchanged to transformers' `from_pretrained`, for example
                `device_map`, `quantization_config`, `trust_remote_code` (off by default).

        Raises:
            ModelLoadError: There is no such model, or it cannot be read.
            UnsupportedModelError: The model cannot be compressed for.
            ConfigurationError: The device or dtype is unknown.
        """
        lease = loading.acquire(
            model, revision=revision, device=device, dtype=dtype, **model_kwargs
        )
        engine = cls.__new__(cls)
        engine._set_up(lease.backbone, lease, compression, sampling, scorer, store)
        return engine

    def _set_up(
        self,
        backbone: Backbone,
        lease: loading.Lease | None,
        compression: CompressionConfig | None,
        sampling: SamplingParams | None,
        scorer: "FinchEngine | None",
        store: PassageStore | None,
    ) -> None:
        self._backbone: Backbone | None = backbone
        self._lease = lease
        self.compression = compression or CompressionConfig()
        self.sampling = sampling or SamplingParams()
        self.store = PassageStore() if store is None else store
        self._own_store = store is None
        self._selector = Selector()
        self.scorer = scorer

    @property
    def backbone(self) -> Backbone:
        """The model with its tokenizer and facts.

        Raises:
            ConfigurationError: The engine has been closed.
        """
        if self._backbone is None:
            raise ConfigurationError("this engine has been closed. Make a new one")
        return self._backbone

    @property
    def window(self) -> int:
        """The most tokens that the model can use: prompt and answer together."""
        return self.backbone.spec.window

    def count_tokens(self, text: str) -> int:
        """Length of a text in the model's tokens."""
        tokenizer = self.backbone.tokenizer
        return len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def count_chat_tokens(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> int:
        """Length of a chat in the model's tokens; arguments and errors as for `chat`."""
        tokenizer = self.backbone.tokenizer
        ids = build_chat(
            tokenizer, messages, tools=tools, chat_template_kwargs=chat_template_kwargs
        )
        return len(ids)

    def select(
        self,
        documents: Documents,
        question: str,
        *,
        system: str | None = None,
        history: Sequence[Message] = (),
        instruction: str = INSTRUCTION,
        closing: str = "",
        tools: Sequence[Tool] = (),
        result: Message | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        **overrides: Any,
    ) -> Selection:
        """Choose the passages that matter to a question, without encoding them.

        A selection is plain data: `encode` makes a cache of it, here or in another process, and
        its excerpts are text for any other model. The window limits only what is read at a time,
        not how much is chosen. Documents that fit the budget are kept whole and not read.

        Args:
            documents: As for `compress`.
            question: The question.
            system: As for `compress`.
            history: As for `compress`.
            instruction: As for `compress`.
            closing: As for `compress`.
            tools: As for `compress`.
            result: As for `compress`.
            chat_template_kwargs: As for `compress`.
            progress: Called after every chunk.
            overrides: Fields of `CompressionConfig` to change for this call.

        Raises:
            InvalidInputError: Documents, question or messages are unusable.
            ConfigurationError: An option is unknown or wrong, or the method keeps no passages.
            ContextTooLongError: The question leaves the window no room to read, or a byte budget
                is too small.
            UnsupportedModelError: The model lacks what the method needs.
        """
        (selection,) = self.select_many(
            documents,
            [question],
            system=system,
            history=history,
            instruction=instruction,
            closing=closing,
            tools=tools,
            result=result,
            chat_template_kwargs=chat_template_kwargs,
            progress=progress,
            **overrides,
        )
        return selection

    def select_many(
        self,
        documents: Documents,
        questions: Sequence[str],
        *,
        system: str | None = None,
        history: Sequence[Message] = (),
        instruction: str = INSTRUCTION,
        closing: str = "",
        tools: Sequence[Tool] = (),
        result: Message | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        **overrides: Any,
    ) -> list[Selection]:
        """Choose passages of the same documents for several questions; they are read once.

        The selections are those of `select`, question by question.

        Args:
            documents: As for `compress`.
            questions: The questions.
            system: As for `compress`.
            history: As for `compress`.
            instruction: As for `compress`.
            closing: As for `compress`.
            tools: As for `compress`.
            result: As for `compress`.
            chat_template_kwargs: As for `compress`.
            progress: Called after every chunk.
            overrides: Fields of `CompressionConfig` to change for this call.

        Returns:
            A selection for every question, in order.

        Raises:
            InvalidInputError: As for `select`, or there is no question.
            ConfigurationError: As for `select`.
            ContextTooLongError: As for `select`.
            UnsupportedModelError: As for `select`.
        """
        config, method = self._configure(overrides)
        if not isinstance(method, PassageMethod):
            raise ConfigurationError(
                f"the method {config.method!r} keeps single tokens, not passages. "
                f"Use one of {', '.join(SEGMENT_SCORERS)}"
            )
        if isinstance(questions, str) or not questions:
            raise InvalidInputError(
                f"questions must be a list of at least one question, got {questions!r}"
            )
        prompts = [
            make_prompt(
                question=question,
                system=system,
                history=history,
                instruction=instruction,
                closing=closing,
                tools=tools,
                result=result,
                chat_template_kwargs=chat_template_kwargs,
            )
            for question in questions
        ]
        tracker = ProgressTracker(progress)
        tokenizer = self.backbone.tokenizer
        first = make_input(tokenizer, prepare_documents(documents), prompts[0])
        inputs = [
            first,
            *(replace(first, prompt=one, frame=build_frame(tokenizer, one)) for one in prompts[1:]),
        ]
        budgets = [
            make_budget(config, self.backbone.spec, one.frame, len(one.tokens)) for one in inputs
        ]
        return self._selector.select(
            self.backbone, self._reader, inputs, budgets, method, config, tracker
        )

    def read_ahead(
        self,
        documents: Documents,
        *,
        system: str | None = None,
        instruction: str = INSTRUCTION,
        tools: Sequence[Tool] = (),
        chat_template_kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        **overrides: Any,
    ) -> int:
        """Read documents into the store before a question is asked, or before the next one.

        A question then costs only its own tokens and the encoding of what was chosen. What is
        chosen does not depend on it. Passages that the store holds are not read again; documents
        that fit the budget are not read at all, and no more is read than the store has room for.

        Args:
            documents: As for `compress`.
            system: The questions' system text; what was read under another one is of no use.
            instruction: Likewise.
            tools: Likewise.
            chat_template_kwargs: Likewise.
            progress: Called after every batch; an exception that it raises ends the reading.
            overrides: Fields of `CompressionConfig` to change for this call.

        Returns:
            How many document tokens were read.

        Raises:
            InvalidInputError: Documents or texts are unusable.
            ConfigurationError: An option is wrong, or the method does not read separate passages.
            ContextTooLongError: The prompt leaves the window no room to read.
            UnsupportedModelError: The model lacks what the method needs.
        """
        config, method = self._configure(overrides)
        if not isinstance(method, PassageMethod) or method.read_ahead is None:
            raise ConfigurationError(
                f"the method {config.method!r} keeps nothing of what it reads. Use "
                f"{' or '.join(METHODS_THAT_READ_AHEAD)}"
            )
        prompt = make_prompt(
            question="?",  # any: it is not read
            system=system,
            instruction=instruction,
            tools=tools,
            chat_template_kwargs=chat_template_kwargs,
        )
        backbone = self.backbone
        inputs = make_input(backbone.tokenizer, prepare_documents(documents), prompt)
        budget = make_budget(config, backbone.spec, inputs.frame, len(inputs.tokens))
        tracker = ProgressTracker(progress)
        if budget.least < len(inputs.tokens):
            read_ahead(backbone, inputs, budget, method, config, tracker, self._reader())
        return tracker.seen

    def encode(
        self, selection: Selection, *, progress: Progress | None = None
    ) -> CompressedContext:
        """Read a selection into a KV cache.

        Args:
            selection: From `select`, of this engine or of one with the same tokenizer.
            progress: Called after every chunk.

        Raises:
            InvalidInputError: The selection was made with another tokenizer.
            ContextTooLongError: It does not fit the model's window.
            UnsupportedModelError: It is longer than the range in which longrope can be used.
        """
        backbone = self.backbone
        if selection.vocabulary != backbone.vocabulary:
            raise InvalidInputError(
                "this selection was made with another tokenizer than this engine's. Select again "
                "with this engine; an engine with the other model can be its scorer"
            )
        frame = build_frame(backbone.tokenizer, selection.prompt)
        total, target = selection.stats.document_tokens, len(selection.token_ids)
        check_answer_fits(backbone.spec, frame, total, target)
        tracker = ProgressTracker(progress)
        return encode_selection(
            backbone, selection, frame, self.compression.chunk_length, tracker, self.store.encodings
        )

    def compress(
        self,
        documents: Documents,
        question: str,
        *,
        system: str | None = None,
        history: Sequence[Message] = (),
        instruction: str = INSTRUCTION,
        closing: str = "",
        tools: Sequence[Tool] = (),
        result: Message | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        progress: Progress | None = None,
        further_questions: Sequence[str] = (),
        **overrides: Any,
    ) -> CompressedContext:
        """Compress documents into a KV cache, guided by a question.

        For methods that keep passages this is `encode(select(…))`. Documents that fit the budget
        are kept whole: the answer is then the plain prompt's. An exception raised by `progress`
        cancels the compression and reaches the caller.

        Args:
            documents: `Document`s, strings, or mappings with the fields of `Document`.
            question: The question.
            system: System text, always kept.
            history: Earlier turns of the user, the assistant and tools, always kept.
            instruction: Text between the documents and the question.
            closing: Text after the question, such as rules for the answer.
            tools: What the model may call.
            result: The tool's result that the documents are in, with what it says before them as
                its content. Default: they are in the last user turn.
            chat_template_kwargs: Further variables for the chat template.
            progress: Called after every chunk.
            further_questions: Questions that will be asked of the same documents next. They are
                chosen for now, together with this one, which costs less than one after another;
                `compress` then finds that done. Unusable ones are left for then.
            overrides: Fields of `CompressionConfig` to change for this call.

        Raises:
            InvalidInputError: Documents, question or messages are unusable.
            ConfigurationError: An option is unknown or wrong.
            ContextTooLongError: Prompt and budget do not fit the model's window.
            UnsupportedModelError: The model lacks what the method needs, or the prompt is longer
                than the range in which longrope can be used.
        """
        backbone = self.backbone
        config, method = self._configure(overrides)
        prompt = make_prompt(
            question=question,
            system=system,
            history=history,
            instruction=instruction,
            closing=closing,
            tools=tools,
            result=result,
            chat_template_kwargs=chat_template_kwargs,
        )
        inputs = make_input(backbone.tokenizer, prepare_documents(documents), prompt)
        total = len(inputs.tokens)
        budget = make_budget(config, backbone.spec, inputs.frame, total)
        check_answer_fits(backbone.spec, inputs.frame, total, budget.most)
        tracker = ProgressTracker(progress)
        if isinstance(method, TokenMethod) and budget.most < total:
            return evict_tokens(backbone, inputs, budget.most, method, config, tracker)
        further: list[tuple[ModelInput, Budget]] = []
        if further_questions:
            further = further_inputs(backbone, self._reader(), inputs, further_questions, config)
        selection, *_ = self._selector.select(
            backbone,
            self._reader,
            [inputs, *(one for one, _ in further)],
            [budget, *(other for _, other in further)],
            method,
            config,
            tracker,
        )
        # If documents were read, that took most of the time, and progress is complete.
        encoding = ProgressTracker(progress if selection.complete else None)
        return encode_selection(
            backbone, selection, inputs.frame, config.chunk_length, encoding, self.store.encodings
        )

    def extract(self, documents: Documents, question: str, **options: Any) -> tuple[Excerpt, ...]:
        """Shorten documents to the passages that matter, as text, for any other model.

        Args:
            documents: As for `select`.
            question: The question.
            options: As for `select`, which also says what is raised.

        Returns:
            The excerpts of `select`, in document order.
        """
        return self.select(documents, question, **options).excerpts

    def _configure(self, overrides: Mapping[str, Any]) -> tuple[CompressionConfig, Method]:
        """Look up the method and, if this model reads, check that it has what the method needs."""
        config = with_overrides(self.compression, overrides)
        method = get_method(config.method)
        if self.scorer is None or isinstance(method, TokenMethod):
            check_method(config.method, self.backbone.spec)
        return config, method

    def _reader(self) -> Reader:
        """Who reads documents to choose of them."""
        engine = self if self.scorer is None else self.scorer
        return Reader(engine.backbone, engine.store)

    def stream(
        self,
        context: CompressedContext,
        *,
        question: str | None = None,
        constraint: Constraint | None = None,
        **overrides: Any,
    ) -> Iterator[GenerationResponse]:
        """Answer from a compressed context, piece by piece.

        Args:
            context: From `compress`, `encode` or `load_context`; stays as it is.
            question: Another question to ask of the same compressed documents. What it needs may
                have been left out under the first one. Default: the context's own.
            constraint: What the answer must look like; a model's thoughts before it are free.
            overrides: Fields of `SamplingParams` to change for this call.

        Raises:
            ConfigurationError: An option is unknown or wrong.
            ConstraintError: The constraint cannot be compiled; says which part.
            MissingExtraError: There is a constraint, and llguidance is not installed.
            InvalidInputError: The context belongs to another model, or the question is unusable.
            ContextTooLongError: The window has no room for a new token.
        """
        backbone = self.backbone
        params = with_overrides(self.sampling, overrides)
        if not isinstance(context, CompressedContext):
            raise InvalidInputError(
                f"the context must be what compress, encode or load_context returned, got "
                f"{type(context).__name__}"
            )
        if context.fingerprint != backbone.fingerprint:
            raise InvalidInputError(
                f"this context was compressed with another model ({context.fingerprint}) than "
                f"the engine's ({backbone.fingerprint}). Compress again with this engine"
            )
        prompt = context.prompt if question is None else replace(context.prompt, question=question)
        suffix = build_frame(backbone.tokenizer, prompt).suffix
        guide = make_guide(backbone, constraint, prompt.tools, prompt.chat_template_kwargs)
        return stream_generate(backbone, context, suffix, params, guide)

    def generate(
        self, context: CompressedContext, *, question: str | None = None, **options: Any
    ) -> GenerationResponse:
        """Answer from a compressed context in one piece; arguments and errors as for `stream`."""
        return join_responses(self.stream(context, question=question, **options))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Tool] = (),
        constraint: Constraint | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Iterator[GenerationResponse]:
        """Answer a chat that has no documents, piece by piece; nothing is compressed.

        Args:
            messages: With the roles `system`, `user`, `assistant` and `tool`.
            tools: What the model may call.
            constraint: What the answer must look like; a model's thoughts before it are free.
            chat_template_kwargs: Further variables for the chat template.
            overrides: Fields of `SamplingParams` to change for this call.

        Raises:
            InvalidInputError: The messages are unusable or the chat template refuses them.
            ConfigurationError: An option is unknown or wrong.
            ConstraintError: The constraint cannot be compiled; says which part.
            MissingExtraError: There is a constraint, and llguidance is not installed.
            ContextTooLongError: The messages fill the model's window.
        """
        backbone = self.backbone
        params = with_overrides(self.sampling, overrides)
        ids = build_chat(
            backbone.tokenizer, messages, tools=tools, chat_template_kwargs=chat_template_kwargs
        )
        guide = make_guide(backbone, constraint, tools, chat_template_kwargs)
        return stream_chat(backbone, ids, params, guide)

    def load_context(self, path: str | os.PathLike[str]) -> CompressedContext:
        """Read a context written by `CompressedContext.save`.

        Raises:
            InvalidInputError: The file is missing, damaged or belongs to another model.
        """
        backbone = self.backbone
        return contexts.load_context(
            path,
            fingerprint=backbone.fingerprint,
            spec=backbone.spec,
            devices=backbone.layer_devices,
        )

    def close(self) -> None:
        """Release the model; the last engine that shares it frees its memory."""
        if self._lease is not None:
            loading.release(self._lease)
        self._backbone = self._lease = None
        self.store.encodings.clear()  # on the model's device
        if self._own_store:
            self.store.clear()
        loading.free_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
