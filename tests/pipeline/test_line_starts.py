"""Patterns at the beginning of lines: the fast search against a regular expression."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finch_integrations.pipeline.line_starts import Lines, LineStart

PATTERN = r"[ \t#*>]*+(?:(?:the )?(?:question|вопрос|问题|user))[ \t*]*[:：][ \t*]*"
LABEL = LineStart(PATTERN, words="the question вопрос 问题 user")
RULE = LineStart(r"-{6,}[ \t]*(?=\n|\Z)", words="--", colon=False)
ANY = LineStart(r"[^\n:]*:")
WORDS = ["question", "QUESTION", "Вопрос", "вопрос", "问题", "the", "uſer", "User", "é", "日本"]
MARKS = [":", "：", "#", "**", ">", "------", "the ", " ", "# ", "\n", "\n", "\r\n", "\ud800"]
PIECES = st.sampled_from([*WORDS, *MARKS])


@settings(max_examples=500, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join), st.integers(0, 20))
@pytest.mark.parametrize(
    ("fast", "pattern"),
    [(LABEL, PATTERN), (RULE, r"-{6,}[ \t]*(?=\n|\Z)"), (ANY, r"[^\n:]*:")],
    ids=["label", "rule", "any"],
)
def test_the_lines_that_a_regular_expression_finds_are_found(fast, pattern, text, start):
    slow = re.compile(f"^{pattern}", re.IGNORECASE | re.MULTILINE)
    expected = [match.span() for match in slow.finditer(text) if match.start() >= start]
    assert [match.span() for match in fast.find(Lines(text), start)] == expected


def test_a_label_after_many_marks_is_found():
    for marks in ("#" * 300, " " * 300, "> " * 200):
        (found,) = LABEL.find(Lines(f"text\n{marks}Question: when?"))
        assert found.group().endswith("Question: ")
