"""A GGUF file with random weights, of a size of one's choice: for times, which no weight changes.

    python -m benchmarks.random_gguf --like SmolLM2-135M-Instruct.Q4_1.gguf --out random.gguf

The tokenizer and the chat template are another file's, so that both models count alike. The
answers are nonsense.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter, quants

HEAD = 64


def tensors_of(
    *, vocabulary: int, width: int, layers: int, kv_heads: int
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of a Llama's tensors; its embeddings are its head, too."""
    yield "token_embd.weight", (vocabulary, width)
    yield "output_norm.weight", (width,)
    for layer in range(layers):
        shapes = {
            "attn_norm": (width,),
            "attn_q": (width, width),
            "attn_k": (kv_heads * HEAD, width),
            "attn_v": (kv_heads * HEAD, width),
            "attn_output": (width, width),
            "ffn_norm": (width,),
            "ffn_gate": (3 * width, width),
            "ffn_up": (3 * width, width),
            "ffn_down": (width, 3 * width),
        }
        for name, shape in shapes.items():
            yield f"blk.{layer}.{name}.weight", shape


def write(
    like: Path, out: Path, *, width: int, layers: int, kv_heads: int, window: int = 32_768
) -> int:
    """Write the file, matrices in Q8_0.

    Args:
        like: A GGUF file; its tokenizer is taken.
        out: The new file.
        width: Of the residual stream, a multiple of 64.
        layers: How many.
        kv_heads: Of 64 each.
        window: Tokens.

    Returns:
        How many parameters it has.
    """
    source = GGUFReader(like)
    writer = GGUFWriter(out, "llama")
    for name, field in source.fields.items():
        if name.startswith("tokenizer."):
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), field.types[0], inner)
    tokens = source.fields["tokenizer.ggml.tokens"].contents()
    writer.add_name(f"random Llama, {layers} layers of {width}")
    writer.add_block_count(layers)
    writer.add_context_length(window)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(3 * width)
    writer.add_head_count(width // HEAD)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(100_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(tokens))
    chance, kind, count = np.random.default_rng(0), GGMLQuantizationType.Q8_0, 0
    sizes = {"vocabulary": len(tokens), "width": width, "layers": layers, "kv_heads": kv_heads}
    for name, shape in tensors_of(**sizes):
        count += int(np.prod(shape))
        if len(shape) == 1:
            writer.add_tensor(name, np.ones(shape, np.float32))
        else:
            values = chance.standard_normal(shape, np.float32) / np.sqrt(np.float32(shape[-1]))
            writer.add_tensor(name, quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return count


def main() -> None:
    """Write a file and print its size."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--like", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    options = parser.parse_args()
    sizes = {"width": options.width, "layers": options.layers, "kv_heads": options.kv_heads}
    print(f"{write(options.like, options.out, **sizes):,} parameters")


if __name__ == "__main__":
    main()
