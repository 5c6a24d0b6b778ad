"""Tiny random models of every supported architecture, and a tokenizer with one id per byte."""

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    GraniteConfig,
    LlamaConfig,
    MistralConfig,
    Olmo2Config,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from finch_integrations.documents import prepare_documents
from finch_integrations.engine import model_input as inputs
from finch_integrations.engine.prompt import Prompt

CONFIGS = {
    "gemma3_text": Gemma3TextConfig,
    "granite": GraniteConfig,
    "llama": LlamaConfig,
    "mistral": MistralConfig,
    "olmo2": Olmo2Config,
    "phi3": Phi3Config,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
}
# Some of their layers see a sliding window only: not for methods that observe attention.
SLIDING = ("gemma3_text",)
FULL_ATTENTION = [name for name in CONFIGS if name not in SLIDING]
EXTRA = {
    "gemma3_text": {
        "sliding_window": 64,
        "layer_types": ["sliding_attention", "full_attention"],
        "query_pre_attn_scalar": 16,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            "full_attention": {"rope_type": "linear", "rope_theta": 1e6, "factor": 4.0},
        },
    },
    "granite": {"attention_multiplier": 0.25, "residual_multiplier": 0.5},
    "mistral": {"sliding_window": None},
    "smollm3": {"no_rope_layers": [1, 0]},
}
ROPE = {
    "default": {"rope_type": "default", "rope_theta": 10_000.0},
    "linear": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0},
    "llama3": {
        "rope_type": "llama3",
        "rope_theta": 10_000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 256,
    },
    "yarn": {
        "rope_type": "yarn",
        "rope_theta": 10_000.0,
        "factor": 4.0,
        "original_max_position_embeddings": 512,
    },
}
# Not supported: its frequencies change with the length.
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10_000.0, "factor": 2.0}
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ["<|im_end|>", "<|im_start|>"]
VOCABULARY = 256 + len(SPECIAL)


def make_model(architecture="llama", *, heads=4, kv_heads=2, rope=None, dtype=torch.float32, **kw):
    """Build a seeded two-layer model; weights wide enough for attention to have opinions."""
    torch.manual_seed(0)
    options = {
        "vocab_size": VOCABULARY,
        "hidden_size": heads * 16,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "rope_parameters": rope or ROPE["default"],
        "pad_token_id": 0,
        "bos_token_id": None,
        "eos_token_id": VOCABULARY - 2,
        **EXTRA.get(architecture, {}),
        **kw,
    }
    if architecture == "phi3":
        options.pop("head_dim")
    config = CONFIGS[architecture](**options)
    return AutoModelForCausalLM.from_config(config, dtype=dtype).eval()


def make_tokenizer(chat_template=CHATML, *, merges=()):
    """One id per byte and per merge, plus the two ChatML marks; needs no files."""
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    # Merges may reach over the borders of words.
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not merges)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|im_end|>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = chat_template
    return tokenizer


def make_piece_tokenizer(chat_template=CHATML):
    """Pieces with "▁" for blanks and tokens for single bytes, as SentencePiece's models have."""
    pieces = ["<unk>", *SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *'{}[]:,"']
    pieces += ["a", "e", "n", "r", "s", "t", "1", "2", "▁t", "he", "▁the", '":', '"}', "é"]
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ('"', ":"), ('"', "}")]
    vocabulary.setdefault("h", len(vocabulary))
    backend = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL})
    tokenizer.chat_template = chat_template
    return tokenizer


def make_input(documents, question="Why?", tokenizer=None, **prompt):
    """Documents and question in a tokenizer's tokens, as every method reads them."""
    return inputs.make_input(
        tokenizer or make_tokenizer(),
        prepare_documents(documents),
        Prompt(question=question, **prompt),
    )


def text_of(length, seed=0):
    """Readable ASCII text of exactly `length` bytes, hence `length` tokens, different per seed."""
    generator = torch.Generator().manual_seed(seed)
    letters = torch.randint(97, 123, (length,), generator=generator).tolist()
    text = "".join(chr(c) if i % 7 else " " for i, c in enumerate(letters, start=1))
    return "x" + text[1:-1] + "y"
