"""How many tokens to keep, and whether everything fits the window; decided before any work."""

from dataclasses import dataclass

from finch_integrations.config import DEFAULT_TARGET_SIZE, CompressionConfig
from finch_integrations.engine.prompt import Frame
from finch_integrations.engine.support import ModelSpec, window_error
from finch_integrations.errors import ContextTooLongError

# What is read where nothing else is asked for: this share of all tokens, but of long sets no more
# than so many, and always so many times what is kept. See docs/methods.md for what that loses: what
# the words put after the best 6,144 tokens was not kept when it was read, however much there was.
_SHARE_READ, _MOST_READ, _TIMES_READ = 3 / 8, 6144, 3

# With target_size="auto", so many tokens are kept whatever the scores are: three passages or four.
_LEAST_KEPT = 192


@dataclass(frozen=True, slots=True)
class Budget:
    """How many document tokens to keep; where `least` and `most` differ, the scores decide.

    Attributes:
        least: The floor.
        most: The ceiling.
    """

    least: int
    most: int


def make_budget(config: CompressionConfig, spec: ModelSpec, frame: Frame, total: int) -> Budget:
    """Document tokens to keep of `total`.

    Raises:
        ContextTooLongError: The byte budget is too small for the rest of the prompt.
    """
    if config.fixed_size is not None:
        wanted = config.fixed_size
    elif config.compression_ratio is not None:
        wanted = max(1, round(total * (1 - config.compression_ratio)))
    elif config.max_kv_bytes is not None:
        fixed_tokens = len(frame.prefix) + len(frame.suffix)
        affordable = config.max_kv_bytes // spec.kv_bytes_per_token
        if affordable <= fixed_tokens:
            raise ContextTooLongError(
                f"max_kv_bytes={config.max_kv_bytes} holds {affordable} tokens of "
                f"{spec.kv_bytes_per_token} bytes each, but the prefix, question and generation "
                f"prompt alone need {fixed_tokens}. Raise it above "
                f"{(fixed_tokens + 1) * spec.kv_bytes_per_token}"
            )
        wanted = affordable - fixed_tokens
    else:
        wanted = min(DEFAULT_TARGET_SIZE, max(1, _answering_room(spec, frame) // 2))
    most = min(total, wanted)
    return Budget(min(_LEAST_KEPT, most) if config.target_size == "auto" else most, most)


def tokens_to_read(config: CompressionConfig, budget: Budget, total: int) -> int:
    """Document tokens to read of `total` in order to choose; at least the budget's floor."""
    if config.read_size == "all":
        return total
    if config.read_size == "auto":
        wanted = max(_TIMES_READ * budget.least, min(_MOST_READ, int(_SHARE_READ * total)))
    else:
        wanted = config.read_size
    return min(total, max(budget.least, wanted))


def check_answer_fits(spec: ModelSpec, frame: Frame, total: int, target: int) -> None:
    """Check that prefix, target, suffix and one new token fit the window.

    Raises:
        ContextTooLongError: It does not.
        UnsupportedModelError: They are longer than the range in which longrope can be used.
    """
    prefix, suffix = len(frame.prefix), len(frame.suffix)
    room = _answering_room(spec, frame)
    fixed = f"prefix ({prefix} tokens) and question with generation prompt ({suffix})"
    if room < 1:
        raise window_error(
            spec,
            f"{fixed} fill the model's window of {spec.window} tokens and leave no room for "
            "documents. Shorten the question, the system text or the history",
        )
    if target > room:
        raise window_error(
            spec,
            f"keeping {target} of {total} document tokens with {fixed} leaves no room "
            f"for an answer in the model's window of {spec.window} tokens. Keep at most {room} "
            "tokens, better a good deal fewer (target_size)",
        )


def reading_length(config: CompressionConfig, spec: ModelSpec, frame: Frame) -> int:
    """Tokens to read per step where chunks are only scored: prefix, chunk and question must fit.

    Raises:
        ContextTooLongError: The window has no room for a chunk.
        UnsupportedModelError: They are longer than the range in which longrope can be used.
    """
    prefix, window = len(frame.prefix), max(len(frame.window.ids), len(frame.null_window.ids))
    room = spec.window - prefix - window
    if room < 1:
        raise window_error(
            spec,
            f"prefix ({prefix} tokens) and question ({window}) fill the model's window of "
            f"{spec.window} tokens and leave no room for a chunk. Shorten the question",
        )
    return min(config.chunk_length, room)


def evicting_length(config: CompressionConfig, spec: ModelSpec, frame: Frame, target: int) -> int:
    """Tokens to read per step where the cache also holds what was kept so far.

    At least 1 where the answer fits (`check_answer_fits`).
    """
    room = spec.window - len(frame.prefix) - target - len(frame.window.ids)
    return min(config.chunk_length, room)


def _answering_room(spec: ModelSpec, frame: Frame) -> int:
    return spec.window - len(frame.prefix) - len(frame.suffix) - 1
