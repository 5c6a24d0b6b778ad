"""Options, validated when they are made."""

import difflib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, TypeVar, get_args

from finch_integrations.errors import ConfigurationError

Selection = Literal["layer", "kv_head"]
BudgetSchedule = Literal["linear", "fill"]
Pooling = Literal["none", "max", "mean"]
Fusion = Literal["scores", "rrf"]

DEFAULT_TARGET_SIZE = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class CompressionConfig:
    """How documents are compressed.

    Give at most one of the three budgets. Without any, `DEFAULT_TARGET_SIZE` tokens are kept,
    or half of what a small window has room for.

    Attributes:
        target_size: Document tokens to keep in every layer. `auto`: as many as the passages'
            scores call for, at most what is kept without a budget. Only of methods that keep
            passages.
        compression_ratio: Fraction of the document tokens to remove, 0 ≤ ratio < 1.
        max_kv_bytes: Size in bytes of the cache the answer starts from: prefix, kept document
            tokens, question and generation prompt.
        read_size: Document tokens that the model reads at most to choose; the passages whose words
            match the question best. `auto`: 3/8 of all tokens, but at most 6,144, and at least
            three times as many as are kept. `all`: everything. Only of the method `likelihood`.
        method: `likelihood`: keep the passages that make the question likely, and encode them
            again. `contrast`: those that the question attends to more than any question would.
            `finch`: the paper's method; only it has the options from `selection` to
            `pooling_kernel`.
        chunk_length: Document tokens read per step; fewer where the model's window is small.
        batch_tokens: Tokens of passages that are read at once, side by side. None: as many as a
            GPU's free memory has room for, elsewhere `chunk_length`. Changes no score. Only of the
            method `likelihood`.
        selection: `layer`: every layer keeps one set of tokens, chosen by the attention summed
            over its heads (the paper). `kv_head`: every KV head keeps its own set.
        budget_schedule: `linear`: the cache grows in proportion to what was read (the paper).
            `fill`: keep everything until the target is reached, then evict.
        normalize_scores: Weight each question token by the fraction of the tokens that it can see
            (as in the authors' code; in the paper's formula all weights are 1).
        pooling: Smooth scores over neighbouring tokens of the original text.
        pooling_kernel: Width of the pooling window in tokens, odd.
    """

    target_size: int | Literal["auto"] | None = None
    compression_ratio: float | None = None
    max_kv_bytes: int | None = None
    read_size: int | Literal["auto", "all"] = "auto"
    method: str = "likelihood"
    chunk_length: int = 1024
    batch_tokens: int | None = None
    selection: Selection = "layer"
    budget_schedule: BudgetSchedule = "linear"
    normalize_scores: bool = False
    pooling: Pooling = "none"
    pooling_kernel: int = 5

    def __post_init__(self) -> None:
        budgets = {
            name: value
            for name in ("target_size", "compression_ratio", "max_kv_bytes")
            if (value := getattr(self, name)) is not None
        }
        if len(budgets) > 1:
            raise ConfigurationError(
                f"give one budget, got {len(budgets)}: {', '.join(budgets)}. "
                "Remove all but one of them"
            )
        if self.target_size not in ("auto", None):
            _require_int("target_size", self.target_size, minimum=1, instead=" or 'auto'")
        if self.max_kv_bytes is not None:
            _require_int("max_kv_bytes", self.max_kv_bytes, minimum=1)
        ratio = self.compression_ratio
        if ratio is not None and not (_is_real(ratio) and 0 <= ratio < 1):
            raise ConfigurationError(
                "compression_ratio is the fraction of tokens to remove and must be "
                f"at least 0 and below 1, got {ratio!r}"
            )
        if self.read_size not in ("auto", "all"):
            _require_int("read_size, if it is not 'auto' or 'all',", self.read_size, minimum=1)
        if not isinstance(self.method, str) or not self.method:
            raise ConfigurationError(f"method must be a method's name, got {self.method!r}")
        _require_int("chunk_length", self.chunk_length, minimum=1)
        if self.batch_tokens is not None:
            _require_int("batch_tokens", self.batch_tokens, minimum=1)
        _require_choice("selection", self.selection, get_args(Selection))
        _require_choice("budget_schedule", self.budget_schedule, get_args(BudgetSchedule))
        _require_choice("pooling", self.pooling, get_args(Pooling))
        _require_bool("normalize_scores", self.normalize_scores)
        _require_int("pooling_kernel", self.pooling_kernel, minimum=1)
        if self.pooling_kernel % 2 == 0:
            raise ConfigurationError(
                f"pooling_kernel must be odd, so that it has a middle, got {self.pooling_kernel}"
            )
        if self.method != "finch":
            self._refuse_options_of_finch()
        elif self.target_size == "auto":
            raise ConfigurationError(
                "target_size='auto' looks at the scores of passages, and the method 'finch' has "
                "none: it keeps single tokens. Give a number, or leave the method out"
            )
        if self.method != "likelihood":
            for name, value in (("read_size", self.read_size), ("batch_tokens", self.batch_tokens)):
                if isinstance(value, int):
                    raise ConfigurationError(
                        f"{name} is an option of the method 'likelihood': {self.method!r} reads "
                        "everything, chunk by chunk. Leave it out"
                    )
        if self.pooling == "none" and self.pooling_kernel != 5:
            raise ConfigurationError(
                "pooling_kernel does nothing with pooling='none'. Leave it out, or choose a pooling"
            )

    @property
    def fixed_size(self) -> int | None:
        """`target_size` where it is a number."""
        return self.target_size if isinstance(self.target_size, int) else None

    def _refuse_options_of_finch(self) -> None:
        """An option that would do nothing is a mistake."""
        defaults = {field.name: field.default for field in fields(self)}
        names = ("selection", "budget_schedule", "normalize_scores", "pooling", "pooling_kernel")
        for name in names:
            if getattr(self, name) != defaults[name]:
                raise ConfigurationError(
                    f"{name} is an option of the method 'finch' and does nothing in "
                    f"{self.method!r}. Leave it out, or add method='finch'"
                )


_LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How an answer is decoded.

    Attributes:
        max_tokens: Upper limit of generated tokens.
        temperature: 0 takes the most likely token each time (deterministic); higher is more
            random.
        top_p: Sample from the smallest set of tokens with this probability, 0 < top_p ≤ 1.
        top_k: Sample from this many most likely tokens; 0 means all.
        min_p: Sample from tokens with at least this share of the most likely one's probability.
        repetition_penalty: Above 1 makes tokens of the answer less likely to come again.
        presence_penalty: Taken off the logits of tokens that the answer has, between -2 and 2.
        frequency_penalty: The same, times how often it has them.
        logprobs: Report the log-probability of every token, before penalties and temperature.
        top_logprobs: And of so many of the most likely tokens at its place, at most 20.
        stop: Strings that end the answer; matched on the decoded text and left out of it.
        seed: Makes sampling repeatable.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logprobs: bool = False
    top_logprobs: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        _require_int("max_tokens", self.max_tokens, minimum=1)
        # Divided by less, logits leave the range of float32.
        if not (
            _is_real(self.temperature)
            and (self.temperature == 0 or _LEAST_TEMPERATURE <= self.temperature < math.inf)
        ):
            raise ConfigurationError(
                f"temperature must be 0, or at least {_LEAST_TEMPERATURE}, got {self.temperature!r}"
            )
        if not (_is_real(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigurationError(f"top_p must be above 0 and at most 1, got {self.top_p!r}")
        _require_int("top_k", self.top_k, minimum=0)
        if not (_is_real(self.min_p) and 0 <= self.min_p <= 1):
            raise ConfigurationError(f"min_p must be between 0 and 1, got {self.min_p!r}")
        if not (_is_real(self.repetition_penalty) and 0 < self.repetition_penalty < math.inf):
            raise ConfigurationError(
                f"repetition_penalty must be above 0 (1: none), got {self.repetition_penalty!r}"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            value = getattr(self, name)
            if not (_is_real(value) and -2 <= value <= 2):
                raise ConfigurationError(f"{name} must be between -2 and 2, got {value!r}")
        _require_bool("logprobs", self.logprobs)
        _require_int("top_logprobs", self.top_logprobs, minimum=0)
        if self.top_logprobs > 20:
            raise ConfigurationError(f"top_logprobs must be at most 20, got {self.top_logprobs}")
        if self.top_logprobs and not self.logprobs:
            raise ConfigurationError("top_logprobs needs logprobs=True")
        if self.seed is not None:
            _require_int("seed", self.seed, minimum=0)
            if self.seed >= 2**64:
                raise ConfigurationError(f"seed must be below 2**64, got {self.seed}")
        object.__setattr__(self, "stop", _stop_strings(self.stop))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrievalConfig:
    """How chunks are found and what comes back.

    Attributes:
        top_k: Chunks to find.
        fetch_k: Chunks that each searcher passes to the fusion, and the fusion to the reranker;
            never fewer than `top_k`.
        bm25_weight: Weight of the BM25 searcher; 0 leaves it out.
        dense_weight: Weight of the dense searcher; 0 leaves it out.
        fusion: `scores`: cosine plus the share of the query's words that a chunk contains, where
            rare words count more. `rrf`: by reciprocal ranks. Wrapped vector stores are always
            fused by ranks.
        rrf_k: Constant of `rrf`; the larger it is, the less the first ranks stand out.
        score_threshold: Lowest score that comes back: the reranker's score if there is one, else
            that of the fusion, or of the only searcher that runs.
        max_document_tokens: Upper limit of the tokens that come back together. What does not fit is
            left out, best first.
        return_parents: Return the whole documents that the chunks are in, in the order of the
            collection. A document that does not fit `max_document_tokens` is represented by its
            chunks.
    """

    top_k: int = 10
    fetch_k: int = 100
    bm25_weight: float = 1.0
    dense_weight: float = 1.0
    fusion: Fusion = "scores"
    rrf_k: float = 60
    score_threshold: float | None = None
    max_document_tokens: int | None = None
    return_parents: bool = False

    def __post_init__(self) -> None:
        _require_int("top_k", self.top_k, minimum=1)
        _require_int("fetch_k", self.fetch_k, minimum=1)
        for name in ("bm25_weight", "dense_weight", "rrf_k"):
            value = getattr(self, name)
            if not (_is_real(value) and 0 <= value < math.inf):
                raise ConfigurationError(f"{name} must be 0 or more, got {value!r}")
        if not self.bm25_weight and not self.dense_weight:
            raise ConfigurationError("one of bm25_weight and dense_weight must be above 0")
        _require_choice("fusion", self.fusion, get_args(Fusion))
        if self.fusion != "rrf" and self.rrf_k != 60:
            raise ConfigurationError(
                f"rrf_k is an option of fusion='rrf' and does nothing with {self.fusion!r}"
            )
        threshold = self.score_threshold
        if threshold is not None and not (_is_real(threshold) and math.isfinite(threshold)):
            raise ConfigurationError(f"score_threshold must be a number, got {threshold!r}")
        if self.max_document_tokens is not None:
            _require_int("max_document_tokens", self.max_document_tokens, minimum=1)
        _require_bool("return_parents", self.return_parents)


Options = TypeVar("Options", CompressionConfig, SamplingParams, RetrievalConfig)


def with_overrides(options: Options, overrides: Mapping[str, Any]) -> Options:
    """Return `options` with some fields replaced.

    A budget among the overrides replaces whichever budget `options` had.

    Raises:
        ConfigurationError: An override is unknown or its value is wrong.
    """
    if not overrides:
        return options
    known = [field.name for field in fields(options)]
    for name in overrides:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"
            raise ConfigurationError(f"unknown option {name!r}; {hint}")
    changes = dict(overrides)
    budgets = ("target_size", "compression_ratio", "max_kv_bytes")
    if any(changes.get(name) is not None for name in budgets):
        changes = dict.fromkeys(budgets) | changes
    return replace(options, **changes)


def _stop_strings(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    one = isinstance(value, str) or not isinstance(value, Iterable)
    strings = (value,) if one else tuple(value)
    if not all(isinstance(item, str) and item for item in strings):
        raise ConfigurationError(f"stop must hold non-empty strings, got {value!r}")
    return strings


def _is_real(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _require_int(name: str, value: object, *, minimum: int, instead: str = "") -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
        raise ConfigurationError(
            f"{name} must be a whole number of at least {minimum}{instead}, got {value!r}"
        )


def _require_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{name} must be True or False, got {value!r}")


def _require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
