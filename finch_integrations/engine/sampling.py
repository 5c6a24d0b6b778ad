"""From logits to the next token."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from finch_integrations.config import SamplingParams


class Sampler:
    """Chooses the tokens of one answer, one after another.

    Sampling runs on the CPU, so a seed gives the same answer on every device.
    """

    def __init__(self, params: SamplingParams) -> None:
        """Take the parameters."""
        self._params = params
        self._said: list[int] = []
        self._logits: Tensor | None = None
        self._penalised = params.repetition_penalty != 1 or bool(
            params.presence_penalty or params.frequency_penalty
        )
        self._warpers = _warpers(params)
        self._generator = torch.Generator()
        if params.seed is None:
            self._generator.seed()
        else:
            self._generator.manual_seed(params.seed)

    def __call__(self, logits: Tensor) -> int:
        """Choose from logits [vocabulary]."""
        if self._params.logprobs:
            self._logits = logits
        if self._penalised:
            logits = penalise(logits.cpu(), self._said, self._params)
        token = int(logits.argmax()) if self._params.temperature == 0 else self._draw(logits)
        if self._penalised:
            self._said.append(token)
        return token

    def logprobs(self, token: int) -> tuple[float, list[tuple[int, float]]]:
        """How likely the token was that was chosen last, and the most likely ones at its place."""
        assert self._logits is not None, "logprobs were not asked for"
        values = self._logits.float().log_softmax(dim=-1)  # [vocabulary]
        top = values.topk(min(self._params.top_logprobs, len(values)))
        pairs = zip(top.indices.tolist(), top.values.tolist(), strict=True)
        return float(values[token]), list(pairs)

    def _draw(self, logits: Tensor) -> int:
        # The warpers do not use the earlier ids.
        nothing = torch.empty(1, 0, dtype=torch.long)
        warped = self._warpers(nothing, logits.cpu()[None])  # [1, vocabulary]
        probabilities = warped.softmax(dim=-1)[0]
        return int(torch.multinomial(probabilities, 1, generator=self._generator))


def penalise(logits: Tensor, said: Sequence[int], params: SamplingParams) -> Tensor:
    """Make tokens of the answer less likely; logits [vocabulary] are not changed."""
    if not said:
        return logits
    if params.repetition_penalty != 1:
        repeated = RepetitionPenaltyLogitsProcessor(float(params.repetition_penalty))
        logits = repeated(torch.tensor([said]), logits[None])[0]
    if params.presence_penalty or params.frequency_penalty:
        counts = Counter(said)
        ids = torch.tensor(list(counts))
        times = torch.tensor(list(counts.values()), dtype=logits.dtype)
        cost = params.presence_penalty + params.frequency_penalty * times
        logits = logits.index_add(0, ids, -cost)
    return logits


def _warpers(params: SamplingParams) -> LogitsProcessorList:
    """In transformers' own order."""
    warpers = LogitsProcessorList()
    if params.temperature:
        warpers.append(TemperatureLogitsWarper(float(params.temperature)))
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(float(params.top_p)))
    if params.min_p:
        warpers.append(MinPLogitsWarper(float(params.min_p)))
    return warpers
