"""Decoding an answer from a compressed context: tokens, then pieces of text."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

from finch_integrations.config import SamplingParams
from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.cache import KVCache, cache_length, new_cache, share_cache
from finch_integrations.engine.context import CompressedContext
from finch_integrations.engine.matchers import Matcher
from finch_integrations.engine.sampling import Sampler
from finch_integrations.engine.support import window_error
from finch_integrations.engine.text_stream import TextStream
from finch_integrations.types import FinishReason, GenerationResponse, TokenLogprob

# The suffix of one answer is fed at once up to this length, then piece by piece.
_PREFILL_LENGTH = 1024


@dataclass(frozen=True, slots=True)
class Guide:
    """What guides the writing of one answer.

    Attributes:
        matcher: What may come next; None: anything. It is used up.
        shown: Strings whose special tokens are part of the answer's text.
    """

    matcher: Matcher | None = None
    shown: tuple[str, ...] = ()


FREE = Guide()


def generate_step(
    backbone: Backbone,
    cache: KVCache,
    ids: Sequence[int],
    sampler: Sampler,
    matcher: Matcher | None = None,
) -> Generator[int, None, None]:
    """Feed `ids` after the cache, then yield tokens endlessly; the cache grows.

    Answers that run at the same time are fed their tokens together. Closing the iterator takes its
    next step back.
    """
    logits = backbone.prefill(ids, cache, _PREFILL_LENGTH)
    while True:
        token = sampler(logits if matcher is None else matcher.mask(logits))
        if matcher is not None:
            matcher.accept(token)
        step = backbone.announce(token, cache)
        try:
            yield token
            logits = step.logits()
        finally:
            step.cancel()


def stream_generate(
    backbone: Backbone,
    context: CompressedContext,
    suffix: Sequence[int],
    params: SamplingParams,
    guide: Guide = FREE,
) -> Iterator[GenerationResponse]:
    """Answer from a compressed context, which is not changed; pieces as from `stream_tokens`.

    Args:
        backbone: The model.
        context: Compressed for it.
        suffix: Token ids of instruction, question and generation prompt.
        params: How to decode.
        guide: What the answer must look like.

    Raises:
        ContextTooLongError: The window has no room for a single new token.
        ConstraintError: The constraint became too complex to follow.
    """
    cache = share_cache(context.cache)
    room = backbone.spec.window - cache_length(cache) - len(suffix)
    if room < 1:
        raise window_error(
            backbone.spec,
            f"the compressed context ({cache_length(cache)} tokens) and the question "
            f"({len(suffix)}) fill the model's window of {backbone.spec.window} tokens. "
            "Compress to a smaller target_size",
        )
    stats = context.stats
    prompt_tokens = stats.prefix_tokens + stats.document_tokens + len(suffix)
    yield from stream_tokens(backbone, cache, suffix, prompt_tokens, params, guide)


def stream_chat(
    backbone: Backbone, ids: Sequence[int], params: SamplingParams, guide: Guide = FREE
) -> Iterator[GenerationResponse]:
    """Answer a chat without documents; pieces as from `stream_tokens`.

    Raises:
        ContextTooLongError: The window has no room for a single new token.
    """
    if len(ids) >= backbone.spec.window:
        raise window_error(
            backbone.spec,
            f"the messages ({len(ids)} tokens) fill the model's window of "
            f"{backbone.spec.window} tokens. Shorten them, or hand their long texts over as "
            "documents to have them compressed",
        )
    yield from stream_tokens(backbone, new_cache(), ids, len(ids), params, guide)


def stream_tokens(
    backbone: Backbone,
    cache: KVCache,
    ids: Sequence[int],
    prompt_tokens: int,
    params: SamplingParams,
    guide: Guide = FREE,
) -> Iterator[GenerationResponse]:
    """Feed `ids` after the cache, which grows, and turn what the model says into text.

    There is one piece per token, so that closing the iterator stops decoding at the next token; its
    text is empty while it could still change. The last piece has a finish reason.
    """
    stop_tokens = backbone.stop_tokens
    stream = TextStream(backbone.tokenizer, params.stop, shown=guide.shown)
    matcher = guide.matcher
    sampler = Sampler(params)
    limit = min(params.max_tokens, backbone.spec.window - cache_length(cache) - len(ids))
    steps = generate_step(backbone, cache, ids, sampler, matcher)
    for count, token in enumerate(steps, start=1):
        ended = token in stop_tokens
        text = "" if ended else stream.push(token)
        reason: FinishReason | None = None
        if ended or stream.stopped or (matcher is not None and matcher.done):
            reason = "stop"
        elif count == limit:
            reason = "length"
        if reason is not None:
            steps.close()  # the next step would be run with those of other answers
            text += stream.finish()
        yield GenerationResponse(
            text=text,
            tokens=(token,),
            prompt_tokens=prompt_tokens,
            generation_tokens=count,
            finish_reason=reason,
            logprobs=(_logprob(backbone, sampler, token),) if params.logprobs else (),
        )
        if reason is not None:
            return


def _logprob(backbone: Backbone, sampler: Sampler, token: int) -> TokenLogprob:
    logprob, top = sampler.logprobs(token)

    def named(id: int, value: float) -> TokenLogprob:
        return TokenLogprob(token=backbone.tokenizer.decode([id]), id=id, logprob=value)

    first = named(token, logprob)
    return replace(first, top=tuple(named(id, value) for id, value in top))


def join_responses(pieces: Iterator[GenerationResponse]) -> GenerationResponse:
    """Run a stream to its end and return the whole answer."""
    all_pieces = list(pieces)
    last = all_pieces[-1]
    return GenerationResponse(
        text="".join(piece.text for piece in all_pieces),
        tokens=tuple(token for piece in all_pieces for token in piece.tokens),
        prompt_tokens=last.prompt_tokens,
        generation_tokens=last.generation_tokens,
        finish_reason=last.finish_reason,
        logprobs=tuple(one for piece in all_pieces for one in piece.logprobs),
    )
