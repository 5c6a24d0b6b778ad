"""What is around the documents in a prompt, as text and in a model's tokens.

    prefix     everything before the documents: special tokens, system text, history
    documents  the part that is compressed (`document_tokens`)
    suffix     everything after them: instruction, question, closing, then the generation prompt

The chat template is rendered once with a placeholder where the documents go.
"""

import secrets
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from finch_integrations.documents import check_text
from finch_integrations.engine.chat import check_messages, render_chat, template_variables
from finch_integrations.engine.document_tokens import SEPARATOR
from finch_integrations.engine.tokenization import SpecialTokenGuard, encode
from finch_integrations.errors import InvalidInputError, UnsupportedModelError
from finch_integrations.types import Message, Tool

# After the documents, next to the question: on the embedded model the gold answers of four
# question-answering tasks are 0.4 to 0.6 nats per token likelier than with the instruction first.
INSTRUCTION = "Using only the text above, answer this question:"

# Of a longer earlier question only the end is asked again before a follow-up, in characters.
_EARLIER = 400
# It asks for nothing: what the model attends to under it, it attends to out of habit.
_NULL_QUESTION = "N/A"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """What is asked about the documents, and what else the model reads; plain data.

    Attributes:
        question: The user's question, in the last user turn.
        system: System text. A template without a system role gets it at the start of the first
            user turn.
        history: Earlier turns, oldest first, with the roles `user`, `assistant` and `tool`.
        instruction: Text between the documents and the question.
        closing: Text after the question, such as rules for the answer. It does not influence what
            is kept.
        tools: What the model may call.
        result: The tool's result that the documents are in, with what it says before them as its
            content; the question is repeated after them. None: they are in the last user turn.
        chat_template_kwargs: Further variables for the chat template, such as `enable_thinking`.
    """

    question: str
    system: str | None = None
    history: tuple[Message, ...] = ()
    instruction: str = INSTRUCTION
    closing: str = ""
    tools: tuple[Tool, ...] = ()
    result: Message | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)


def make_prompt(
    *,
    history: Iterable[Message] = (),
    tools: Iterable[Tool] = (),
    chat_template_kwargs: Mapping[str, Any] | None = None,
    **texts: Any,
) -> Prompt:
    """Make a prompt of what a caller gave; its texts and turns are checked when it is tokenized.

    Raises:
        InvalidInputError: The history or the tools are no list, or the variables no mapping.
    """
    for name, given in (("history", history), ("tools", tools)):
        if isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable):
            raise InvalidInputError(
                f"{name} must be a list, got {type(given).__name__}. Leave it out if there is none"
            )
    return Prompt(
        history=tuple(history),
        tools=tuple(tools),
        chat_template_kwargs=template_variables(chat_template_kwargs),
        **texts,
    )


def rating_prompt(prompt: Prompt) -> Prompt:
    """Return what passages are rated under: the prompt without its history.

    So the passages are the same in every turn of a chat, and are read once for all of them.
    """
    question = follow_up(prompt.history, prompt.question)
    return replace(prompt, question=question, history=(), result=None)


def follow_up(history: Sequence[Message], question: str) -> str:
    """Put the question that was asked before in front of a question, which may need it.

    What the earlier answer stood on is then rated high again.

    Args:
        history: Checked turns.
        question: The question. The same one, asked earlier, is not repeated.
    """
    asked = [
        text
        for turn in history
        if turn["role"] == "user" and (text := turn["content"].strip()) != question.strip()
    ]
    earlier = asked[-1][-_EARLIER:].strip() if asked else ""
    return f"{earlier}\n{question}" if earlier else question


@dataclass(frozen=True, slots=True)
class QuestionWindow:
    """What is fed after a part of the documents to see how much it matters to the question.

    Attributes:
        ids: Token ids of instruction and question.
        length: Tokens of the question itself, the last ones.
    """

    ids: tuple[int, ...]
    length: int


@dataclass(frozen=True, slots=True)
class Frame:
    """A prompt without its documents, in a model's tokens.

    Attributes:
        prefix: Token ids before the documents.
        suffix: Token ids after the documents: instruction, question and closing, generation
            prompt.
        window: The suffix up to the question's end.
        null_window: The same with a question without content.
        question: The question's text.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    window: QuestionWindow
    null_window: QuestionWindow
    question: str


def build_frame(tokenizer: Any, prompt: Prompt) -> Frame:
    """Tokenize what is around the documents in the model's chat format.

    Args:
        tokenizer: A fast Hugging Face tokenizer; without a chat template the parts are joined
            as plain text.
        prompt: What to ask.

    Raises:
        InvalidInputError: The question is unusable or the template refuses the messages.
        UnsupportedModelError: The tokenizer gives no character offsets, or its chat template
            does not put the documents before the question exactly once.
    """
    question = check_text("the question", prompt.question).strip()
    if prompt.instruction != "":
        check_text("the instruction", prompt.instruction)
    nonce = secrets.token_hex(8)
    documents_slot, question_slot = f"DOCUMENTS{nonce}", f"QUESTION{nonce}"
    turn = f"{documents_slot}{SEPARATOR}{prompt.instruction.strip()} {question_slot}"
    if closing := prompt.closing.strip():
        turn += f"\n{closing}"
    guard = SpecialTokenGuard(tokenizer)
    for messages in _layouts(prompt, turn):
        kwargs = template_variables(prompt.chat_template_kwargs)
        rendered = render_chat(tokenizer, messages, guard, kwargs, prompt.tools)
        # Not if the template writes a tool's result as a JSON string.
        if turn in rendered or messages[-1]["role"] == "user":
            break
    before, _, rest = rendered.partition(documents_slot)
    between, _, after = rest.partition(question_slot)
    if rendered.count(documents_slot) != 1 or rest.count(question_slot) != 1:
        raise UnsupportedModelError(
            "the chat template does not show the last turn exactly once and in order"
        )

    lead, asked = guard.split(between), guard.split(guard.mark(question))
    suffix = encode(tokenizer, _join(lead, asked, guard.split(after)), before="a")
    null = encode(tokenizer, _join(lead, [_NULL_QUESTION]), before="a")
    prefix = encode(tokenizer, guard.split(before), after="a") if before else None
    # Where the question starts and ends, in characters. Tokens that cross a border belong to it.
    start = sum(map(len, lead))
    end = start + sum(map(len, asked))
    stop = bisect_left(suffix.ends, end) + 1
    return Frame(
        prefix=prefix.ids if prefix else (),
        suffix=suffix.ids,
        window=QuestionWindow(suffix.ids[:stop], stop - bisect_right(suffix.ends, start)),
        null_window=QuestionWindow(null.ids, len(null) - bisect_right(null.ends, start)),
        question=question,
    )


def _layouts(prompt: Prompt, turn: str) -> Iterator[list[Message]]:
    """The chats that may hold the turn with the documents, the best one first."""
    messages = check_messages(prompt.history, "the history", ("user", "assistant", "tool"))
    if prompt.system is not None:
        system = check_text("the system text", prompt.system)
        messages.insert(0, Message(role="system", content=system))
    if prompt.result is not None:
        (result,) = check_messages([prompt.result], "the tool's result", ("tool",))
        lead = result["content"].strip()
        text = f"{lead}{SEPARATOR}{turn}" if lead else turn
        yield [*messages, {**result, "content": text}]
        messages.append({**result, "content": lead or "(see below)"})
    yield [*messages, Message(role="user", content=turn)]


def _join(*parts: list[str]) -> list[str]:
    """Join texts that are cut into pieces; there is no cut between two texts."""
    joined = [""]
    for pieces in parts:
        joined[-1] += pieces[0]
        joined += pieces[1:]
    return joined
