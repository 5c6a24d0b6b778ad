"""From chat messages and documents to the three parts of the prompt.

    prefix     everything before the documents: special tokens, system text, history
    documents  the part that is compressed
    suffix     everything after them: instruction and question, then the generation prompt

The chat template is rendered once with a placeholder where the documents go, and the finished
text is tokenized in one piece, so the parts join to exactly the plain prompt's tokens.
"""

import itertools
import re
import secrets
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

from finch_integrations.documents import check_text
from finch_integrations.errors import InvalidInputError, UnsupportedModelError
from finch_integrations.types import Document, Message

# Behind the documents, next to the question: on the embedded model the gold answers of four
# question-answering tasks are 0.4 to 0.6 nats per token likelier than with an instruction in front.
INSTRUCTION = "Using only the text above, answer this question:"

# Asks for nothing: what the model attends to under it, it attends to out of habit.
_NULL_QUESTION = "N/A"


@dataclass(frozen=True, slots=True)
class DocumentSpan:
    """Where a document lies.

    Attributes:
        start: Its first token among the document tokens.
        end: Behind its last token.
        text_start: Where character 0 of `Document.text` lies in `Prompt.text`; blanks in front
            are left out there, so it can lie before its surroundings' start.
    """

    start: int
    end: int
    text_start: int


@dataclass(frozen=True, slots=True)
class Guide:
    """What is fed behind a chunk of the documents to see where the model looks.

    Attributes:
        ids: Token ids of instruction and question.
        rows: Tokens of the question itself, the last ones.
    """

    ids: tuple[int, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class Prompt:
    """A tokenized prompt in its three parts; `prefix + documents + suffix` is the plain prompt.

    Attributes:
        prefix: Token ids before the documents.
        documents: Token ids of all documents.
        suffix: Token ids after the documents: instruction and question, generation prompt.
        guide: The suffix up to the question's end.
        null_guide: The same with a content-free question.
        spans: Each document's place among the document ids.
        text: All documents as one text, as the model reads them.
        offsets: Where each document token starts in `text`, in characters.
        question: The question's text.
    """

    prefix: tuple[int, ...]
    documents: tuple[int, ...]
    suffix: tuple[int, ...]
    guide: Guide
    null_guide: Guide
    spans: tuple[DocumentSpan, ...]
    text: str
    offsets: tuple[int, ...]
    question: str

    def __len__(self) -> int:
        return len(self.prefix) + len(self.documents) + len(self.suffix)


def build_prompt(
    tokenizer: Any,
    documents: Sequence[Document],
    question: str,
    *,
    system: str | None = None,
    history: Sequence[Message] = (),
    instruction: str = INSTRUCTION,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> Prompt:
    """Tokenize documents and a question in the model's chat format.

    Args:
        tokenizer: A fast Hugging Face tokenizer; without a chat template the parts are joined
            as plain text.
        documents: Checked documents (`prepare_documents`).
        question: The user's question; the end of the last user turn.
        system: System text. A template without a system role gets it at the start of the first
            user turn.
        history: Earlier turns, oldest first, with the roles `user` and `assistant`.
        instruction: Stands between the documents and the question.
        chat_template_kwargs: Further variables for the chat template, such as
            `enable_thinking`.

    Raises:
        InvalidInputError: The question is unusable or the template refuses the messages.
        UnsupportedModelError: The tokenizer gives no character offsets, or its chat template
            does not put the documents before the question exactly once.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise UnsupportedModelError(
            f"{type(tokenizer).__name__} gives no character offsets; use the model's fast tokenizer"
        )
    question = check_text("the question", question).strip()
    nonce = secrets.token_hex(8)
    documents_slot, question_slot = f"DOCUMENTS{nonce}", f"QUESTION{nonce}"
    turn = f"{documents_slot}\n\n{instruction.strip()} {question_slot}"
    turns = _check_messages(history, "the history", ("user", "assistant"))
    messages = [*turns, Message(role="user", content=turn)]
    if system is not None:
        messages.insert(0, Message(role="system", content=check_text("the system text", system)))
    cuts = _Cuts(tokenizer)
    rendered = _render(tokenizer, cuts.mark_turns(messages), dict(chat_template_kwargs or {}))
    before, _, rest = rendered.partition(documents_slot)
    between, _, after = rest.partition(question_slot)
    if rendered.count(documents_slot) != 1 or rest.count(question_slot) != 1:
        raise UnsupportedModelError(
            "the chat template does not show the last user turn exactly once and in order"
        )

    bodies = [_document_text(document) for document in documents]
    body = "\n\n".join(bodies)
    parts = [before, cuts.mark(body), between, cuts.mark(question), after]
    ids, starts, ends = _tokenize(tokenizer, cuts.split("".join(parts)))
    lengths = (len("".join(cuts.split(part))) for part in parts)
    body_start, body_end, question_start, question_end, _ = itertools.accumulate(lengths)

    # Tokens that reach over a border belong to the part that is kept whole.
    first = _first(starts, lambda start: start >= body_start)
    last = _first(ends, lambda end: end > body_end)
    asked = _first(ends, lambda end: end > question_start)
    stop = _first(ends, lambda end: end >= question_end)
    places, begin = [], 0
    for document, text_of_one in zip(documents, bodies, strict=True):
        end = begin + len(text_of_one)
        places.append((begin, end - len(document.text.rstrip())))
        begin = end + len("\n\n")
    offsets = [start - body_start for start in starts[first:last]]
    return Prompt(
        prefix=tuple(ids[:first]),
        documents=tuple(ids[first:last]),
        suffix=tuple(ids[last:]),
        guide=Guide(tuple(ids[last : stop + 1]), rows=stop + 1 - asked),
        null_guide=_null_guide(tokenizer, cuts.split(between)),
        spans=_token_spans(places, offsets),
        text=body,
        offsets=tuple(offsets),
        question=question,
    )


def _null_guide(tokenizer: Any, between: list[str]) -> Guide:
    *pieces, last = between
    ids, _, ends = _tokenize(tokenizer, [*pieces, last + _NULL_QUESTION])
    asked = _first(ends, lambda end: end > len("".join(between)))
    return Guide(tuple(ids), rows=len(ids) - asked)


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
            takes; the system text and neighbours of one role are folded together where it
            does not take them apart.
        chat_template_kwargs: Further variables for the chat template.

    Raises:
        InvalidInputError: There is no message, one is unusable, or the template refuses them.
    """
    if not messages:
        raise InvalidInputError("there is no message to answer. Give at least one")
    checked = _check_messages(messages, "the chat", ("system", "user", "assistant"))
    for message in checked:
        # Assistant turns stay as they are for templates that take them apart.
        if message["role"] != "assistant":
            message["content"] = message["content"].strip()
    cuts = _Cuts(tokenizer)
    rendered = _render(tokenizer, cuts.mark_turns(checked), dict(chat_template_kwargs or {}))
    return tuple(_tokenize(tokenizer, cuts.split(rendered))[0])


def _document_text(document: Document) -> str:
    text = document.text.strip()
    return f"# {document.title.strip()}\n\n{text}" if document.title else text


def _check_messages(
    messages: Sequence[Message], where: str, roles: tuple[str, ...]
) -> list[Message]:
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


def _render(tokenizer: Any, messages: list[Message], kwargs: dict[str, Any]) -> str:
    """Render the chat, folding roles together where the template refuses or drops them."""
    if not tokenizer.chat_template:
        return _bos(tokenizer) + "\n\n".join(m["content"] for m in messages) + "\n\nAnswer:"
    refusal = ""
    for attempt in _attempts(messages):
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


class _Cuts:
    """Keeps callers' text from forming special tokens, so that it cannot end its own turn.

    The spelling of a special token is cut after its first character. Marks carry the cuts through
    the chat template, which sees the text otherwise as it is: some templates take turns apart
    (`</think>`) or find switches in them (`/no_think`).
    """

    def __init__(self, tokenizer: Any) -> None:
        spellings = [t.content for t in tokenizer.added_tokens_decoder.values() if t.special]
        spellings = sorted((s for s in spellings if len(s) > 1), key=len, reverse=True)
        never = "(?!)"
        self._spelling = re.compile("|".join(map(re.escape, spellings)) or never)
        self._mark = f"CUT{secrets.token_hex(8)}"

    def mark(self, text: str) -> str:
        return self._spelling.sub(lambda match: match[0][0] + self._mark + match[0][1:], text)

    def mark_turns(self, messages: Sequence[Message]) -> list[Message]:
        return [Message(role=m["role"], content=self.mark(m["content"])) for m in messages]

    def split(self, text: str) -> list[str]:
        """The pieces of a marked text, to be tokenized one by one."""
        return text.split(self._mark)


def _tokenize(tokenizer: Any, pieces: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
    """Tokenize the pieces of a text, each by itself.

    Returns:
        Ids, and the start and end character of every token in the whole text.
    """
    ids: list[int] = []
    starts: list[int] = []
    ends: list[int] = []
    begin = 0
    for piece in pieces:
        encoding = tokenizer(
            piece,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,
        )
        ids += encoding["input_ids"]
        starts += [begin + offset[0] for offset in encoding["offset_mapping"]]
        ends += [begin + offset[1] for offset in encoding["offset_mapping"]]
        begin += len(piece)
    return ids, starts, ends


def _first(values: list[int], matches: Any) -> int:
    return next((index for index, value in enumerate(values) if matches(value)), len(values))


def _token_spans(places: list[tuple[int, int]], offsets: list[int]) -> tuple[DocumentSpan, ...]:
    """Give every token to one document; separators go to the document before them.

    Args:
        places: Where each document and its own text start, in characters.
        offsets: Where each token starts, in characters.
    """
    borders = [bisect_left(offsets, start) for start, _ in places] + [len(offsets)]
    return tuple(
        DocumentSpan(start, end, text_start)
        for (start, end), (_, text_start) in zip(itertools.pairwise(borders), places, strict=True)
    )
