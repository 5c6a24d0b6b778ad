"""Where the question looks, against the model's own attention weights."""

import pytest
import torch

from finch_integrations import (
    CompressionConfig,
    ConfigurationError,
    Document,
    FinchEngine,
    InvalidInputError,
)
from finch_integrations.report import question_attention
from tests.tiny import make_input, make_model

DOCUMENTS = [
    Document("Rope one and two. " * 6 + "The lamp oil is here. ", id="a.md"),
    Document("Nothing at all is said in this one. " * 4, id="b.md"),
]
QUESTION = "Where is the lamp oil?"


def eager_attention(engine, chunk_length):
    """All weights from one plain forward per chunk, then the question's rows."""
    inputs = make_input(DOCUMENTS, QUESTION)
    prefix, documents, window = inputs.frame.prefix, inputs.tokens.ids, inputs.frame.window
    model = make_model("llama")
    model.set_attn_implementation("eager")
    first, found = len(prefix), []
    for start in range(0, len(documents), chunk_length):
        chunk = documents[start : start + chunk_length]
        with torch.inference_mode():
            output = model(
                input_ids=torch.tensor([[*prefix, *chunk, *window.ids]]),
                output_attentions=True,
            )
        weights = torch.stack(output.attentions)[:, 0]  # [layers, H, N, N]
        found.append(weights[:, :, -window.length :, first : first + len(chunk)].mean(dim=(1, 2)))
    return torch.cat(found, dim=1)


@pytest.mark.parametrize("chunk_length", [1024, 50])
def test_it_is_the_models_own_attention(engine, chunk_length):
    attention = question_attention(engine, DOCUMENTS, QUESTION, chunk_length=chunk_length)
    assert attention.dtype == torch.float32
    torch.testing.assert_close(
        attention, eager_attention(engine, chunk_length), rtol=1e-4, atol=1e-6
    )


def test_its_columns_are_the_document_tokens_of_a_context(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=40)
    attention = question_attention(engine, DOCUMENTS, QUESTION)
    assert attention.shape == (2, sum(share.tokens for share in context.document_shares))


def test_the_engines_own_chunk_length_counts(model, tokenizer, engine):
    short = FinchEngine(model, tokenizer, compression=CompressionConfig(chunk_length=50))
    torch.testing.assert_close(
        question_attention(short, DOCUMENTS, QUESTION),
        question_attention(engine, DOCUMENTS, QUESTION, chunk_length=50),
    )


def test_wrong_input_is_refused(engine):
    with pytest.raises(InvalidInputError, match="the question"):
        question_attention(engine, DOCUMENTS, " ")
    with pytest.raises(ConfigurationError, match="chunk_length"):
        question_attention(engine, DOCUMENTS, QUESTION, chunk_lenght=5)
