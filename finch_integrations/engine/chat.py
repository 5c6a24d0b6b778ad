"""Rendering a chat with the model's template, and tokenizing one that has no documents."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from finch_integrations.documents import check_text
from finch_integrations.engine.tokenization import SpecialTokenGuard, encode
from finch_integrations.errors import InvalidInputError
from finch_integrations.types import Message

# Their turns may write marks that are no special tokens: a system text describes the format of tool
# calls, and an assistant's turns have thoughts and calls, which some templates parse.
_TRUSTED = ("system", "assistant")


def build_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    """Tokenize a chat without documents, generation prompt included.

    Args:
        tokenizer: A Hugging Face tokenizer; without a chat template the messages are joined as
            plain text.
        messages: With the roles `system`, `user` and `assistant`, in any order the template
            accepts; the system text, and neighbours of one role, are joined where it does not
            accept them separately.
        chat_template_kwargs: Further variables for the chat template.

    Raises:
        InvalidInputError: There is no message, one is unusable, or the template refuses them.
    """
    if not messages:
        raise InvalidInputError("there is no message to answer. Give at least one")
    checked = check_messages(messages, "the chat", ("system", "user", "assistant"))
    for message in checked:
        # Assistant turns are not changed: some templates parse them.
        if message["role"] != "assistant":
            message["content"] = message["content"].strip()
    guard = SpecialTokenGuard(tokenizer)
    rendered = render_chat(tokenizer, checked, guard, dict(chat_template_kwargs or {}))
    return encode(tokenizer, guard.split(rendered)).ids


def check_messages(
    messages: Sequence[Message], where: str, roles: tuple[str, ...]
) -> list[Message]:
    """Copy messages whose roles and contents can be used.

    Args:
        messages: Turns of a chat.
        where: What to call them in errors.
        roles: The roles that they may have.

    Raises:
        InvalidInputError: A message cannot be used.
    """
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in roles:
            allowed = " or ".join((", ".join(map(repr, roles[:-1])), repr(roles[-1])))
            raise InvalidInputError(
                f"message {number} of {where} must be a mapping with the role {allowed} "
                f"and a content, got {message!r}"
            )
        check_text(f"message {number} of {where}", message.get("content"))
    return [Message(role=message["role"], content=message["content"]) for message in messages]


def render_chat(
    tokenizer: Any, messages: Sequence[Message], guard: SpecialTokenGuard, kwargs: dict[str, Any]
) -> str:
    """Render a chat; join roles where the template refuses or drops them.

    Args:
        tokenizer: Its chat template is used; without one the contents are joined as plain text.
        messages: Checked messages (`check_messages`).
        guard: Marks what could be taken for the template's marks; the result has its cuts.
        kwargs: Further variables for the chat template.

    Raises:
        InvalidInputError: The template refuses the messages.
    """
    marked = [
        Message(role=m["role"], content=guard.mark(m["content"], trusted=m["role"] in _TRUSTED))
        for m in messages
    ]
    if not tokenizer.chat_template:
        return _bos(tokenizer) + "\n\n".join(m["content"] for m in marked) + "\n\nAnswer:"
    refusal = ""
    for attempt in _attempts(marked):
        try:
            rendered = tokenizer.apply_chat_template(
                attempt, tokenize=False, add_generation_prompt=True, **kwargs
            )
        except TemplateError as error:
            refusal = str(error)
            continue
        if all(m["content"].strip() in rendered for m in attempt if m["role"] != "assistant"):
            return str(rendered)
        refusal = "it leaves out a message"
    roles = ", ".join(m["role"] for m in messages)
    raise InvalidInputError(
        f"the model's chat template refuses these messages ({roles}): {refusal}. "
        "Turns should alternate between user and assistant, starting with user"
    )


def _attempts(messages: list[Message]) -> Iterator[list[Message]]:
    yield messages
    folded = _fold_system(messages)
    yield folded
    yield _merge_runs(folded)


def _fold_system(messages: list[Message]) -> list[Message]:
    if messages[0]["role"] != "system":
        return messages
    system, *rest = messages
    content = system["content"]
    if rest and rest[0]["role"] == "user":
        content = f"{content}\n\n{rest.pop(0)['content']}"
    return [Message(role="user", content=content), *rest]


def _merge_runs(messages: list[Message]) -> list[Message]:
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            content = f"{merged[-1]['content']}\n\n{message['content']}"
            merged[-1] = Message(role=message["role"], content=content)
        else:
            merged.append(message)
    return merged


def _bos(tokenizer: Any) -> str:
    """The text of the BOS token, if the tokenizer starts sequences with one."""
    bos = tokenizer.bos_token
    starts_with_bos = bos is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    return str(bos) if starts_with_bos else ""
