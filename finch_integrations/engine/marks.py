"""The marks of a model's chat format: what no text but the chat template's may write.

They are found out per tokenizer and chat template:

    tokens  added tokens: all special ones, others where they look like tags (`<think>`), but not
            those of HTML, which some tokenizers have for web pages
    texts   what the chat template writes around and between turns as plain text: `[/INST]`,
            `<|user|>` and `### Response:` where these are no tokens
"""

import re
import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import jinja2

_TAG = re.compile(r"""<{1,2}[|｜/]*[^\s<>{}"'=]{1,60}>{1,2}|\[/?[A-Za-z_]{2,40}\]""")
_LABEL = re.compile(r"(?:#{1,6} ?)?\b[A-Za-z]+(?: [A-Za-z]+)?:(?=\s*$)")
_HTML_NAMES = """
    a abbr b big blockquote body br caption cite code col dd del details div dl dt em figcaption
    figure footer h1 h2 h3 h4 h5 h6 head header hr html i img ins kbd li main mark nav ol p pre q s
    samp section small span strike strong sub summary sup table tbody td tfoot th thead title tr tt
    u ul var
"""
_HTML = frozenset(f"<{slash}{name}>" for slash in ("", "/") for name in _HTML_NAMES.split())
# Chats whose rendering shows what is written around turns; templates refuse some of them.
_CHATS = (
    ("user",),
    ("user", "assistant", "user"),
    ("system", "user"),
    ("user", "assistant", "tool"),
)


@dataclass(frozen=True, slots=True)
class Spellings:
    """Strings to find in a text, overlapping ones too.

    Attributes:
        firsts: Finds their first characters.
        by_first: First character -> the strings, and their lengths.
    """

    firsts: re.Pattern[str]
    by_first: Mapping[str, tuple[frozenset[str], tuple[int, ...]]]

    @classmethod
    def of(cls, strings: Iterable[str]) -> "Spellings":
        """Prepare a search for strings of at least two characters."""
        groups: dict[str, set[str]] = defaultdict(set)
        for string in strings:
            if len(string) > 1:
                groups[string[0]].add(string)
        # Not a pattern of them all: vocabularies may have thousands.
        anything = "|".join(map(re.escape, sorted(groups)))
        return cls(
            re.compile(anything or "(?!)"),
            {
                first: (frozenset(group), tuple(sorted(set(map(len, group)))))
                for first, group in groups.items()
            },
        )

    def find(self, text: str) -> Iterator[tuple[int, str]]:
        """Yield where each one starts, and which it is."""
        for match in self.firsts.finditer(text):
            start = match.start()
            strings, lengths = self.by_first[match[0]]
            for length in lengths:
                if (string := text[start : start + length]) in strings:
                    yield start, string


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of a tokenizer and its chat template.

    Attributes:
        special: The special tokens.
        tokens: All tokens that are marks.
        texts: The marks that are plain text.
        special_ids: The ids of `special`.
        ids: The ids of `tokens`.
        fold: For `str.translate`: what the tokenizer takes for a mark's character, as `ｉ` for `i`.
        disguised: Whether the tokenizer changes texts before it looks for tokens.
    """

    special: Spellings
    tokens: Spellings
    texts: Spellings
    special_ids: frozenset[int]
    ids: frozenset[int]
    fold: Mapping[int, str]
    disguised: bool


_known: "WeakKeyDictionary[Any, tuple[str, Marks]]" = WeakKeyDictionary()


def find_marks(tokenizer: Any) -> Marks:
    """Find out the marks of a tokenizer and its chat template; remembered for the tokenizer."""
    template = tokenizer.chat_template or ""
    if not isinstance(template, str):
        template = "\n".join(map(str, template.values()))
    known = _known.get(tokenizer)
    if known is None or known[0] != template:
        known = _known[tokenizer] = template, _find(tokenizer, template)
    return known[1]


def _find(tokenizer: Any, template: str) -> Marks:
    added = tokenizer.added_tokens_decoder
    written = set(_written(tokenizer, template)) if template else set()
    special = {id: token for id, token in added.items() if token.special}
    tokens = {id: token for id, token in added.items() if id in special or _is_mark(token, written)}
    spelled = {token.content for token in tokens.values()}
    texts = written - spelled - _HTML
    fold = _fold(tokenizer, set("".join(spelled | texts)))

    def spellings(strings: Iterable[str]) -> Spellings:
        return Spellings.of(string.translate(fold) for string in strings)

    return Marks(
        special=spellings(token.content for token in special.values()),
        tokens=spellings(spelled),
        texts=spellings(texts),
        special_ids=frozenset(special),
        ids=frozenset(tokens),
        fold=fold,
        disguised=_normalizer(tokenizer) is not None
        and any(token.normalized for token in tokens.values()),
    )


def _is_mark(token: Any, written: set[str]) -> bool:
    spelling = token.content
    tag = _TAG.fullmatch(spelling) is not None and spelling.lower() not in _HTML
    return tag or spelling in written


def _written(tokenizer: Any, template: str) -> Iterator[str]:
    """Tags in the template's texts, tags and labels that it makes around turns."""
    try:
        pieces = [
            text
            for _, kind, text in jinja2.Environment().lex(template)
            if kind in ("data", "string")
        ]
    except jinja2.TemplateError:
        pieces = []
    for piece in pieces:
        yield from _TAG.findall(piece)
    for roles in _CHATS:
        for gap in _gaps(tokenizer, roles):
            tags = _TAG.findall(gap)
            yield from tags or _LABEL.findall(gap)


def _gaps(tokenizer: Any, roles: tuple[str, ...]) -> list[str]:
    """What the template writes before, between and after turns."""
    slot = f"slot{secrets.token_hex(8)}"
    chat = [{"role": role, "content": slot} for role in roles]
    try:
        rendered = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    except Exception:  # templates fail in many ways on what they do not know
        return []
    return str(rendered).split(slot)


def _normalizer(tokenizer: Any) -> Any:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return getattr(backend, "normalizer", None)


def _fold(tokenizer: Any, characters: set[str]) -> dict[int, str]:
    """Map every character that the tokenizer changes into one of a mark's."""
    normalizer = _normalizer(tokenizer)
    if normalizer is None:
        return {}
    before = normalizer.normalize_str("a")  # some put a blank at a text's start

    def normalized(character: str) -> str:
        return str(normalizer.normalize_str("a" + character)).removeprefix(before)

    alike = {_plain(character) for character in characters}
    candidates = (chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000)
    return {
        ord(character): changed
        for character in candidates
        if _plain(character) in alike
        and len(changed := normalized(character)) == 1
        and changed != character
    }


def _plain(character: str) -> str:
    return unicodedata.normalize("NFKC", character).casefold()
