"""Texts tokenized by themselves, as they are tokenized inside a longer text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from finch_integrations import Document, UnsupportedModelError
from finch_integrations.engine.document_tokens import SEPARATOR, tokenize_documents
from finch_integrations.engine.tokenization import encode
from tests.tiny import make_tokenizer

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())
GPT2 = r"'s|'t| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def byte_level(pattern, merges):
    """Byte-level BPE whose words are cut as GPT-2's or Llama 3's are."""
    vocabulary = {piece: n for n, piece in enumerate([*LETTERS, *map("".join, merges)])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=backend)


def sentence_piece():
    """BPE over the whole text, with a blank put at its start, as Llama 2's and Mistral's."""
    letters = ["▁", "\n", *"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.#()[]/0123456789"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("\n", "\n")]
    vocabulary = {piece: n for n, piece in enumerate([*letters, *map("".join, merges), "<unk>"])}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>"))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    backend.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse()])
    return PreTrainedTokenizerFast(tokenizer_object=backend)


FAMILIES = {
    "bytes": make_tokenizer(),
    "gpt2": byte_level(GPT2, [("Ċ", "Ċ"), ("t", "h"), ("th", "e"), ("Ġ", "the")]),
    "llama3": byte_level(LLAMA3, [("Ċ", "Ċ"), (".", "ĊĊ"), ("t", "h"), ("th", "e")]),
    "sentencepiece": sentence_piece(),
}
TEXTS = ["The tide turns. Bring the ropes", "# Ropes\n\nthe end.", "the oil", "10 more (the rest)."]


@pytest.mark.parametrize("family", FAMILIES)
def test_documents_join_to_the_tokens_of_the_whole_text(family):
    tokenizer = FAMILIES[family]
    tokens = tokenize_documents(tokenizer, [Document(text) for text in TEXTS])
    whole = encode(tokenizer, [SEPARATOR.join(TEXTS)], before=SEPARATOR)
    if family == "llama3":  # there a full stop takes the blank line after it along
        assert tokenizer(".\n\n", add_special_tokens=False).input_ids != (
            tokenizer(".", add_special_tokens=False).input_ids
        )
        assert len(tokens) == len(whole) + 1
    else:
        assert (tokens.ids, tokens.offsets) == (whole.ids, whole.starts)
    assert tokenizer.decode(tokens.ids).strip() == SEPARATOR.join(TEXTS)


@given(data=st.data(), family=st.sampled_from(sorted(FAMILIES)))
def test_a_documents_tokens_do_not_depend_on_its_neighbours(data, family):
    tokenizer = FAMILIES[family]
    texts = st.text("abT.# \n1", min_size=1, max_size=20).filter(str.strip)
    documents = [Document(text) for text in data.draw(st.lists(texts, min_size=1, max_size=4))]
    tokens = tokenize_documents(tokenizer, documents)
    for number, (document, span) in enumerate(zip(documents, tokens.spans, strict=True)):
        alone = tokenize_documents(tokenizer, [document])
        own = tokens.ids[span.start : span.end]
        assert own[: len(alone)] == alone.ids
        separator = tokenizer.decode(own[len(alone) :])
        assert separator == (SEPARATOR if number < len(documents) - 1 else "")
        assert tokens.text_between(span.start, span.end).rstrip() == document.text.strip()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("text", ["the end ", " the end", "\n\n", "the.", "a"])
def test_no_character_is_lost_or_added_between_two_texts(family, text):
    tokenizer = FAMILIES[family]
    alone = encode(tokenizer, [text])
    between = encode(tokenizer, [text], before="a", after="a")
    assert tokenizer.decode(between.ids).strip(" ") == text.strip(" ")
    assert between.starts[0] == 0 or text[: between.starts[0]].isspace()
    assert between.ends[-1] == len(text)
    if family == "bytes":
        assert between == alone


def test_a_blank_line_before_a_word_is_cut_as_inside_a_text():
    gpt2 = FAMILIES["gpt2"]
    assert len(encode(gpt2, ["\n\n"])) == 1
    assert len(encode(gpt2, ["\n\n"], before="a", after="a")) == 2


def test_a_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

    with pytest.raises(UnsupportedModelError, match="no character offsets"):
        tokenize_documents(Slow(), [Document("text")])
