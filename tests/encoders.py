"""Deterministic embedding models: words hashed into vectors, and tiny random BERT models."""

import zlib

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    PreTrainedTokenizerFast,
)

from finch_integrations.words import words


class HashEncoder:
    """Counts a text's words in hashed places: texts with the same words are alike."""

    def __init__(self, dimension=64, name="hash"):
        self.name = f"{name}-{dimension}"
        self.dimension = dimension
        self.encoded = []

    def encode_documents(self, texts):
        self.encoded += texts
        return np.stack([self.encode_query(text) for text in texts])

    def encode_query(self, query):
        vector = np.zeros(self.dimension)
        for word in words(query):
            vector[zlib.crc32(word.encode()) % self.dimension] += 1
        return vector


def bert_tokenizer():
    """Splits at white space and then into characters."""
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *letters, *("##" + c for c in letters)]
    backend = Tokenizer(
        models.WordPiece({token: n for n, token in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    )


def save_bert(path, *, reranker=False):
    """Write a tiny random encoder, or a cross-encoder with one score."""
    config = BertConfig(
        vocab_size=256,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=128,
        num_labels=1,
        initializer_range=0.5,
    )
    torch.manual_seed(0)
    (BertForSequenceClassification if reranker else BertModel)(config).save_pretrained(path)
    bert_tokenizer().save_pretrained(path)
    return str(path)
