"""Reading a model from a GGUF file into plain transformers objects."""

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from finch_integrations.errors import ModelLoadError

# Pre-tokenizers (as GGUF names them) that take every digit as a token of its own. transformers
# drops this step when it rebuilds a tokenizer from a GGUF file.
_SPLITS_DIGITS = {"smollm"}


def check_gguf(path: Path) -> None:
    """Make sure that a file is a complete GGUF file.

    Raises:
        ModelLoadError: It is missing, of another kind, or damaged.
    """
    if not path.is_file():
        raise ModelLoadError(f"there is no file {path}. Check the path")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelLoadError(f"{path} is not a GGUF file (it does not start with 'GGUF')")
    try:
        GGUFReader(path)
    except Exception as error:  # the reader fails in many ways on damaged files
        raise ModelLoadError(
            f"{path} is damaged or incomplete ({error}). Fetch it again"
        ) from error


def load_gguf(path: Path, **model_kwargs: Any) -> tuple[Any, Any]:
    """Load model and tokenizer from a GGUF file; the weights are dequantized.

    Raises:
        ModelLoadError: The file cannot be used.
    """
    check_gguf(path)
    source = {"pretrained_model_name_or_path": str(path.parent), "gguf_file": path.name}
    try:
        config = AutoConfig.from_pretrained(**source, local_files_only=True)
        loaded = AutoModelForCausalLM.from_pretrained(
            **source, local_files_only=True, **model_kwargs
        )
        tokenizer = AutoTokenizer.from_pretrained(**source, local_files_only=True)
    except Exception as error:
        raise ModelLoadError(f"transformers cannot load {path}: {error}") from error
    field = GGUFReader(path).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() in _SPLITS_DIGITS:
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    return plain_model(loaded, config), tokenizer


def plain_model(loaded: Any, config: Any) -> Any:
    """Move the weights into a model without GGUF's quantization record, so it can be saved."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=loaded.dtype)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    # What is computed when a model is made is in no state dict: rotations, Gemma's scale.
    model.base_model.rotary_emb = loaded.base_model.rotary_emb
    for name, buffer in loaded.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, buffer)
    model.generation_config = loaded.generation_config
    return model.eval()
