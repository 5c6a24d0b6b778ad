"""LlamaIndex's messages in the model's chat template."""

import pytest
from llama_index.core.base.llms.types import (
    CachePoint,
    ChatMessage,
    CitableBlock,
    DocumentBlock,
    ImageBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from finch_integrations import (
    InvalidInputError,
)
from tests.llama_index.conftest import say
from tests.tiny import make_tokenizer

Q = "Where is it?"


def usage(response):
    return response.raw["usage"]


def tokens(llm, messages):
    return usage(llm.chat(messages, max_tokens=1))["prompt_tokens"]


def rendered(*turns):
    text = "".join(f"<|im_start|>{role}\n{content}<|im_end|>\n" for role, content in turns)
    return len(make_tokenizer()(text + "<|im_start|>assistant\n").input_ids)


CALL = ToolCallBlock(tool_name="add", tool_kwargs={"a": 1})


WRITTEN = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool_call>'


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        ([ChatMessage(blocks=[TextBlock(text="A"), TextBlock(text="B")])], [("user", "A\nB")]),
        (
            [say("A"), say("B", "assistant"), say("C")],
            [("user", "A"), ("assistant", "B"), ("user", "C")],
        ),
        ([say("A", "developer"), say("B")], [("system", "A"), ("user", "B")]),
        (
            [say("A"), say("B", "chatbot"), say("C")],
            [("user", "A"), ("assistant", "B"), ("user", "C")],
        ),
        (
            [
                say("A"),
                ChatMessage(role="assistant", blocks=[ThinkingBlock(content="x"), CALL]),
                ChatMessage("3", role="tool", additional_kwargs={"name": "add"}),
            ],
            [("user", "A"), ("assistant", WRITTEN), ("user", "Result of the tool add:\n3")],
        ),
        (
            [ChatMessage(blocks=[TextBlock(text="A"), CachePoint(cache_control={"type": "x"})])],
            [("user", "A")],
        ),
    ],
)
def test_messages_of_every_kind_reach_the_template(llm, messages, turns):
    assert tokens(llm, messages) == rendered(*turns)


def test_every_role_has_a_place(llm):
    for role in MessageRole:
        assert tokens(llm, [say("Hello."), say("A", role), say(Q)])


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([ChatMessage(blocks=[ImageBlock(url="http://x")])], "ImageBlock, which a text model"),
        ([ChatMessage(blocks=[DocumentBlock(url="http://x")])], "CitableBlock with text for doc"),
        (
            [
                ChatMessage(
                    blocks=[
                        CitableBlock(title="T", source="s", content=[ImageBlock(url="http://x")])
                    ]
                )
            ],
            r"CitableBlock \('T'\) whose content is not only text",
        ),
        ([say("")], "message 1 of the chat is empty"),
        ([say("a\x00b")], "NUL character"),
        ([], "no message to answer"),
    ],
)
def test_unusable_messages_are_named(llm, messages, reason):
    with pytest.raises(InvalidInputError, match=reason):
        llm.chat(messages)
