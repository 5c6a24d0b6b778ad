"""LangChain's messages in the model's chat template."""

import pytest
from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    ChatMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.content import create_plaintext_block, create_text_block

from finch_integrations import (
    InvalidInputError,
)
from tests.tiny import make_tokenizer, text_of

Q = "Where is it?"


TEXTS = [text_of(150, seed=1), text_of(120, seed=2)]


def tokens(chat, messages):
    return chat.invoke(messages, max_tokens=1).usage_metadata["input_tokens"]


def rendered(*turns):
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return len(make_tokenizer()(text + "<|im_start|>assistant\n").input_ids)


CALLS = [{"name": "add", "args": {"a": 1}, "id": "1", "type": "tool_call"}]


WRITTEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([HumanMessage(["Hel", {"type": "text", "text": "lo"}])], [("user", "Hel\nlo")]),
        ([HumanMessage("Hello", name="ann")], [("user", "ann: Hello")]),
        ([HumanMessage("A"), AIMessage("B")], [("user", "A"), ("assistant", "B")]),
        ([HumanMessage("A"), HumanMessage("B")], [("user", "A"), ("user", "B")]),
        ([ChatMessage("A", role="user")], [("user", "A")]),
        ([ChatMessage("A", role="developer"), HumanMessage("B")], [("system", "A"), ("user", "B")]),
        ([HumanMessage("A"), AIMessage("")], [("user", "A")]),
        (
            [
                HumanMessage("A"),
                AIMessage([{"type": "thinking", "thinking": "x"}, "B"], tool_calls=CALLS),
                ToolMessage("3", tool_call_id="1", name="add"),
            ],
            [
                ("user", "A"),
                ("assistant", f"B\n{WRITTEN}"),
                ("user", "Result of the tool add:\n3"),
            ],
        ),
        (
            [
                HumanMessage("A"),
                AIMessage("", tool_calls=CALLS),
                ToolMessage("bad", tool_call_id="1", status="error"),
                AIMessage("Sorry."),
                HumanMessage("B"),
            ],
            [
                ("user", "A"),
                ("assistant", WRITTEN),
                ("user", "Result of the tool:\nError: bad"),
                ("assistant", "Sorry."),
                ("user", "B"),
            ],
        ),
    ],
)
def test_messages_in_any_order_reach_the_template(chat, messages, turns):
    assert tokens(chat, messages) == rendered(*turns)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([HumanMessage([{"type": "image_url", "image_url": {"url": "x"}}])], "'image_url', which"),
        ([HumanMessage([{"type": "file", "file_id": "x"}])], "a text model cannot read"),
        (
            [HumanMessage([{"type": "document", "source": {"type": "url", "url": "x"}}, "Q"])],
            "document block without text",
        ),
        ([ChatMessage("A", role="judge")], "has the role 'judge'. Use one of"),
        ([HumanMessage("")], "message 1 of the chat is empty"),
        ([SystemMessage("A"), HumanMessage("  ")], "message 2 of the chat is empty"),
        ([HumanMessage("a\x00b")], "NUL character"),
    ],
)
def test_unusable_messages_are_named(chat, messages, reason):
    with pytest.raises(InvalidInputError, match=reason):
        chat.invoke(messages)


def test_tokens_are_counted_with_the_models_own_tokenizer(chat):
    assert chat.get_token_ids("né<|im_end|>") == make_tokenizer()("né<|im_end|>").input_ids
    assert chat.get_num_tokens("né<|im_end|>") == 4
    messages = [SystemMessage("Be brief."), HumanMessage(Q)]
    assert chat.get_num_tokens_from_messages(messages) == tokens(chat, messages)


@pytest.mark.parametrize("text", [Q, ""])
def test_tokens_of_documents_inside_messages_are_counted(chat, text):
    document = chat.get_num_tokens(TEXTS[0])
    rest = tokens(chat, [HumanMessage(text)]) if text else 0
    beside = HumanMessage(text, additional_kwargs={"documents": [Document(TEXTS[0])]})
    assert chat.get_num_tokens_from_messages([beside]) == rest + document
    texts = [create_text_block(text)] if text else []
    block = HumanMessage([create_plaintext_block(TEXTS[0]), *texts])
    assert chat.get_num_tokens_from_messages([block]) == rest + document
