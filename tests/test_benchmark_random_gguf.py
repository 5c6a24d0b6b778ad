"""A GGUF file of random weights has the size that was asked for and another file's tokenizer."""

import numpy as np
from gguf import GGUFReader, GGUFWriter

from benchmarks import random_gguf


def test_a_random_file_has_the_asked_shape_and_the_tokenizer_of_another(tmp_path):
    like, out = tmp_path / "like.gguf", tmp_path / "out.gguf"
    writer = GGUFWriter(like, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"t{number}" for number in range(32)])
    writer.add_eos_token_id(2)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    count = random_gguf.write(like, out, width=128, layers=2, kv_heads=1)
    found = GGUFReader(out)
    assert found.fields["tokenizer.ggml.tokens"].contents() == [f"t{n}" for n in range(32)]
    assert found.fields["tokenizer.ggml.eos_token_id"].contents() == 2
    assert found.fields["llama.attention.head_count_kv"].contents() == 1
    shapes = {tensor.name: tuple(tensor.shape) for tensor in found.tensors}
    assert shapes["blk.1.attn_k.weight"] == (128, 64)
    assert shapes["token_embd.weight"] == (128, 32)
    assert count == sum(int(np.prod(shape)) for shape in shapes.values())
    by_hand = 32 * 128 + 128 + 2 * (2 * 128 + 2 * 128 * 128 + 2 * 64 * 128 + 3 * 128 * 384)
    assert count == by_hand
