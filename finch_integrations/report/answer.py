"""An answer as HTML whose words lead to the passages that they are in."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markupsafe import Markup

from finch_integrations.pipeline.quotes import find_quotes
from finch_integrations.types import Document
from finch_integrations.words import word_spans

# A word that is in more passages than this says nothing about where it is from.
_MOST_PASSAGES = 2
# Shorter words, unless they have a digit, are in any text.
_SHORTEST = 4


class Passage(NamedTuple):
    """A text that words of the answer may be from.

    Attributes:
        text: The text.
        anchor: The id of its element in the page.
        score: Of two passages with the same word, the better one is shown.
    """

    text: str
    anchor: str
    score: float


def render_answer(answer: str, passages: Sequence[Passage], question: str) -> Markup:
    """Render Markdown, and link what the answer shares with passages to them.

    Links are made of runs of words that a passage has, too, and of single words that are in few
    passages and not in the question. What the answer itself has of HTML, links and images is shown
    as text: it comes from a model that has read documents of unknown origin.
    """
    markdown = MarkdownIt("js-default", {"html": False}).disable(["link", "image", "autolink"])
    linker = _Linker(passages, question)
    tokens = markdown.parse(answer)
    for token in tokens:
        if token.children:
            token.children = [part for child in token.children for part in linker.split(child)]
    return Markup(markdown.renderer.render(tokens, markdown.options, {}))


class _Linker:
    def __init__(self, passages: Sequence[Passage], question: str) -> None:
        self._passages = passages
        self._documents = [Document(passage.text) for passage in passages]
        asked = {word.text for word in word_spans(question)}
        self._holders: dict[str, list[int]] = defaultdict(list)
        for number, passage in enumerate(passages):
            for text in {word.text for word in word_spans(passage.text)} - asked:
                if len(text) >= _SHORTEST or any(c.isdigit() for c in text):
                    self._holders[text].append(number)

    def split(self, token: Token) -> Iterator[Token]:
        """Cut a text token into text and links."""
        if token.type != "text":
            yield token
            return
        text, position = token.content, 0
        for start, end, number in _joined(sorted(self._find(text)), text):
            yield _text(text[position:start])
            yield _link(text[start:end], self._passages[number])
            position = end
        yield _text(text[position:])

    def _find(self, text: str) -> Iterator[tuple[int, int, int]]:
        """Where something is that passages have: (start, end, number of the passage)."""
        quotes = find_quotes(text, self._documents)
        for quote in quotes:
            yield quote.start, quote.end, quote.document
        for word in word_spans(text):
            holders = self._holders.get(word.text, ())
            quoted = any(quote.start <= word.start < quote.end for quote in quotes)
            if not quoted and 0 < len(holders) <= _MOST_PASSAGES:
                best = max(holders, key=lambda number: self._passages[number].score)
                yield word.start, word.end, best


def _joined(places: list[tuple[int, int, int]], text: str) -> Iterator[tuple[int, int, int]]:
    """Join neighbours that lead to the same passage and have no word between them."""
    while places:
        start, end, number = places.pop(0)
        while places and places[0][2] == number and not text[end : places[0][0]].strip(" ,;-"):
            end = places.pop(0)[1]
        yield start, end, number


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)


def _link(content: str, passage: Passage) -> Token:
    link = f'<a class="from" href="#{passage.anchor}">{escape(content)}</a>'
    return Token("html_inline", "", 0, content=link)
