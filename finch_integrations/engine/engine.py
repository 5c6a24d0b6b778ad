"""FinchEngine: the engine's public face."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from finch_integrations.config import CompressionConfig, SamplingParams, with_overrides
from finch_integrations.documents import prepare_documents
from finch_integrations.engine import context as contexts
from finch_integrations.engine import loading
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.budget import make_plan, plan_extraction, scoring_chunk_length
from finch_integrations.engine.cache import cache_bytes, cache_length
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.excerpts import find_excerpts
from finch_integrations.engine.generate import join_responses, stream_chat, stream_generate
from finch_integrations.engine.methods import RATINGS, Rate, get_method, keep_everything
from finch_integrations.engine.methods.passages import choose, encode_choice
from finch_integrations.engine.prompt import (
    INSTRUCTION,
    DocumentSpan,
    Prompt,
    build_chat,
    build_prompt,
)
from finch_integrations.engine.segments import Segment, translate_segments
from finch_integrations.errors import ConfigurationError, InvalidInputError
from finch_integrations.types import (
    CompressionProgress,
    CompressionStats,
    Document,
    DocumentShare,
    Excerpt,
    GenerationResponse,
    Message,
)


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
    ) -> None:
        """Wrap a model that is already loaded; it is used as it is and left as it is.

        Args:
            model: A decoder-only transformers model in evaluation mode.
            tokenizer: Its fast tokenizer.
            compression: Defaults for `compress`.
            sampling: Defaults for `stream` and `generate`.
            scorer: As for `from_pretrained`.

        Raises:
            UnsupportedModelError: The model cannot be compressed for.
            ConfigurationError: The model is in training mode.
        """
        name = getattr(model.config, "_name_or_path", "") or type(model).__name__
        self._set_up(Backbone(model, tokenizer, name), None, compression, sampling, scorer)

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
        **model_kwargs: Any,
    ) -> Self:
        """Load a model; engines of one process share the weights of the same model.

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
            model_kwargs: Passed to transformers' `from_pretrained` untouched, for example
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
        engine._set_up(lease.backbone, lease, compression, sampling, scorer)
        return engine

    def _set_up(
        self,
        backbone: Backbone,
        lease: loading.Lease | None,
        compression: CompressionConfig | None,
        sampling: SamplingParams | None,
        scorer: "FinchEngine | None",
    ) -> None:
        self.scorer = scorer
        self._backbone: Backbone | None = backbone
        self._lease = lease
        self.compression = compression or CompressionConfig()
        self.sampling = sampling or SamplingParams()

    @property
    def backbone(self) -> Backbone:
        """The model with its tokenizer and facts.

        Raises:
            ConfigurationError: The engine has been closed.
        """
        if self._backbone is None:
            raise ConfigurationError("this engine has been closed. Make a new one")
        return self._backbone

    def compress(
        self,
        documents: Iterable[Document | str | Mapping[str, Any]],
        query: str,
        *,
        system: str | None = None,
        history: Sequence[Message] = (),
        instruction: str = INSTRUCTION,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        progress: Callable[[CompressionProgress], None] | None = None,
        **overrides: Any,
    ) -> CompressedContext:
        """Compress documents into a KV cache, guided by a question.

        Documents that fit the budget are kept whole. An exception raised by `progress` cancels
        the compression and reaches the caller.

        Args:
            documents: `Document`s, strings, or mappings with the fields of `Document`.
            query: The question; also the end of the prompt the answer starts from.
            system: System text, kept verbatim.
            history: Earlier user and assistant turns, kept verbatim.
            instruction: Stands between the documents and the question.
            chat_template_kwargs: Further variables for the chat template.
            progress: Called after every chunk.
            overrides: Fields of `CompressionConfig` to change for this call.

        Raises:
            InvalidInputError: Documents, question or messages are unusable.
            ConfigurationError: An option is unknown or wrong.
            ContextTooLongError: Prompt and budget do not fit the model's window.
            UnsupportedModelError: They reach past the range in which longrope can be used.
        """
        backbone = self.backbone
        config = with_overrides(self.compression, overrides)
        method = get_method(config.method, backbone.spec)
        checked = prepare_documents(documents)
        started = time.perf_counter()
        prompt = build_prompt(
            backbone.tokenizer,
            checked,
            query,
            system=system,
            history=history,
            instruction=instruction,
            chat_template_kwargs=chat_template_kwargs,
        )
        plan = make_plan(prompt, backbone.spec, config)
        rate = RATINGS.get(config.method)
        if plan.target == len(prompt.documents):
            method, rate = keep_everything, None
        watch = _Watch(len(prompt.documents), started, progress)
        if self.scorer and rate:
            # The longest cache of this model is the one that comes out.
            rated = _rate_by(self.scorer.backbone, rate, prompt, checked, config, watch)
            choice = choose(*rated, plan.target)
            prefix = backbone.encode(prompt.prefix, plan.chunk_length)
            compressed = encode_choice(backbone, prompt, plan, prefix, choice)
        else:
            compressed = method(backbone, prompt, plan, config, watch.chunk_done)
        return CompressedContext(
            cache=compressed.cache,
            suffix=prompt.suffix,
            prompt_tokens=len(prompt),
            kept=compressed.kept,
            documents=_shares(checked, prompt.spans, compressed.kept),
            excerpts=find_excerpts(prompt, checked, c) if (c := compressed.choice) else (),
            stats=CompressionStats(
                document_tokens=len(prompt.documents),
                kept_tokens=plan.target,
                prefix_tokens=len(prompt.prefix),
                suffix_tokens=len(prompt.suffix),
                peak_kv_tokens=max(watch.peak, cache_length(compressed.cache)),
                kv_bytes=cache_bytes(compressed.cache),
                seconds=time.perf_counter() - started,
            ),
            fingerprint=backbone.fingerprint,
        )

    def extract(
        self,
        documents: Iterable[Document | str | Mapping[str, Any]],
        query: str,
        *,
        progress: Callable[[CompressionProgress], None] | None = None,
        **overrides: Any,
    ) -> tuple[Excerpt, ...]:
        """Shorten documents to the passages that matter, as text, for any other model.

        The passages that `compress` would keep, in document order. Together they have
        `target_size` tokens of this engine's model, or the budget given instead.

        Args:
            documents: As for `compress`.
            query: The question.
            progress: Called after every chunk.
            overrides: Fields of `CompressionConfig` to change for this call.

        Raises:
            InvalidInputError: Documents or question are unusable.
            ConfigurationError: An option is unknown or wrong, or the method keeps no passages.
            ContextTooLongError: Question and budget do not fit the model's window.
        """
        backbone = self.backbone
        config = with_overrides(self.compression, overrides)
        get_method(config.method, backbone.spec)
        rate = RATINGS.get(config.method)
        if rate is None:
            raise ConfigurationError(
                f"the method {config.method!r} keeps single tokens, not passages. "
                f"Use one of {', '.join(RATINGS)}"
            )
        checked = prepare_documents(documents)
        started = time.perf_counter()
        prompt = build_prompt(backbone.tokenizer, checked, query)
        if not prompt.documents:
            return ()  # a tiny text can merge with its surroundings: nothing to rate
        plan = plan_extraction(prompt, backbone.spec, config)
        watch = _Watch(len(prompt.documents), started, progress)
        if self.scorer:
            rated = _rate_by(self.scorer.backbone, rate, prompt, checked, config, watch)
        else:
            prefix = backbone.encode(prompt.prefix, plan.chunk_length)
            rated = rate(backbone, prompt, prefix, plan.chunk_length, watch.chunk_done)
        return find_excerpts(prompt, checked, choose(*rated, plan.target))

    def stream(self, context: CompressedContext, **overrides: Any) -> Iterator[GenerationResponse]:
        """Answer from a compressed context, piece by piece.

        Args:
            context: From `compress` or `load_context`; stays as it is.
            overrides: Fields of `SamplingParams` to change for this call.

        Raises:
            ConfigurationError: An option is unknown or wrong.
            InvalidInputError: The context belongs to another model.
            ContextTooLongError: The window has no room for a new token.
        """
        backbone = self.backbone
        params = with_overrides(self.sampling, overrides)
        if context.fingerprint != backbone.fingerprint:
            raise InvalidInputError(
                f"this context was compressed with another model ({context.fingerprint}) than "
                f"the engine's ({backbone.fingerprint}). Compress again with this engine"
            )
        return stream_generate(backbone, context, params)

    def generate(self, context: CompressedContext, **overrides: Any) -> GenerationResponse:
        """Answer from a compressed context at once; arguments and errors as for `stream`."""
        return join_responses(self.stream(context, **overrides))

    def chat(
        self,
        messages: Sequence[Message],
        *,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **overrides: Any,
    ) -> Iterator[GenerationResponse]:
        """Answer a chat that has no documents, piece by piece; nothing is compressed.

        Args:
            messages: With the roles `system`, `user` and `assistant`.
            chat_template_kwargs: Further variables for the chat template.
            overrides: Fields of `SamplingParams` to change for this call.

        Raises:
            InvalidInputError: The messages are unusable or the chat template refuses them.
            ConfigurationError: An option is unknown or wrong.
            ContextTooLongError: The messages fill the model's window.
        """
        backbone = self.backbone
        params = with_overrides(self.sampling, overrides)
        ids = build_chat(backbone.tokenizer, messages, chat_template_kwargs=chat_template_kwargs)
        return stream_chat(backbone, ids, params)

    @property
    def window(self) -> int:
        """Tokens that the model can see at once."""
        return self.backbone.spec.window

    def count_tokens(self, text: str) -> int:
        """Measure a text in the model's tokens."""
        return len(self.backbone.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def count_chat_tokens(
        self,
        messages: Sequence[Message],
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> int:
        """Measure the prompt that the chat template makes of messages.

        Raises:
            InvalidInputError: The messages are unusable or the chat template refuses them.
        """
        tokenizer = self.backbone.tokenizer
        return len(build_chat(tokenizer, messages, chat_template_kwargs=chat_template_kwargs))

    def load_context(self, path: str | os.PathLike[str]) -> CompressedContext:
        """Read a context written by `CompressedContext.save`.

        Raises:
            InvalidInputError: The file is missing, damaged or belongs to another model.
        """
        backbone = self.backbone
        return contexts.load_context(
            path, fingerprint=backbone.fingerprint, devices=backbone.layer_devices
        )

    def close(self) -> None:
        """Let go of the model; the last engine that shares it frees its memory."""
        if self._lease is not None:
            loading.release(self._lease)
        self._backbone = self._lease = None
        loading.free_memory()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Watch:
    """Follow a compression: remember the longest cache, report progress."""

    def __init__(
        self,
        total: int,
        started: float,
        progress: Callable[[CompressionProgress], None] | None,
    ) -> None:
        self.total = total
        self._started = started
        self._progress = progress
        self.peak = 0

    def chunk_done(self, seen: int, kv_tokens: int) -> None:
        self.peak = max(self.peak, kv_tokens)
        if self._progress is not None:
            self._progress(
                CompressionProgress(
                    tokens=seen,
                    total_tokens=self.total,
                    seconds=time.perf_counter() - self._started,
                )
            )


def _rate_by(
    scorer: Backbone,
    rate: Rate,
    prompt: Prompt,
    documents: Sequence[Document],
    config: CompressionConfig,
    watch: _Watch,
) -> tuple[list[Segment], Tensor]:
    """Let another model rate the documents.

    Progress is counted in its tokens; its caches are not watched.

    Returns:
        The segments, in the tokens of `prompt`, and their scores, [number of segments].
    """
    get_method(config.method, scorer.spec)
    theirs = build_prompt(scorer.tokenizer, documents, prompt.question)
    length = scoring_chunk_length(theirs, scorer.spec, config)
    watch.total = len(theirs.documents)
    prefix = scorer.encode(theirs.prefix, length)
    segments, scores = rate(
        scorer, theirs, prefix, length, lambda seen, _: watch.chunk_done(seen, 0)
    )
    return translate_segments(segments, theirs, prompt), scores


def _shares(
    documents: Sequence[Document], spans: Sequence[DocumentSpan], kept: Sequence[Tensor]
) -> tuple[DocumentShare, ...]:
    """Count each document's kept tokens, averaged over layers and selections."""
    positions = torch.cat([layer.flatten() for layer in kept])
    selections = sum(layer.shape[0] for layer in kept)
    borders = torch.tensor([span.start for span in spans] + [spans[-1].end])
    # A document's tokens are those that lie behind its start and before the next one's.
    owner = torch.bucketize(positions, borders[1:], right=True)
    counts = torch.bincount(owner, minlength=len(documents)) / selections
    return tuple(
        DocumentShare(
            id=str(document.id),
            title=document.title,
            tokens=span.end - span.start,
            kept_tokens=float(count),
        )
        for document, span, count in zip(documents, spans, counts.tolist(), strict=True)
    )
