"""How many tokens of passages a device reads at once."""

import torch

from finch_integrations.engine.backbone import Backbone

# The part of a GPU's free memory that a batch may take.
_SHARE = 0.25
# More at once makes no GPU faster.
_MOST = 32_768


def tokens_at_once(backbone: Backbone, chunk_length: int) -> int:
    """As many as a GPU's free memory has room for; elsewhere one chunk, which is no slower.

    Args:
        backbone: The model that reads.
        chunk_length: The least.
    """
    devices = {device for device in backbone.layer_devices if device.type == "cuda"}
    if not devices:
        return chunk_length
    free = min(map(_free_bytes, devices))
    return max(chunk_length, min(_MOST, int(_SHARE * free) // _bytes_per_token(backbone)))


def _free_bytes(device: torch.device) -> int:
    # What torch holds without using it is free for torch.
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + held


def _bytes_per_token(backbone: Backbone) -> int:
    """What a token takes while it is read: keys and values, and one layer's activations."""
    config = backbone.model.config
    # A growing cache exists twice for a moment, and once more when its padding is moved.
    states = 3 * backbone.spec.kv_bytes_per_token
    activations = 8 * config.hidden_size + 3 * config.intermediate_size
    return int(states + activations * backbone.model.dtype.itemsize)
