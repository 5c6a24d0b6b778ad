"""Reading a model from a GGUF file into plain transformers objects."""

from pathlib import Path
from typing import Any

import torch
from gguf import GGUFReader
from tokenizers import pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers import __version__ as transformers_version

from finch_integrations.engine.gguf_header import check_header
from finch_integrations.errors import ModelLoadError

# Pre-tokenizers (as GGUF names them) that make every digit a separate token. transformers
# drops this step when it rebuilds a tokenizer from a GGUF file.
_SPLITS_DIGITS = {"smollm"}
# How many words of a vocabulary are tried to see whether texts are tokenized into them.
_PROBED_WORDS = 200


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
        with path.open("rb") as file:
            check_header(file)
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
    tokenizer = _load(AutoTokenizer, path)
    if not finds_words(tokenizer):
        raise ModelLoadError(
            f"transformers {transformers_version} rebuilds the tokenizer of {path} wrongly: words "
            "of its vocabulary come out in pieces. Update transformers, or load the model from a "
            "folder or a hub id"
        )
    config = _load(AutoConfig, path)
    loaded = _load(AutoModelForCausalLM, path, **model_kwargs)
    reader = GGUFReader(path)
    facts = {
        name: field.contents()
        for name in ("pre", "add_bos_token")
        if (field := reader.get_field(f"tokenizer.ggml.{name}")) is not None
    }
    restore_tokenizer(tokenizer, facts)
    return plain_model(loaded, config), tokenizer


def _load(kind: Any, path: Path, **kwargs: Any) -> Any:
    try:
        return kind.from_pretrained(
            str(path.parent), gguf_file=path.name, local_files_only=True, **kwargs
        )
    except Exception as error:
        raise ModelLoadError(f"transformers cannot load {path}: {error}") from error


def finds_words(tokenizer: Any) -> bool:
    """Whether words that are one token of the vocabulary are one token in a text.

    For vocabularies with scores instead of merges (SentencePiece's), transformers before 5.18 makes
    merges that never apply.
    """
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    words = [
        (piece[1:], number)
        for piece, number in vocabulary
        if piece[0] in "▁Ġ" and len(piece) > 4 and piece[1:].isascii() and piece[1:].isalpha()
    ]
    whole: list[bool] = [
        tokenizer(f"a {word}", add_special_tokens=False).input_ids[-1] == number
        for word, number in words[:_PROBED_WORDS]
    ]
    return sum(whole) >= len(whole) / 2


def restore_tokenizer(tokenizer: Any, facts: dict[str, Any]) -> None:
    """Restore what transformers leaves out, from the `tokenizer.ggml` fields of the file."""
    if facts.get("pre") in _SPLITS_DIGITS:
        backend = tokenizer.backend_tokenizer
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer]
        )
    # Before 5.23. Without its first token a model such as Gemma works badly.
    if facts.get("add_bos_token") and tokenizer("a").input_ids[0] != tokenizer.bos_token_id:
        tokenizer.add_bos_token = True


def plain_model(loaded: Any, config: Any) -> Any:
    """Move the weights into a model without GGUF's quantization record, so it can be saved."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=loaded.dtype)
    model.load_state_dict(loaded.state_dict(), assign=True)
    model.tie_weights()
    # What is computed when a model is made is not in the state dict: rotations, Gemma's scale.
    model.base_model.rotary_emb = loaded.base_model.rotary_emb
    for name, buffer in loaded.named_buffers():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, buffer)
    model.generation_config = loaded.generation_config
    return model.eval()
