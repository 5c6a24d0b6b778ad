"""From logits to the next token."""

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from finch_integrations.config import SamplingParams

Sampler = Callable[[Tensor], int]


def make_sampler(params: SamplingParams) -> Sampler:
    """Make a function from logits [vocabulary] to a token id.

    Sampling runs on the CPU, so a seed gives the same answer on every device.
    """
    if params.temperature == 0:
        return lambda logits: int(logits.argmax())
    warpers = LogitsProcessorList([TemperatureLogitsWarper(float(params.temperature))])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1:
        warpers.append(TopPLogitsWarper(float(params.top_p)))
    generator = torch.Generator()
    if params.seed is None:
        generator.seed()
    else:
        generator.manual_seed(params.seed)

    def sample(logits: Tensor) -> int:
        # The warpers do not use the earlier ids.
        warped = warpers(torch.empty(1, 0, dtype=torch.long), logits.cpu()[None])  # [1, vocabulary]
        return int(torch.multinomial(warped.softmax(dim=-1)[0], 1, generator=generator))

    return sample
