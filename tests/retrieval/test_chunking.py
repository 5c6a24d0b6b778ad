"""Where documents are cut, and the headings that places stand under."""

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations.retrieval.chunking import find_headings, heading_at, split_text

PIECES = st.sampled_from(["Word", " ", ". ", "\n", "\n# Heading\n", "日本。", "x" * 30, "```\n"])


def chunks(text, size):
    return [text[start:end] for start, end in split_text(text, size)]


@given(st.lists(PIECES, max_size=40).map("".join), st.integers(1, 50))
def test_chunks_hold_every_character_but_white_space_and_none_twice(text, size):
    spans = split_text(text, size)
    assert all(0 < end - start <= size for start, end in spans)
    assert all(left[1] <= right[0] for left, right in pairwise(spans))
    kept = "".join(text[start:end] for start, end in spans)
    assert "".join(kept.split()) == "".join(text.split())
    assert all(chunk == chunk.strip() for chunk in chunks(text, size))


def test_a_short_text_is_one_chunk_and_a_blank_one_none():
    assert chunks("  One. Two.\n", 100) == ["One. Two."]
    assert chunks(" \n ", 100) == []


def test_cuts_fall_on_sentence_ends_and_make_even_pieces():
    text = "One two three. " * 8
    assert chunks(text, 100) == [("One two three. " * 4).strip()] * 2


def test_without_sentences_cuts_fall_on_line_breaks():
    rows = [f"row {number} of the list\n" for number in range(6)]
    assert chunks("".join(rows), 50) == ["".join(rows[n : n + 2]).strip() for n in (0, 2, 4)]


def test_hard_wrapped_sentences_stay_whole():
    text = "The store is behind the hall\nand is open. The code is changed\nweekly by the warden."
    assert chunks(text, 60) == [text[: text.index("The code")].strip(), text[text.index("The c") :]]


def test_without_lines_cuts_fall_on_white_space_and_without_that_anywhere():
    assert chunks("alpha beta gamma", 10) == ["alpha", "beta gamma"]
    assert chunks("x" * 25, 10) == ["x" * 8, "x" * 8, "x" * 9]


def test_sections_are_cut_apart_unless_they_are_short():
    text = "# Boats\n" + "Red boats. " * 5 + "\n## Keys\nIn the hall.\n## Codes\n4711."
    assert chunks(text, 100) == [
        text[: text.index("\n## Keys")].strip(),
        text[text.index("## Keys") :],
    ]


def test_headings_are_found_outside_of_code():
    text = "Intro\n# One\ntext\n```\n# comment\n```\n## Two ##\nmore #3\n#hashtag\n####### seven"
    headings = find_headings(text)
    assert [heading.text for heading in headings] == ["One", "Two"]
    assert heading_at(headings, 0) is None
    assert heading_at(headings, text.index("# One")) == "One"
    assert heading_at(headings, text.index("comment")) == "One"
    assert heading_at(headings, text.index("more")) == "Two"


@pytest.mark.parametrize("unit", ["x", "x ", "x. ", "# x\n", "```\n", "日本。"])
def test_ten_megabytes_are_cut_within_seconds(unit):
    text = unit * (10_000_000 // len(unit))
    started = time.perf_counter()
    spans = split_text(text, 1000)
    assert time.perf_counter() - started < 60
    assert len(spans) >= 10_000
