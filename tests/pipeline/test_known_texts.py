"""Known texts in long ones: the fast search against a naive one."""

import html
import json
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from finch_integrations.pipeline.known_texts import KnownText, KnownTexts

WORDS = st.sampled_from(
    ["boat", "door", "é", "Ωmega", "<b>", '"said"', "a\\b", "\n", "\n\n", "日本"]
)
# Long enough to be sampled, and never equal by chance.
TEXTS = st.lists(st.lists(WORDS, min_size=30, max_size=80), min_size=1, max_size=6).map(
    lambda lists: [f"{n}{n}{n} {' '.join(words)} end{n}".strip() for n, words in enumerate(lists)]
)
SPELLINGS = {
    "as it is": str,
    "JSON": lambda text: json.dumps(text)[1:-1],
    "UTF-8 JSON": lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
    "Python": lambda text: repr(text)[1:-1],
    "XML": lambda text: html.escape(text, quote=False),
}
FILLERS = st.text(st.sampled_from("xyz .,\n"), max_size=60)


def find_known(haystack, texts):
    known = KnownTexts([KnownText(text) for text in texts], expected=[True] * len(texts))
    return known.find(haystack)


def naive(haystack, texts):
    """Every place of every spelling; a text is looked for character by character."""
    found = set()
    for number, text in enumerate(texts):
        for write in SPELLINGS.values():
            spelled = write(text)
            for start in range(len(haystack) - len(spelled) + 1):
                if haystack[start : start + len(spelled)] == spelled:
                    found.add((start, start + len(spelled), number))
    return found


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.data())
def test_whole_texts_are_found_where_a_naive_search_finds_them(texts, data):
    pieces = []
    for _ in range(data.draw(st.integers(0, 5))):
        pieces.append(data.draw(FILLERS))
        write = SPELLINGS[data.draw(st.sampled_from(sorted(SPELLINGS)))]
        pieces.append(write(data.draw(st.sampled_from(texts))))
    haystack = "".join([*pieces, data.draw(FILLERS)])
    matches = find_known(haystack, texts)
    assert {(m.start, m.end, m.number) for m in matches if m.whole} == naive(haystack, texts)
    assert all(m.end - m.start >= 64 for m in matches if not m.whole)
    ends = [(m.start, m.end) for m in matches]
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))


@settings(max_examples=100, deadline=None)
@given(TEXTS, st.sampled_from(["", " ", "\n", "\t\t", "\n    "]), FILLERS)
def test_other_white_space_is_the_same_text(texts, space, filler):
    text = texts[0]
    written = space.join(text.split())
    assume(len(written) >= 64)  # shorter ones are only taken where they stand by themselves
    haystack = f"{filler} ~ {written} ~ {filler}"
    (match,) = [m for m in find_known(haystack, [text]) if m.whole]
    assert haystack[match.start : match.end] == written


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(1000, 9999), min_size=80, max_size=120, unique=True),
    st.integers(64, 300),
    st.booleans(),
    FILLERS,
)
def test_a_text_that_is_cut_off_is_found_as_far_as_it_goes(numbers, length, start, filler):
    text = " é ".join(map(str, numbers))
    piece = (text[:length] if start else text[-length:]).strip()
    haystack = f"{filler}~{piece}~{filler}"
    matches = find_known(haystack, [text])
    # A piece is certain to have a sample if it is long enough for one at any place.
    if len(piece.encode()) >= 64 + 47:
        (match,) = matches
        assert not match.whole
    assert [haystack[m.start : m.end] for m in matches] in ([], [piece])


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.data())
def test_texts_are_found_again_whatever_was_searched_before(sets, data):
    """What is made ready for one prompt is used for the next one, with other escapes."""
    texts = sets[0]
    known = KnownTexts([KnownText(text) for text in texts], expected=[True] * len(texts))
    for _ in range(4):
        write = SPELLINGS[data.draw(st.sampled_from(sorted(SPELLINGS)))]
        shown = data.draw(st.lists(st.sampled_from(texts), unique=True))
        haystack = " ~ ".join(map(write, shown))
        assert {(m.start, m.end, m.number) for m in known.find(haystack) if m.whole} == naive(
            haystack, texts
        )


def test_threads_that_look_for_the_same_new_texts_find_them():
    texts = [f"{number} {'é and the boat leaves. ' * 9}{number}" for number in range(200)]
    for _ in range(5):
        known = [KnownText(text) for text in texts]
        with ThreadPoolExecutor(4) as pool:
            searches = [
                pool.submit(KnownTexts(known, expected=[True] * 200).find, "\n\n".join(texts))
                for _ in range(8)
            ]
        for search in searches:
            assert [match.number for match in search.result()] == list(range(200))


def test_a_text_is_found_as_xml_where_nothing_else_has_escapes():
    text = "Ann & Bob <in> the café, " * 5
    haystack = f"~{html.escape(text.strip(), quote=False)}~"
    (match,) = find_known(haystack, [text])
    assert (match.start, match.end, match.whole) == (1, len(haystack) - 1, True)
    assert match.escaped


def test_thousands_of_texts_that_begin_alike_are_told_apart():
    texts = [
        f"{'The same beginning of all. ' * 4}{n} {'and the same end. ' * 4}" for n in range(300)
    ]
    haystack = "\n\n".join(texts[::7])
    matches = find_known(haystack, texts)
    assert [m.number for m in matches if m.whole] == list(range(0, 300, 7))


def test_a_text_at_the_very_end_is_found_whatever_its_length():
    for length in range(30, 130):
        text = "".join(chr(97 + n * 7 % 26) for n in range(length))
        for filler in range(33):
            haystack = f"{'.' * filler}\n{text}"
            matches = find_known(haystack, [text])
            assert [(m.start, m.end, m.whole) for m in matches] == [
                (filler + 1, len(haystack), True)
            ]


def test_the_end_of_a_text_is_found_at_the_very_end():
    text = " ".join(map(str, range(1000, 1100)))
    for filler in range(33):
        haystack = "." * filler + text[-150:]
        (match,) = find_known(haystack, [text])
        assert (match.end, match.whole) == (len(haystack), False)
