"""Which models the engine can compress for, and the facts about one that it needs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from finch_integrations.errors import ContextTooLongError, FinchError, UnsupportedModelError

ARCHITECTURES = (
    "gemma3_text",
    "granite",
    "llama",
    "mistral",
    "olmo2",
    "phi3",
    "qwen2",
    "qwen3",
    "smollm3",
)
ROPE_TYPES = ("default", "linear", "llama3", "longrope", "yarn")

# What a method may need of a model. `observe_attention`: see what the question attends to in every
# layer. `move_keys`: put cached tokens at other positions.
Capability = Literal["observe_attention", "move_keys"]


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """What compression needs to know about a model.

    Attributes:
        num_layers: Decoder layers.
        num_kv_heads: Key/value heads per layer.
        vocab_size: Logits per token.
        window: Positions that the model distinguishes; for longrope, those at which its
            frequencies stay the same.
        rope_type: As transformers calls it.
        kv_bytes_per_token: Size of one token's keys and values over all layers.
        inv_freq: Inverse rope frequencies, float32, [R/2]; empty where keys cannot be moved.
        rope_layers: For every layer, whether its keys are rotated.
        lacks: The capabilities that it lacks, and why.
    """

    num_layers: int
    num_kv_heads: int
    vocab_size: int
    window: int
    rope_type: str
    kv_bytes_per_token: int
    inv_freq: Tensor
    rope_layers: tuple[bool, ...]
    lacks: Mapping[Capability, str]


def inspect_model(model: Any) -> ModelSpec:
    """Read the facts about a model, or say why the engine cannot compress for it.

    Raises:
        UnsupportedModelError: Naming the reason.
    """
    config = model.config
    _refuse_structure(config)
    sliding = _sliding_window(config)
    rope = _rope_parameters(config)
    num_layers = config.num_hidden_layers
    num_kv_heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelSpec(
        num_layers=num_layers,
        num_kv_heads=num_kv_heads,
        vocab_size=config.vocab_size,
        window=_window(config, rope),
        rope_type=rope["rope_type"],
        kv_bytes_per_token=2 * num_layers * num_kv_heads * head_dim * model.dtype.itemsize,
        inv_freq=torch.empty(0) if sliding else _inverse_frequencies(model, rope["rope_type"]),
        rope_layers=_rope_layers(config, num_layers),
        lacks=_sliding_lacks(sliding) if sliding else {},
    )


def _refuse_structure(config: Any) -> None:
    """Raise for every structure whose cache is not one growing list of rotated keys per layer."""
    kind = getattr(config, "model_type", type(config).__name__)

    def refuse(reason: str) -> UnsupportedModelError:
        return UnsupportedModelError(f"cannot compress for a {kind!r} model: {reason}")

    if getattr(config, "is_encoder_decoder", False):
        raise refuse("it is an encoder-decoder; a decoder-only model is needed")
    if getattr(config, "kv_lora_rank", None):
        raise refuse("its latent attention (MLA) keeps no plain keys to select from")
    layer_types = set(getattr(config, "layer_types", None) or ())
    recurrent = layer_types - {"full_attention", "sliding_attention", "chunked_attention"}
    if recurrent:
        raise refuse(f"it has hybrid or recurrent layers ({', '.join(sorted(recurrent))})")
    if "chunked_attention" in layer_types:
        raise refuse("it has chunked-attention layers")
    if kind not in ARCHITECTURES:
        raise refuse(f"this architecture is not proven. Proven: {', '.join(ARCHITECTURES)}")


def _sliding_window(config: Any) -> int:
    """Tokens that the model's sliding layers see, 0 if it has none."""
    layer_types = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) or 0
    unused = getattr(config, "use_sliding_window", None) is False
    # Models without layer types (Mistral, Phi-3) apply their window in every layer. A window at
    # least as wide as the model's positions never hides a key.
    everywhere = not layer_types and not unused and window < config.max_position_embeddings
    return int(window) if "sliding_attention" in layer_types or everywhere else 0


def _sliding_lacks(window: int) -> dict[Capability, str]:
    reason = f"some of its layers see a sliding window of {window} tokens only"
    return {"observe_attention": reason, "move_keys": reason}


def _rope_parameters(config: Any) -> dict[str, Any]:
    """The rotation of the layers that see everything."""
    parameters = dict(getattr(config, "rope_parameters", None) or {})
    # Models with sliding layers may rotate the keys of these by other frequencies.
    for_layers = [value for value in parameters.values() if isinstance(value, dict)]
    for rope in for_layers or [parameters]:
        rope_type = rope.setdefault("rope_type", "default")
        if rope_type not in ROPE_TYPES:
            changing = " (its frequencies change with the length)" if "dynamic" in rope_type else ""
            raise UnsupportedModelError(
                f"cannot move keys of rope type {rope_type!r}{changing}. "
                f"Supported: {', '.join(ROPE_TYPES)}"
            )
    return dict(parameters.get("full_attention", parameters))


def _window(config: Any, rope: dict[str, Any]) -> int:
    window: int = config.max_position_embeddings
    original = rope.get("original_max_position_embeddings")
    if rope["rope_type"] == "longrope":
        # Past this length longrope changes the frequencies of keys that are already cached.
        original = original or getattr(config, "original_max_position_embeddings", None)
        return min(window, original or window)
    if rope["rope_type"] == "yarn" and original and rope.get("factor"):
        # Some YaRN configurations leave max_position_embeddings at the original length.
        window = max(window, int(original * rope["factor"]))
    return window


def _inverse_frequencies(model: Any, rope_type: str) -> Tensor:
    rotary = getattr(model.base_model, "rotary_emb", None)
    # A longrope model that has seen long inputs has its long-range frequencies in `inv_freq`.
    name = "original_inv_freq" if rope_type == "longrope" else "inv_freq"
    inv_freq = getattr(rotary, name, None)
    if not isinstance(inv_freq, Tensor):
        raise UnsupportedModelError(
            f"found no inverse rope frequencies on {type(model).__name__}; "
            "the model's rotary embedding is not the one transformers ships"
        )
    # float32 as in the model's own rotary embedding, which upcasts before it multiplies.
    return inv_freq.detach().to(torch.float32)


def _rope_layers(config: Any, num_layers: int) -> tuple[bool, ...]:
    """SmolLM3 leaves out the rotation in some layers (1 means rotated in `no_rope_layers`)."""
    flags = getattr(config, "no_rope_layers", None) or [1] * num_layers
    return tuple(bool(flag) for flag in flags)


def window_error(spec: ModelSpec, problem: str) -> FinchError:
    """Make the error for a prompt that does not fit `spec.window`."""
    if spec.rope_type == "longrope":
        return UnsupportedModelError(
            f"{problem}. The model's longrope frequencies change past this length, and cached "
            "keys with them, which is not supported"
        )
    return ContextTooLongError(problem)
