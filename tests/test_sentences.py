"""Where texts may be cut: where sentences and blocks end, not at lines that were only wrapped."""

import textwrap
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations.sentences import line_ends, sentence_ends

PROSE = "The store is in the second hall and its code is changed every week by the warden of it"


def pieces(text):
    ends = [0, *sentence_ends(text), len(text)]
    return [text[start:end] for start, end in pairwise(ends) if start < end]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ('It is 3.14. He said "no." Go!\nNow', ["It is 3.14. ", 'He said "no." ', "Go!\n", "Now"]),
        ("One\n\nTwo", ["One\n\n", "Two"]),
        ("One\n \t\n\nTwo", ["One\n \t\n\n", "Two"]),
        ("One\r\n\r\nTwo\r\nthree", ["One\r\n\r\n", "Two\r\nthree"]),
        ("यह है। वह है॥ हाँ", ["यह है। ", "वह है॥ ", "हाँ"]),
        ("他说：「好。」我走了！真的", ["他说：「好。」", "我走了！", "真的"]),
        ("คน", ["คน"]),
        ("هل؟ نعم", ["هل؟ ", "نعم"]),
        ("", []),
    ],
)
def test_sentences_end_after_quotes_brackets_and_white_space(text, sentences):
    assert pieces(text) == sentences


@pytest.mark.parametrize("width", [15, 40, 72])
def test_a_single_line_break_inside_a_paragraph_is_a_blank(width):
    wrapped = textwrap.fill(PROSE, width)
    assert "\n" in wrapped
    assert pieces(f"{wrapped}\n\n{wrapped}") == [f"{wrapped}\n\n", wrapped]
    assert line_ends(wrapped) == [n for n, c in enumerate(wrapped, start=1) if c == "\n"]


@pytest.mark.parametrize(
    "lines",
    [
        ["# Codes", "of the hall", "## Keys", "in the hall"],
        ["Codes", "=====", "of the hall"],
        ["What to bring:", "- ropes", "- a lamp", "* a map", "• a knife"],
        ["First:", "1. lift the lid", "2) turn the key", "(3) close it", "a) and go"],
        ["Prices", "| day | price |", "|---|---|", "| Monday | 3 |", "after the table"],
        ["Prices", "Monday | 3 | 4", "Tuesday | 5 | 6"],
        ["Monday\t3\t4", "Tuesday\t5\t6"],
        ["Monday      3   4", "Tuesday     5   6", "and that is all"],
        ["He said", "> come here"],
        ["run this", "    x = 1", "    y = 2", "or that"],
        ["run this", "```python", "x = 1", "y = 2", "```", "or that"],
        ["~~~", "x", "y"],
        ["over", "---", "under"],
    ],
)
def test_headings_items_rows_quotations_and_code_are_separate(lines):
    text = "\n".join(lines)
    assert [piece.rstrip("\n") for piece in pieces(text)] == lines


def test_an_item_and_a_quotation_go_on_in_the_next_line():
    assert pieces("- ropes and\n  a lamp\n- a map") == ["- ropes and\n  a lamp\n", "- a map"]
    assert pieces("1998 was\nwet and in\n1999. It") == ["1998 was\nwet and in\n1999. ", "It"]


@given(st.text("ab .!?\n\r\t-#|>`1。", max_size=60))
def test_ends_are_ascending_places_inside_the_text_and_blank_lines_always_are(text):
    for ends in (sentence_ends(text), line_ends(text)):
        assert ends == sorted(set(ends))
        assert all(0 < end <= len(text) for end in ends)
    for left, right in pairwise([0, *sentence_ends(text), len(text)]):
        assert "\n\n" not in text[left:right].rstrip()


UNITS = ["x", "x. ", ".", '."', "\n", "。", "。」", "। ", "\r\n", "x\ny", "   x", "\t", "| ", " \n"]


@pytest.mark.parametrize("unit", UNITS)
def test_a_megabyte_of_sentences_takes_seconds(unit):
    started = time.process_time()
    text = unit * (1_000_000 // len(unit))
    assert len(sentence_ends(text)) <= 1_000_001
    assert len(line_ends(text)) <= 1_000_001
    assert time.process_time() - started < 5
