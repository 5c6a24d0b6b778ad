"""Segments: sentences of a useful length, and their neighbourhoods."""

import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations.engine.segments import neighbourhoods, split_segments
from tests.tiny import make_input


def segments_of(texts, *, shortest, longest):
    """The tokenizer has one token per byte, so lengths are bytes of ASCII text."""
    tokens = make_input(texts).tokens
    segments = split_segments(tokens, shortest=shortest, longest=longest)
    return tokens, segments, [tokens.text[s.start : s.end] for s in segments]


def test_sentences_are_cut_where_the_next_one_starts():
    text = 'One is here. "Two is there!" Three?\n\nFour 4.5 is e.g.fine. Five'
    _, _, parts = segments_of([text], shortest=1, longest=99)
    assert parts == [
        "One is here. ",
        '"Two is there!" ',
        "Three?\n\n",
        "Four 4.5 is e.g.fine. ",
        "Five",
    ]


def test_sentences_of_scripts_without_spaces_are_cut():
    segments = split_segments(make_input(["你好。再见。"]).tokens, shortest=1, longest=99)
    assert [(s.start, s.end) for s in segments] == [(0, 9), (9, 18)]  # three bytes a character
    hindi = make_input(["नाव है। रस्सी लाओ।"]).tokens
    segments = split_segments(hindi, shortest=1, longest=99)
    assert [hindi.text_between(s.start, s.end) for s in segments] == ["नाव है। ", "रस्सी लाओ।"]


def test_short_sentences_are_put_together_within_the_limit():
    text = "A a. B b. " + "C" * 27 + ". D d. E e."
    _, _, parts = segments_of([text], shortest=8, longest=30)
    assert parts == ["A a. B b. ", "C" * 27 + ". ", "D d. E e."]


def test_a_short_sentence_stays_alone_where_the_next_one_is_too_long_to_join():
    _, _, parts = segments_of(["A a. " + "C" * 28 + ". D d."], shortest=8, longest=30)
    assert parts == ["A a. ", "C" * 28 + ". ", "D d."]


def test_a_long_sentence_is_cut_into_even_pieces():
    _, segments, _ = segments_of(["x" * 100], shortest=8, longest=30)
    assert [len(segment) for segment in segments] == [25, 25, 25, 25]


def test_hard_wrapped_text_is_cut_like_the_same_text_in_one_line():
    text = "The store is behind the second hall and open. The code is changed weekly by the warden."
    _, _, parts = segments_of([text], shortest=20, longest=60)
    _, _, wrapped = segments_of([textwrap.fill(text, 25)], shortest=20, longest=60)
    assert len(parts) == 2
    assert [part.replace("\n", " ") for part in wrapped] == parts


def test_a_sentence_that_is_too_long_is_cut_at_its_lines():
    rows = [f"{day} 10 20 30\n" for day in ("Mon", "Tue", "Wed", "Thu", "Fri")]
    _, _, parts = segments_of(["".join(rows)], shortest=20, longest=40)
    assert parts == [rows[0] + rows[1], rows[2] + rows[3], rows[4].rstrip()]


def test_code_that_is_not_closed_ends_with_its_document():
    wrapped = "one two\nthree four"
    _, _, parts = segments_of([f"```\n{wrapped}", wrapped], shortest=1, longest=99)
    assert parts == ["```\n", "one two\n", "three four\n\n", wrapped]


def test_segments_do_not_reach_over_documents():
    _, segments, parts = segments_of(["One.", "Two.", "Three."], shortest=50, longest=90)
    assert parts == ["One.\n\n", "Two.\n\n", "Three."]
    assert [segment.document for segment in segments] == [0, 1, 2]


@given(
    texts=st.lists(
        st.text("ab .!\n。é", min_size=1, max_size=80).filter(str.strip), min_size=1, max_size=4
    ),
    shortest=st.integers(1, 12),
    extra=st.integers(0, 20),
)
def test_segments_cover_every_token_once_and_keep_to_the_limit(texts, shortest, extra):
    longest = shortest + extra
    tokens, segments, _ = segments_of(texts, shortest=shortest, longest=longest)
    covered = [i for segment in segments for i in range(segment.start, segment.end)]
    assert covered == list(range(len(tokens)))
    for segment in segments:
        assert 1 <= len(segment) <= longest
        span = tokens.spans[segment.document]
        assert span.start <= segment.start < segment.end <= span.end


@pytest.mark.parametrize("reach", [0, 7, 15, 100])
def test_neighbourhoods_hold_what_lies_near_in_the_same_document(reach):
    _, segments, _ = segments_of(["One two. " * 6, "Three. " * 5], shortest=5, longest=20)
    for segment, (first, end) in zip(segments, neighbourhoods(segments, reach), strict=True):
        near = [
            index
            for index, other in enumerate(segments)
            if other.document == segment.document and abs(other.middle - segment.middle) <= reach
        ]
        assert list(range(first, end)) == near
        assert segment in segments[first:end]
