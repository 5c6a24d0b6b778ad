"""Where sentences and lines end: the places where a text may be cut.

A single line break inside a paragraph is a blank: mail, books and PDFs break their lines anywhere.
"""

import re
from collections.abc import Iterator
from itertools import pairwise

from finch_integrations.words import FULL_STOPS

# A match ends where the next sentence begins: after closing quotes and brackets and the white
# space or line break. A full stop ends a sentence only if white space follows, as it does not in
# 3.14 or after the number of a list item; the stops of scripts that use them for nothing else need
# none.
_STOP = re.compile(
    rf"""(?<=[.!?…؟۔])(?<!\n\d\.)(?<!\n\d\d\.)["'”’)\]]*\s+|(?<=[{FULL_STOPS}])["'”’)\]」』）】]*\s*"""
)
# A line break, and the blank lines after it.
_BREAK = re.compile(r"\r?\n(?P<blank>(?:[^\S\n]*\n)+)?")
_FENCE = re.compile(r"[ \t]{0,3}(?:```|~~~)")
# Lines that stand for themselves: headings, rules, code, and rows of tables: with bars, or with
# tabs or wide gaps between their cells, as tables come out of PDFs.
_ALONE = re.compile(
    r"[ \t]{0,3}(?:#{1,6}\s|[-=*_~]{3,}\s*$|\|)|(?:\t|[ ]{4})|[^|]*\|[^|]*\|"
    r"|[ ]{0,3}\S[^\t]*?(?:\t|[ ]{3})[ \t]*\S"
)
# Lines that begin something, which may go on in the next line: items of lists, and quotations.
_BEGINS = re.compile(r"[ \t]*(?:[-*+•‣◦▪–]\s|\(?(?:\d{1,3}|[A-Za-z])[.)]\s|>)")


def sentence_ends(text: str) -> list[int]:
    """Find where sentences, paragraphs, headings, list items, table rows and lines of code end.

    Returns:
        Ascending places of what comes next, in characters.
    """
    return sorted({match.end() for match in _STOP.finditer(text)}.union(_block_ends(text)))


def split_sentences(text: str) -> list[str]:
    """Cut a text where sentences end; the parts together are the text."""
    cuts = sentence_ends(text)
    return [text[start:end] for start, end in pairwise([0, *cuts, len(text)])]


def line_ends(text: str) -> list[int]:
    """Find where lines end: the second best places to cut; the next line's first characters."""
    return [match.end() for match in _BREAK.finditer(text)]


def _block_ends(text: str) -> Iterator[int]:
    start, fenced, alone = 0, False, False
    for match in _BREAK.finditer(text):
        if start == 0:
            fenced, alone = _follow(text[: match.start()], fenced)
        start = match.end()
        end = text.find("\n", start)
        line = text[start : end if end >= 0 else len(text)]
        before, was_fenced = alone, fenced
        fenced, alone = _follow(line, fenced)
        if match["blank"] or before or alone or was_fenced or _BEGINS.match(line):
            yield start


def _follow(line: str, fenced: bool) -> tuple[bool, bool]:
    """Whether the lines after this one are code, and whether this one stands for itself."""
    if _FENCE.match(line):
        return not fenced, True
    return fenced, fenced or _ALONE.match(line) is not None
