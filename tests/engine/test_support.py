"""Models that cannot be compressed for are refused with the reason, before any work."""

import pytest
from transformers import (
    AutoModelForCausalLM,
    DeepseekV3Config,
    Gemma3TextConfig,
    GPTNeoXConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    Qwen3NextConfig,
    T5Config,
    T5ForConditionalGeneration,
)

from finch_integrations import FinchEngine, UnsupportedModelError
from finch_integrations.engine.support import inspect_model
from tests.tiny import CONFIGS, DYNAMIC, ROPE, make_model, make_tokenizer

TINY = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
REFUSED = {
    "dynamic rope": (LlamaConfig(**TINY, rope_parameters=DYNAMIC), "'dynamic'.*change"),
    "unproven": (
        GPTNeoXConfig(
            vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, max_position_embeddings=512,
        ),
        "not proven. Proven: gemma3_text, granite, llama",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_unsupported_models_are_refused_with_the_reason(case):
    config, reason = REFUSED[case]
    model = AutoModelForCausalLM.from_config(config).eval()
    with pytest.raises(UnsupportedModelError, match=reason):
        FinchEngine(model, make_tokenizer())


def _only_config(config):
    """Weights do not matter for a refusal, and some of these models are slow to build."""

    class Shell:
        training = False

    Shell.config = config
    return Shell()


def test_latent_attention_is_refused():
    with pytest.raises(UnsupportedModelError, match="MLA"):
        inspect_model(_only_config(DeepseekV3Config()))


def test_recurrent_layers_are_refused():
    with pytest.raises(UnsupportedModelError, match="hybrid or recurrent layers .linear_attention"):
        inspect_model(_only_config(Qwen3NextConfig()))


def test_encoder_decoders_are_refused():
    config = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    model = T5ForConditionalGeneration(config).eval()
    with pytest.raises(UnsupportedModelError, match="encoder-decoder"):
        FinchEngine(model, make_tokenizer())


@pytest.mark.parametrize("architecture", CONFIGS)
def test_every_supported_architecture_is_accepted(architecture):
    spec = inspect_model(make_model(architecture))
    assert (spec.num_layers, spec.num_kv_heads, spec.window) == (2, 2, 2048)
    assert spec.rope_layers == ((True, False) if architecture == "smollm3" else (True, True))


@pytest.mark.parametrize(
    ("config", "window"),
    [
        (MistralConfig(**TINY, sliding_window=128), 128),
        (Qwen2Config(**TINY, use_sliding_window=True, sliding_window=64, max_window_layers=1), 64),
        (Qwen2Config(**TINY, use_sliding_window=False, sliding_window=64), 0),
        (MistralConfig(**TINY, sliding_window=512), 0),
        (Gemma3TextConfig(**TINY, sliding_window=32), 32),
    ],
)
def test_sliding_windows_are_known(config, window):
    model = AutoModelForCausalLM.from_config(config).eval()
    lacks = inspect_model(model).lacks
    assert set(lacks) == ({"observe_attention", "move_keys"} if window else set())
    assert all(f"sliding window of {window} tokens" in reason for reason in lacks.values())


def test_a_sliding_window_that_covers_the_whole_window_is_accepted():
    model = AutoModelForCausalLM.from_config(MistralConfig(**TINY, sliding_window=512)).eval()
    assert inspect_model(model).window == 512


LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10_000.0,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
    "original_max_position_embeddings": 256,
}


def test_longrope_works_in_its_short_range_and_is_refused_beyond():
    model = make_model("phi3", rope=LONGROPE, original_max_position_embeddings=256)
    engine = FinchEngine(model, make_tokenizer())
    documents = ["word " * 200]
    context = engine.compress(documents, "What?", target_size=40, chunk_length=40)
    assert context.stats.peak_kv_tokens <= 256
    assert engine.generate(context, max_tokens=3).generation_tokens == 3
    with pytest.raises(UnsupportedModelError, match="longrope"):
        engine.compress(documents, "What?", target_size=200)


def test_yarn_extends_a_window_that_the_configuration_left_at_its_original_length():
    model = make_model(rope=ROPE["yarn"], max_position_embeddings=512)
    assert inspect_model(model).window == 2048
