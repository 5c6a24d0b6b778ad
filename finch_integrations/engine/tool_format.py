"""How a chat template shows tools and calls, found out by rendering an example with it."""

import hashlib
import json
import re
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from finch_integrations.engine.tool_prompt import function_schema
from finch_integrations.types import Message, Tool, ToolCall

_TOOL = Tool(name="probe_name", description="probe_description")
_ARGUMENTS = re.compile(r'\{\s*"probe_key"\s*:\s*"probe_value"\s*\}')
_IDS = ("probeid01", "probeid02")
# Stands for the id of a call in the text around it.
ANY_ID = "\0"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """The text of tool calls: begin, name, between, arguments, (join, name, …)*, end.

    `ANY_ID` in it stands for a call's id.

    Attributes:
        begin: Before the first call's name.
        between: Between a name and its arguments, which are JSON.
        join: Between a call's arguments and the next one's name; None: one call at most.
        end: After the last call's arguments, without what ends the turn.
        native: Whether the template shows tools itself.
        short_ids: Whether it wants ids of nine letters and digits.
        arguments_as_text: Whether it wants arguments as a string.
    """

    begin: str
    between: str
    join: str | None
    end: str
    native: bool = True
    short_ids: bool = False
    arguments_as_text: bool = False

    @property
    def marker(self) -> str:
        """What a call begins with and nothing else does, as far as that can be known."""
        head = re.match(r"\s*[^\s{\"]+", self.begin)
        return head[0].strip() if head else self.begin.strip()

    @property
    def only_at_start(self) -> bool:
        """Whether the marker may also be in other text, so that only an answer's start counts."""
        return self.marker.startswith(("{", "[")) and not self.marker.endswith("]")


# What `tool_prompt` asks for.
WRITTEN = ToolFormat(
    begin='<tool_call>\n{"name": "',
    between='", "arguments": ',
    join='}\n</tool_call>\n<tool_call>\n{"name": "',
    end="}\n</tool_call>",
    native=False,
)
_found: "weakref.WeakKeyDictionary[Any, tuple[str, ToolFormat]]" = weakref.WeakKeyDictionary()


def find_tool_format(tokenizer: Any) -> ToolFormat:
    """Find the format of a tokenizer's chat template; `WRITTEN` if it shows no tools.

    A template shows tools if it renders their descriptions, calls with JSON arguments, and results.
    """
    template = tokenizer.chat_template
    if not template:
        return WRITTEN
    known = _found.get(tokenizer)
    if known is None or known[0] != template:
        known = _found[tokenizer] = (template, _probe(tokenizer) or WRITTEN)
    return known[1]


def to_template_tools(tools: Sequence[Tool]) -> list[dict[str, Any]]:
    """Tools as chat templates expect them."""
    return [function_schema(tool) for tool in tools]


def to_template_messages(
    messages: Sequence[Message], form: ToolFormat = WRITTEN
) -> list[dict[str, Any]]:
    """Messages as chat templates expect them: calls as functions with types."""
    return [_to_template(message, form) for message in messages]


def shows_text(rendered: str, message: Message) -> bool:
    """Whether a rendered chat has the text of a message; some templates parse assistant turns."""
    text = message["content"].strip()
    if message["role"] == "assistant" or text in rendered:
        return True
    # Some templates write results as JSON strings.
    return message["role"] == "tool" and any(
        json.dumps(text, ensure_ascii=ascii)[1:-1] in rendered for ascii in (False, True)
    )


def _to_template(message: Message, form: ToolFormat) -> dict[str, Any]:
    converted: dict[str, Any] = {**message}
    if "tool_calls" in message:
        converted["tool_calls"] = [_to_function(call, form) for call in message["tool_calls"]]
    if message.get("tool_call_id") and form.short_ids:
        converted["tool_call_id"] = _short_id(message["tool_call_id"])
    return converted


def _to_function(call: ToolCall, form: ToolFormat) -> dict[str, Any]:
    arguments: Any = dict(call["arguments"])
    if form.arguments_as_text:
        arguments = json.dumps(arguments, ensure_ascii=False)
    id = call.get("id") or "call"
    return {
        "type": "function",
        "id": _short_id(id) if form.short_ids else id,
        "function": {"name": call["name"], "arguments": arguments},
    }


def _short_id(id: str) -> str:
    """The id if it has nine letters and digits, else nine that stand for it."""
    if re.fullmatch("[a-zA-Z0-9]{9}", id):
        return id
    return hashlib.sha256(id.encode("utf-8", "surrogatepass")).hexdigest()[:9]


def _probe(tokenizer: Any) -> ToolFormat | None:
    for as_text in (False, True):
        form = replace(WRITTEN, arguments_as_text=as_text)
        try:
            ids_matter = _refuses_long_ids(tokenizer, form)
            found = _read_format(tokenizer, replace(form, short_ids=ids_matter))
        except Exception:  # a template is somebody else's program
            continue
        if found is not None:
            return found
    return None


def _refuses_long_ids(tokenizer: Any, form: ToolFormat) -> bool:
    try:
        _render(tokenizer, form, [_call("probe_id_01")])
    except Exception:
        _render(tokenizer, form, [_call(_IDS[0])])
        return True
    return False


def _read_format(tokenizer: Any, form: ToolFormat) -> ToolFormat | None:
    """Read the text around name and arguments off rendered calls; None if they are not shown."""
    plain = _render(tokenizer, form, [], text="probe_text")
    one = _render(tokenizer, form, [_call(_IDS[0])])
    with_result = _render(tokenizer, form, [_call(_IDS[0])], result="probe_result")
    if "probe_description" not in one or "probe_result" not in with_result:
        return None
    asked = _render(tokenizer, form, None)
    start = len(asked) if one.startswith(asked) else _common_length(plain, one)
    turn_end = plain.partition("probe_text")[2]
    pieces = _split(one[start:].removesuffix(turn_end), calls=1)
    if pieces is None:
        return None
    begin, between, end = pieces
    join = None
    try:
        two = _render(tokenizer, form, [_call(id) for id in _IDS])
    except Exception:  # it refuses parallel calls
        parallel = None
    else:
        parallel = _split(two[start:].removesuffix(turn_end), calls=2)
    if parallel and [parallel[0], parallel[1], parallel[4]] == [begin, between, end]:
        join = parallel[2]
    return replace(
        form, begin=begin.lstrip(), between=between, join=join, end=end.rstrip(), native=True
    )


def _common_length(first: str, second: str) -> int:
    pairs = enumerate(zip(first, second, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))


def _split(text: str, *, calls: int) -> list[str] | None:
    """Cut a rendered turn at names and arguments; the pieces around them."""
    pieces: list[str] = []
    for _ in range(calls):
        before, name, text = text.partition("probe_name")
        arguments = _ARGUMENTS.search(text)
        if not name or arguments is None:
            return None
        pieces += [before, text[: arguments.start()]]
        text = text[arguments.end() :]
    if "probe_name" in text or _ARGUMENTS.search(text):
        return None
    return [re.sub("|".join(_IDS), ANY_ID, piece) for piece in (*pieces, text)]


def _call(id: str) -> ToolCall:
    return ToolCall(id=id, name="probe_name", arguments={"probe_key": "probe_value"})


def _render(
    tokenizer: Any,
    form: ToolFormat,
    calls: list[ToolCall] | None,
    *,
    text: str = "",
    result: str = "",
) -> str:
    """Render a question, and an answer with text or calls; without calls=… a generation prompt."""
    messages = [Message(role="user", content="probe_question")]
    if calls is not None:
        messages.append(Message(role="assistant", content=text))
    if calls:
        messages[-1]["tool_calls"] = calls
    if calls and result:
        id = calls[0]["id"]
        messages.append(Message(role="tool", content=result, name="probe_name", tool_call_id=id))
    return str(
        tokenizer.apply_chat_template(
            to_template_messages(messages, form),
            tools=to_template_tools([_TOOL]),
            tokenize=False,
            add_generation_prompt=calls is None,
        )
    )
