"""Rendering a chat with the model's template, and tokenizing one that has no documents."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from finch_integrations.documents import check_text
from finch_integrations.engine import tool_prompt
from finch_integrations.engine.tokenization import SpecialTokenGuard, encode
from finch_integrations.engine.tool_format import (
    ToolFormat,
    find_tool_format,
    shows_text,
    to_template_messages,
    to_template_tools,
)
from finch_integrations.errors import InvalidInputError
from finch_integrations.types import Message, Tool

_ROLES = ("system", "user", "assistant", "tool")

# Their turns may write marks that are no special tokens: a system text describes the format of tool
# calls, and an assistant's turns have thoughts and calls, which some templates parse.
_TRUSTED = ("system", "assistant")
# Parameters of `apply_chat_template` that are no variables of the template, or that are set here.
_RESERVED_NAMES = """
    add_generation_prompt chat_template continue_final_message conversation documents max_length
    messages padding return_assistant_tokens_mask return_dict return_tensors tokenize
    tokenizer_kwargs tools truncation
"""
_RESERVED = frozenset(_RESERVED_NAMES.split())


def template_variables(kwargs: object) -> dict[str, Any]:
    """Copy further variables for the chat template.

    Raises:
        InvalidInputError: They are no mapping from names, or one is set here.
    """
    if kwargs is None:
        return {}
    if not isinstance(kwargs, Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise InvalidInputError(
            f"chat_template_kwargs must be a mapping from names to values, got {kwargs!r:.80}"
        )
    if reserved := _RESERVED.intersection(kwargs):
        raise InvalidInputError(
            f"chat_template_kwargs must not have {', '.join(sorted(reserved))}: this package sets "
            "that. They are variables of the model's chat template, such as enable_thinking"
        )
    return dict(kwargs)


def build_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[int, ...]:
    """Tokenize a chat without documents, generation prompt included.

    Args:
        tokenizer: A Hugging Face tokenizer; without a chat template the messages are joined as
            plain text.
        messages: With the roles `system`, `user`, `assistant` and `tool`, in any order the template
            accepts; the system text, and neighbours of one role, are joined where it does not
            accept them separately.
        tools: What the model may call.
        chat_template_kwargs: Further variables for the chat template.

    Raises:
        InvalidInputError: There is no message, a message or tool is unusable, or the template
            refuses them.
    """
    rendered, guard = render_messages(
        tokenizer, messages, tools=tools, chat_template_kwargs=chat_template_kwargs
    )
    return encode(tokenizer, guard.split(rendered)).ids


def render_messages(
    tokenizer: Any,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> tuple[str, SpecialTokenGuard]:
    """Check and render a chat without documents; arguments and errors as for `build_chat`.

    Returns:
        The text, and the guard whose marks it has.
    """
    if not messages:
        raise InvalidInputError("there is no message to answer. Give at least one")
    checked = check_messages(messages, "the chat", _ROLES)
    for message in checked:
        # Assistant turns are not changed: some templates parse them.
        if message["role"] != "assistant":
            message["content"] = message["content"].strip()
    guard = SpecialTokenGuard(tokenizer)
    kwargs = template_variables(chat_template_kwargs)
    return render_chat(tokenizer, checked, guard, kwargs, tools), guard


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
    checked: list[Message] = []
    for number, message in enumerate(messages, start=1):
        role = message.get("role") if isinstance(message, Mapping) else None
        if role not in roles:
            allowed = " or ".join((", ".join(map(repr, roles[:-1])), repr(roles[-1])))
            raise InvalidInputError(
                f"message {number} of {where} must be a mapping with the role {allowed} "
                f"and a content, got {message!r}"
            )
        name = f"message {number} of {where}"
        content = message.get("content")
        calls = message.get("tool_calls") or ()
        # Calls and empty results need no text.
        if not ((calls or role == "tool") and content in (None, "")):
            check_text(name, content)
        copy = Message(role=role, content=content or "")
        if calls:
            tool_prompt.check_calls(calls, name)
            copy["tool_calls"] = list(calls)
        if role == "tool":
            for key in ("name", "tool_call_id"):
                if message.get(key) is not None:
                    copy[key] = check_text(f"the {key} of {name}", message[key])
        checked.append(copy)
    return checked


def render_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    guard: SpecialTokenGuard,
    kwargs: dict[str, Any],
    tools: Sequence[Tool] = (),
) -> str:
    """Render a chat; join roles where the template refuses or drops them.

    Tools, calls and results are given to templates that can show them, and written out as text for
    the others (`tool_prompt`).

    Args:
        tokenizer: Its chat template is used; without one the contents are joined as plain text.
        messages: Checked messages (`check_messages`).
        guard: Marks what could be taken for the template's marks; the result has its cuts.
        kwargs: Further variables for the chat template (`template_variables`).
        tools: What the model may call.

    Raises:
        InvalidInputError: A tool is unusable, or the template refuses the messages.
    """
    if tools:
        tool_prompt.check_tools(tools)
    marked: list[Message] = [
        guard.mark_all(message, trusted=message["role"] in _TRUSTED) for message in messages
    ]
    marked_tools: list[Tool] = guard.mark_all(list(tools))
    if not tokenizer.chat_template:
        flat = tool_prompt.as_text(tool_prompt.describe(marked, marked_tools))
        return _bos(tokenizer) + "\n\n".join(m["content"] for m in flat) + "\n\nAnswer:"
    form = None
    if tools or any(m["role"] == "tool" or "tool_calls" in m for m in messages):
        form = find_tool_format(tokenizer)
    if form and form.native and tools:
        kwargs = {**kwargs, "tools": to_template_tools(marked_tools)}
    elif tools:
        marked = tool_prompt.describe(marked, marked_tools)
    refusal = ""
    for attempt in _attempts(marked, form):
        try:
            rendered = tokenizer.apply_chat_template(
                to_template_messages(attempt, form) if form else attempt,
                tokenize=False,
                add_generation_prompt=True,
                **kwargs,
            )
        except Exception as error:  # whatever the template's author did not think of
            refusal = str(error) if isinstance(error, TemplateError) else f"it fails with {error!r}"
            continue
        if all(shows_text(rendered, m) for m in attempt):
            return str(rendered)
        refusal = "it leaves out a message"
    roles = ", ".join(m["role"] for m in messages)
    raise InvalidInputError(
        f"the model's chat template refuses these messages ({roles}): {refusal}. "
        "Turns should alternate between user and assistant, starting with user"
    )


def _attempts(messages: list[Message], form: ToolFormat | None) -> Iterator[list[Message]]:
    """Chats to try one after another; without a format they have neither calls nor results."""
    if form is None or form.native:
        yield messages
        yield _fold_system(messages)
        yield _merge_runs(_fold_system(messages))
    if form is None:
        return
    if form.native and any(len(message.get("tool_calls", ())) > 1 for message in messages):
        yield _merge_runs(_fold_system(tool_prompt.one_call_a_turn(messages)))
    flat = tool_prompt.as_text(messages)
    if not form.native or flat != messages:
        yield flat
        yield _fold_system(flat)
        yield _merge_runs(_fold_system(flat))


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
        plain = message["role"] != "tool" and "tool_calls" not in message
        last = merged[-1] if merged else None
        if plain and last and last["role"] == message["role"] and "tool_calls" not in last:
            content = f"{last['content']}\n\n{message['content']}"
            merged[-1] = Message(role=message["role"], content=content)
        else:
            merged.append(message)
    return merged


def _bos(tokenizer: Any) -> str:
    """The text of the BOS token, if the tokenizer starts sequences with one."""
    bos = tokenizer.bos_token
    starts_with_bos = bos is not None and tokenizer("a").input_ids[0] == tokenizer.bos_token_id
    return str(bos) if starts_with_bos else ""
