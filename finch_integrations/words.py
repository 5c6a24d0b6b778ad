"""Texts to the words that BM25 counts."""

import re
import unicodedata

# Vowel signs and accents belong to the word they stand in, which \w does not know.
_MARKS = "".join(
    chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code)).startswith("M")
)
_WORD = re.compile(rf"(?:[^\W_]|[{_MARKS}])+")
# Scripts written without spaces: Thai, Lao, Myanmar, Khmer, Japanese, Chinese.
_UNSPACED = re.compile(
    "[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff]+"
)


def words(text: str) -> list[str]:
    """Split a text into words: runs of letters and digits, case folded, without plural s.

    Runs of a script without spaces give their characters and pairs of neighbours.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
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
    """Drop a plural's ending; what looks like one elsewhere is dropped in every text alike."""
    if len(word) < 4 or not word.endswith("s") or word.endswith(("ss", "us", "is")):
        return word
    return word[:-3] + "y" if word.endswith("ies") else word[:-1]
