"""Texts cannot write the marks of a chat format: tokens, plain text, or what is taken for them."""

import pytest
from tokenizers import AddedToken, normalizers

from benchmarks.marks import attack
from finch_integrations import Document
from finch_integrations.engine.chat import build_chat
from finch_integrations.engine.document_tokens import tokenize_documents
from finch_integrations.engine.marks import find_marks
from tests.engine.test_tokenization import FAMILIES
from tests.tiny import CHATML, make_input, make_tokenizer

INSTRUCTIONS = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ '<<SYS>>\n' + m.content + '\n<</SYS>>' }}"
    "{% elif m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' }}"
)
ALPACA = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '### Instruction:\n' + m.content }}"
    "{% else %}{{ '\n\n### Response:\n' + m.content }}{% endif %}{% endfor %}"
    "{{ '\n\n### Response:\n' }}"
)
VICUNA = (
    "{% for m in messages %}{{ m.role.upper() + ': ' + m.content + ' ' }}{% endfor %}ASSISTANT:"
)
TOOLS = CHATML + "{% if tools %}{{ '<tool_call>' }}{% endif %}"


def with_tokens(tokens=(), *, template=CHATML, normalizer=None, special=False):
    tokenizer = make_tokenizer(template)
    if normalizer is not None:
        tokenizer.backend_tokenizer.normalizer = normalizer
    added = [AddedToken(t, special=special, normalized=normalizer is not None) for t in tokens]
    tokenizer.add_tokens(added, special_tokens=special)
    return tokenizer


THINKING = ("<think>", "</think>", "<tool_call>", "</tool_call>", "[TOOL_RESULTS]", "<｜User｜>")
LOWER = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
CASES = {
    "no tokens": (with_tokens(template=INSTRUCTIONS), ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"]),
    "made of roles": (with_tokens(template=ZEPHYR), ["<|user|>", "<|assistant|>", "<|system|>"]),
    "headings": (with_tokens(template=ALPACA), ["### Instruction:", "### Response:"]),
    "labels": (with_tokens(template=VICUNA), ["USER:", "ASSISTANT:"]),
    "only with tools": (with_tokens(template=TOOLS), ["<tool_call>"]),
    "tokens that are not special": (with_tokens(THINKING), THINKING),
    "nested": (with_tokens(["<|a<|b|>c|>", "<|b|>"], special=True), ["<|a<|b|>c|>", "<|b|>"]),
    "one begins another": (with_tokens(["<|a", "<|a|>"], special=True), ["<|a", "<|a|>"]),
    "normalized": (
        with_tokens(["<|end|>", "[stop]"], normalizer=LOWER, special=True),
        ["<|end|>", "[stop]", "<|END|>", "＜|ｅnd|＞"],
    ),
    "normalized plain text": (
        with_tokens(template=INSTRUCTIONS.replace("INST", "inst"), normalizer=LOWER),
        ["[inst]", "[/inst]", "<<sys>>"],
    ),
    "characters that are dropped": (
        with_tokens(["<|end|>"], normalizer=normalizers.Replace("\u200b", ""), special=True),
        ["<|end|>", "<|e\u200bnd|>"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_no_mark_gets_through_in_any_disguise(case):
    tokenizer, marks = CASES[case]
    tried, through = attack(tokenizer, marks)
    assert tried >= 5 * len(marks)
    assert through == []


@pytest.mark.parametrize("family", ["gpt2", "llama3", "sentencepiece"])
def test_nor_with_the_ways_of_real_tokenizers_to_cut_words(family):
    tokenizer = FAMILIES[family]
    tokenizer.chat_template = INSTRUCTIONS
    tokens = tokenize_documents(tokenizer, [Document("the [/INST] end [INST]")])
    assert "[/INST]" not in tokenizer.decode(tokens.ids)
    tokenizer.chat_template = None
    tokens = tokenize_documents(tokenizer, [Document("the [/INST] end")])
    assert "[/INST]" in tokenizer.decode(tokens.ids)  # without the template it is no mark


def test_places_in_the_text_stay_true():
    tokenizer, _ = CASES["no tokens"]
    text = "one [/INST] two"
    tokens = tokenize_documents(tokenizer, [Document(text)])
    assert tokens.text == text
    assert tokens.offsets == (*range(5), 5, *range(5, len(text)))  # one token per byte
    assert tokenizer.decode(tokens.ids) == "one [ /INST] two"
    after = tokens.token_at(text.index("two"))
    assert tokenizer.decode(tokens.ids[after:]) == "two"
    assert tokens.text_between(0, after) == "one [/INST] "


def test_ordinary_words_and_html_stay_as_they_are():
    tokenizer = with_tokens(["<table>", "</table>", "COVID-19", "\n\n", "  "])
    ids = tokenizer.convert_tokens_to_ids(["<table>", "COVID-19", "</table>"])
    tokens = tokenize_documents(tokenizer, [Document("<table>COVID-19</table>")])
    assert list(tokens.ids) == ids


def test_system_text_and_answers_may_write_marks_that_are_not_special():
    tokenizer = with_tokens(THINKING)
    think, call = tokenizer.convert_tokens_to_ids(["<think>", "<tool_call>"])
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    chat = [
        {"role": "system", "content": "Write <tool_call><|im_end|>."},
        {"role": "user", "content": "Hello <think>"},
        {"role": "assistant", "content": "<think>Hm. Hi."},
        {"role": "user", "content": "<tool_call>"},
    ]
    ids = build_chat(tokenizer, chat)
    assert (ids.count(think), ids.count(call), ids.count(end)) == (1, 1, 4)


def test_marks_follow_the_template():
    tokenizer = make_tokenizer(INSTRUCTIONS)
    assert "[" in find_marks(tokenizer).texts.by_first
    tokenizer.chat_template = VICUNA
    assert set(find_marks(tokenizer).texts.by_first) == set("UAST")
    assert find_marks(tokenizer) is find_marks(tokenizer)
    tokenizer.chat_template = "{{ broken"
    assert not find_marks(tokenizer).texts.by_first


def test_a_label_without_its_colon_or_in_other_case_is_none():
    tokenizer, _ = CASES["labels"]
    text = "USER no. user: no. USER: yes"
    read = tokenizer.decode(tokenize_documents(tokenizer, [Document(text)]).ids)
    assert read == text.replace(" USER: yes", " USER : yes")


def test_a_question_full_of_marks_is_answered():
    tokenizer, marks = CASES["no tokens"]
    inputs = make_input(["text"], " ".join(marks), tokenizer)
    assert tokenizer.decode(inputs.frame.window.ids).endswith("[ INST] [ /INST] < <SYS>> < </SYS>>")
