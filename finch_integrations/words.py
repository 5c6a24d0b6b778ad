"""Where words are: the only file that knows scripts."""

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

# Vowel signs and accents belong to the word they are in, which \w does not know.
_MARKS = "".join(
    chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M")
)
_WORD = re.compile(rf"(?:[^\W_]|[{_MARKS}])+")
_ASCII_WORD = re.compile("[a-z0-9]+")
# Scripts written without spaces: Chinese and Japanese, whose characters are syllables or more …
_SYLLABLES = (
    "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
# … and Thai, Lao, Myanmar and Khmer, whose characters are letters.
_LETTERS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
_UNSPACED = re.compile(f"[{_SYLLABLES}{_LETTERS}]+")
_UNIT = re.compile(
    f"(?P<syllable>[{_SYLLABLES}])[{_MARKS}]*|(?P<letter>[{_LETTERS}])[{_MARKS}]*"
    f"|[^{_SYLLABLES}{_LETTERS}]+"
)
# They end sentences and nothing else.
FULL_STOPS = "。！？।॥။"


class Word(NamedTuple):
    """A word and its place in a text.

    Attributes:
        text: In a form that does not depend on case or encoding.
        start: Its first character.
        end: After its last one.
        size: How much of a word it is: less than 1 for a character of a script without spaces.
    """

    text: str
    start: int
    end: int
    size: float


def word_spans(text: str) -> Iterator[Word]:
    """Find a text's words; in scripts without spaces, where these are unknown, its characters.

    A Chinese or Japanese word has two characters on average, one of Thai, Lao, Myanmar or Khmer
    about four with the signs above and below not counted.
    """
    for run in _WORD.finditer(text):
        if run[0].isascii():
            yield Word(run[0].lower(), run.start(), run.end(), 1)
            continue
        for unit in _UNIT.finditer(text, run.start(), run.end()):
            size = 1 / 2 if unit["syllable"] else 1 / 4 if unit["letter"] else 1
            folded = unicodedata.normalize("NFKC", unit[0]).casefold()
            yield Word(folded, unit.start(), unit.end(), size)


def words(text: str) -> list[str]:
    """Split a text into words: runs of letters and digits, case folded, without plural s.

    Runs of a script without spaces give their characters and pairs of neighbours.
    """
    if text.isascii():  # the same, in a third of the time
        return [_singular(word) for word in _ASCII_WORD.findall(text.lower())]
    folded = unicodedata.normalize("NFKC", text).casefold()
    if not _UNSPACED.search(folded):
        return [_singular(word) for word in _WORD.findall(folded)]
    found: list[str] = []
    for run in _WORD.findall(folded):
        if not _UNSPACED.search(run):
            found.append(_singular(run))
            continue
        found += [word for word in _UNSPACED.split(run) if word]
        for part in _UNSPACED.findall(run):
            found += part
            found += [part[at : at + 2] for at in range(len(part) - 1)]
    return found


def _singular(word: str) -> str:
    """Drop a plural's ending; what only looks like one is dropped in every text in the same way."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    return word[:-3] + "y" if word.endswith("ies") else word[:-1]
