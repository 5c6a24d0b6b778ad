"""How many tokens of passages a device reads at once."""

from finch_integrations.engine.backbone import Backbone
from finch_integrations.engine.memory import CACHE_COPIES, free_bytes

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
    room = int(_SHARE * free_bytes(devices)) // _bytes_per_token(backbone)
    return max(chunk_length, min(_MOST, room))


def _bytes_per_token(backbone: Backbone) -> int:
    """What a token takes while it is read: keys and values, and one layer's activations."""
    config = backbone.model.config
    states = CACHE_COPIES * backbone.spec.kv_bytes_per_token
    activations = 8 * config.hidden_size + 3 * config.intermediate_size
    return int(states + activations * backbone.model.dtype.itemsize)
