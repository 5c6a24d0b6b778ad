"""How large a cache is: computed from the published configurations of some models."""

from dataclasses import dataclass

from page_parts.markdown import format_bytes, make_table


@dataclass(frozen=True, slots=True)
class Model:
    """What the size of a model's cache depends on, from its published configuration."""

    name: str
    layers: int
    kv_heads: int
    head_dim: int
    window: int

    def cache_bytes(self, tokens: int, *, bytes_per_number: int = 2) -> int:
        """Size of the keys and values of so many tokens."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_number * tokens


MODELS = (
    Model("Llama-3.1-8B", layers=32, kv_heads=8, head_dim=128, window=131_072),
    Model("Qwen3-8B", layers=36, kv_heads=8, head_dim=128, window=40_960),
    Model("Qwen3-4B", layers=36, kv_heads=8, head_dim=128, window=40_960),
    Model("Mistral-7B v0.3", layers=32, kv_heads=8, head_dim=128, window=32_768),
    Model("SmolLM2-135M", layers=30, kv_heads=3, head_dim=64, window=8_192),
)
LENGTHS = (8, 16, 32, 64, 128)  # thousands of 1,024 tokens
# An example: a short system text and question, and the default target and chunk.
PREFIX, TARGET, CHUNK, QUESTION = 100, 2048, 1024, 50
BOUND = PREFIX + TARGET + CHUNK + QUESTION


def memory() -> str:
    """Sizes of full caches, by model and length, against the longest that is ever held."""
    rows = [
        [
            model.name,
            *(
                f"*{size}*" if length * 1024 > model.window else size
                for length in LENGTHS
                for size in [format_bytes(model.cache_bytes(length * 1024))]
            ),
            f"**{format_bytes(model.cache_bytes(BOUND))}**",
        ]
        for model in MODELS
    ]
    return make_table(["", *(f"{length}k" for length in LENGTHS), "compressed, any length"], rows)


def kv_bytes() -> str:
    """Bytes per token, and what they come from."""
    return make_table(
        ["", "layers", "KV heads", "head size", "a token", "window"],
        [
            [
                model.name,
                str(model.layers),
                str(model.kv_heads),
                str(model.head_dim),
                format_bytes(model.cache_bytes(1)),
                f"{model.window:,}",
            ]
            for model in MODELS
        ],
    )
