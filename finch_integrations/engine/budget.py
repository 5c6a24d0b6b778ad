"""How many tokens to keep, and whether everything fits the window; decided before any work."""

from dataclasses import dataclass

from finch_integrations.config import CompressionConfig
from finch_integrations.engine.prompt import Prompt
from finch_integrations.engine.support import ModelSpec, window_error
from finch_integrations.errors import ContextTooLongError

DEFAULT_TARGET_SIZE = 2048


@dataclass(frozen=True, slots=True)
class Plan:
    """The numbers of one compression.

    Attributes:
        target: Document tokens to end up with.
        chunk_length: Tokens to feed per step.
    """

    target: int
    chunk_length: int


def make_plan(prompt: Prompt, spec: ModelSpec, config: CompressionConfig) -> Plan:
    """Fix the target and the chunk length.

    The window must hold prefix + target + chunk + question while compressing, and prefix +
    target + suffix and one new token when answering.

    Raises:
        ContextTooLongError: They do not fit the window, or the byte budget is too small.
        UnsupportedModelError: They reach past the range in which longrope can be used.
    """
    prefix, suffix, guide = len(prompt.prefix), len(prompt.suffix), len(prompt.guide.ids)
    total = len(prompt.documents)
    room = spec.window - prefix - suffix - 1
    fixed = f"prefix ({prefix} tokens) and question with generation prompt ({suffix})"
    if room < 1:
        raise window_error(
            spec,
            f"{fixed} fill the model's window of {spec.window} tokens and leave no room for "
            "documents. Shorten the question, the system text or the history",
        )
    target = min(total, _wanted_tokens(config, spec, total, prefix + suffix, room))
    if target == total and total <= room:
        return Plan(target, config.chunk_length)  # nothing to compress
    chunk_room = spec.window - prefix - target - guide
    if target > room or chunk_room < 1:
        most = min(room, spec.window - prefix - guide - 1)
        raise window_error(
            spec,
            f"keeping {target} of {total} document tokens beside {fixed} leaves no room for a "
            f"chunk in the model's window of {spec.window} tokens. Keep at most {most} tokens, "
            "better a good deal fewer (target_size)",
        )
    return Plan(target, min(config.chunk_length, chunk_room))


def plan_extraction(prompt: Prompt, spec: ModelSpec, config: CompressionConfig) -> Plan:
    """Fix target and chunk length where the kept text is not encoded here.

    Raises:
        ContextTooLongError: As for `scoring_chunk_length`, or the byte budget is too small.
        UnsupportedModelError: As for `scoring_chunk_length`.
    """
    chunk_length = scoring_chunk_length(prompt, spec, config)
    total, fixed = len(prompt.documents), len(prompt.prefix) + len(prompt.suffix)
    room = spec.window - len(prompt.prefix) - len(prompt.guide.ids)
    return Plan(min(total, _wanted_tokens(config, spec, total, fixed, room)), chunk_length)


def scoring_chunk_length(prompt: Prompt, spec: ModelSpec, config: CompressionConfig) -> int:
    """Tokens to feed per step where chunks are only scored: prefix, chunk and question must fit.

    Raises:
        ContextTooLongError: The window has no room for a chunk.
        UnsupportedModelError: They reach past the range in which longrope can be used.
    """
    prefix, guide = len(prompt.prefix), max(len(prompt.guide.ids), len(prompt.null_guide.ids))
    room = spec.window - prefix - guide
    if room < 1:
        raise window_error(
            spec,
            f"prefix ({prefix} tokens) and question ({guide}) fill the model's window of "
            f"{spec.window} tokens and leave no room for a chunk. Shorten the question",
        )
    return min(config.chunk_length, room)


def _wanted_tokens(
    config: CompressionConfig, spec: ModelSpec, total: int, fixed_tokens: int, room: int
) -> int:
    if config.target_size is not None:
        return config.target_size
    if config.compression_ratio is not None:
        return max(1, round(total * (1 - config.compression_ratio)))
    if config.max_kv_bytes is not None:
        affordable = config.max_kv_bytes // spec.kv_bytes_per_token
        if affordable <= fixed_tokens:
            raise ContextTooLongError(
                f"max_kv_bytes={config.max_kv_bytes} holds {affordable} tokens of "
                f"{spec.kv_bytes_per_token} bytes each, but the prefix, question and generation "
                f"prompt alone need {fixed_tokens}. Raise it above "
                f"{(fixed_tokens + 1) * spec.kv_bytes_per_token}"
            )
        return affordable - fixed_tokens
    return min(DEFAULT_TARGET_SIZE, max(1, room // 2))
