"""Which part of a prompt that holds documents is the question."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from finch_integrations.pipeline.line_starts import Lines, LineStart

Span = tuple[int, int]

_ITSELF = "question|frage|pregunta|domanda|pergunta|vraag|问题|問題|質問|вопрос|질문"
LABEL = LineStart(
    rf"[ \t#*>]*+(?:(?:the |my )?(?:user|latest|new|current|follow.?up|standalone|original)s?"
    rf"(?:'s)? )*(?:(?P<itself>{_ITSELF})|query|input|anfrage|requête|consulta|查询|human|user)"
    r"[ \t*]*[:：][ \t*]*",
    words="the my user latest new current follow standalone original query input anfrage requête "
    "consulta 查询 human " + _ITSELF.replace("|", " "),
)
# The assistant's turn follows this label.
_ANSWER = re.compile(
    r"[ \t#*]*(?:\w+[ \t]+){0,2}(?:answer|antwort|réponse|回答|答案)[ \t*]*[:：]", re.IGNORECASE
)
_TAGGED = re.compile(
    r"<(question|query|user_question|user_query|input)>(?P<text>.*?)</\1>",
    re.IGNORECASE | re.DOTALL,
)
_LABEL_LINE = re.compile(r"\n[^\n]{0,60}[:：][ \t*]*\Z|\n[ \t]*[#*\[<][^\n.?]{0,40}\Z")
_INSTRUCTS = re.compile(
    r"\b(?:answers?|respond|reply|questions?|say|cite|context|don't|do not|please|always|never"
    r"|must|only|brief(?:ly)?|concise(?:ly)?|sentences?)\b",
    re.IGNORECASE,
)
_BEFORE, _AFTER = "\n>\"'`:：;|=*#]}([{", "\n<\"'`;|)]}"


def find_question(text: str, taken: Sequence[Span], queries: Sequence[str] = ()) -> Span | None:
    """Find the question in what is left of a text around its documents.

    It is what retrievers were asked, if that is there; else what tags or a label name; else what
    is after the documents; else what is before them. An instruction after the documents is not
    the question if a question is before them.

    Args:
        text: The text.
        taken: Its documents.
        queries: What retrievers were asked.
    """
    free = _free(text, taken)
    for query in sorted(queries, key=len, reverse=True):
        if asked := [span for part in free for span in find_alone(text, query, part)]:
            return asked[-1]
    for start, end in reversed(free):
        if tagged := [*_TAGGED.finditer(text, start, end)]:
            return _strip(text, *tagged[-1].span("text"))
    for number in (len(free) - 1, *range(len(free) - 1)):
        start, end = free[number]
        if label := _asked(text[start:end]):
            return _without_labels(text, start + label.end(), end)
    return _unlabelled(text, free)


def find_alone(text: str, query: str, part: Span) -> Iterator[Span]:
    """Find where a query stands by itself in a part of a text."""
    start = text.find(query, *part) if query else -1
    while start >= 0:
        end = start + len(query)
        before, after = start, end
        while before and text[before - 1] in " \t":
            before -= 1
        while after < len(text) and text[after] in " \t":
            after += 1
        if (not before or text[before - 1] in _BEFORE) and text[after : after + 1] in _AFTER:
            yield start, end
        start = text.find(query, end, part[1])


def find_answer(text: str, start: int = 0) -> int | None:
    """Where a text's last line begins if that is the label of an answer that is to follow."""
    end = len(text.rstrip())
    line = max(start, text.rfind("\n", start, end) + 1)
    return line if _ANSWER.fullmatch(text, line, end) else None


def _free(text: str, taken: Sequence[Span]) -> list[Span]:
    edges = [0, *(edge for span in taken for edge in span), len(text)]
    return [*zip(edges[::2], edges[1::2], strict=True)]


def _unlabelled(text: str, free: Sequence[Span]) -> Span | None:
    first, last = _without_labels(text, *free[0]), _without_labels(text, *free[-1])
    lead, tail = (text[slice(*span)] if span else "" for span in (first, last))
    if len(free) == 1:
        return last
    if tail and not (lead.endswith("?") and "?" not in tail and _INSTRUCTS.search(tail)):
        return last
    if first is None:
        return last
    # "{question}\n\nUse the following context to answer:\n{documents}"
    asked = lead.rpartition("\n\n")[2] if lead.endswith("?") else lead
    return _strip(text, first[1] - len(asked), first[1])


def _without_labels(text: str, start: int, end: int) -> Span | None:
    """A stretch without the labels of what comes after it: the answer's, the documents'."""
    if (answer := find_answer(text[start:end])) is not None:
        end = start + answer
    stretch = text[start:end].rstrip()
    if label := _LABEL_LINE.search(stretch):
        end = start + label.start()
    return _strip(text, start, end)


def _strip(text: str, start: int, end: int) -> Span | None:
    stretch = text[start:end]
    first = start + len(stretch) - len(stretch.lstrip())
    last = start + len(stretch.rstrip())
    return (first, last) if first < last else None


def _asked(text: str) -> re.Match[str] | None:
    """The label of the question: the last one, unless it is a part of the question itself.

    It is if it follows a line that is labelled as the question ("Question: …", "Query: …").
    """
    labels = list(LABEL.find(Lines(text)))
    asked = labels[-1] if labels else None
    for label, following in reversed(list(pairwise(labels))):
        line = text[label.end() : following.start()].strip()
        if following["itself"] or not line or "\n" in line:
            break
        if label["itself"]:
            asked = label
    return asked
