"""What `benchmarks.quality` measures is what it says, with a tiny model."""

import pytest
import torch

from benchmarks.items import Item
from benchmarks.quality import Bench
from finch_integrations import Document, FinchEngine
from tests.tiny import make_model, make_tokenizer

QUESTION = "What is the code of door 3?"
ITEM = Item(
    id="one",
    task="doors",
    bucket="2k",
    question=QUESTION,
    documents=tuple(
        Document(
            id=str(i), text=f"Door {i} is red and heavy. The code of door {i} is {i * 7}. " * 3
        )
        for i in range(8)
    ),
    answers=("21",),
    gold=frozenset("3"),
)


@pytest.fixture
def bench():
    engine = FinchEngine(make_model(), make_tokenizer())
    return Bench(engine, None, ITEM, answer=False, feed=64)


@torch.no_grad()
def likelihood_of(engine, content):
    """NLL per token of the answer after a plain chat, one forward pass."""
    tokenizer = engine.backbone.tokenizer
    chat = [{"role": "user", "content": content}]
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
    answer = tokenizer(ITEM.answers[0], add_special_tokens=False).input_ids
    logits = engine.backbone.model(torch.tensor([[*ids, *answer]])).logits[0, -len(answer) - 1 : -1]
    return float(-logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).mean())


def test_without_documents_the_question_is_asked_alone(bench):
    content = f"Answer this question: {QUESTION}"
    expected = likelihood_of(bench.engine, content)
    assert bench.run("none", None)["nll"] == pytest.approx(expected, abs=1e-5)


def test_all_documents_are_one_plain_prompt(bench):
    frame, tokens = bench.inputs.frame, bench.inputs.tokens
    ids = [*frame.prefix, *tokens.ids, *frame.suffix]
    answer = bench.backbone.tokenizer(ITEM.answers[0], add_special_tokens=False).input_ids
    with torch.no_grad():
        logits = bench.backbone.model(torch.tensor([[*ids, *answer]])).logits[0]
    rows = logits[-len(answer) - 1 : -1].log_softmax(-1)
    expected = float(-rows.gather(1, torch.tensor(answer)[:, None]).mean())
    assert bench.run("full", None)["nll"] == pytest.approx(expected, abs=1e-5)


def test_the_default_is_what_a_user_gets_who_sets_no_option(bench):
    target = len(bench.inputs.tokens) // 4
    fresh = FinchEngine(make_model(), make_tokenizer())
    selection = fresh.select(ITEM.documents, QUESTION, target_size=target)
    assert selection.stats.read_tokens < selection.stats.document_tokens
    kept = bench.score_kept(selection.positions)
    assert bench.run("default", target) == kept


def test_the_method_likelihood_reads_everything(bench):
    target = len(bench.inputs.tokens) // 4
    fresh = FinchEngine(make_model(), make_tokenizer())
    everything = fresh.select(ITEM.documents, QUESTION, target_size=target, read_size="all")
    assert bench.run("likelihood", target) == bench.score_kept(everything.positions)


def test_the_first_documents_are_kept_as_far_as_they_fit(bench):
    first, second = bench.inputs.tokens.spans[:2]
    kept = [*range(first.start, first.end), *range(second.start, second.start + 5)]
    expected = bench.score_kept([*kept[-5:], *kept[:-5]])  # the best one comes last
    assert bench.run("first", len(kept)) == expected
