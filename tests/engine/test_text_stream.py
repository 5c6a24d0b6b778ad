"""Streamed text: always valid, stop strings cut out wherever tokens end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations.engine.text_stream import TextStream
from tests.tiny import make_tokenizer

TOKENIZER = make_tokenizer()  # one token per byte: every multi-byte character spans tokens


def run(ids, stop=()):
    stream, pieces = TextStream(TOKENIZER, stop), []
    for token in ids:
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.finish())
    return pieces, stream.stopped


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_pieces_are_whole_characters_and_join_to_the_text(text):
    pieces, _ = run(TOKENIZER.encode(text, add_special_tokens=False))
    assert "".join(pieces) == text


@given(text=st.text("abé漢"), stop=st.lists(st.text("abé漢", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string(text, stop):
    pieces, stopped = run(TOKENIZER.encode(text, add_special_tokens=False), stop)
    joined = "".join(pieces)
    # Text is decided as it arrives, so the stop string that is complete first wins.
    ends = [text.find(s) + len(s) for s in stop if s in text]
    assert stopped == bool(ends)
    if not ends:
        assert joined == text
    else:
        seen = text[: min(ends)]
        assert joined == seen[: min(seen.find(s) for s in stop if s in seen)]


def test_text_that_may_begin_a_stop_string_is_held_back():
    stream = TextStream(TOKENIZER, ["END"])
    shown = [stream.push(token) for token in TOKENIZER.encode("aEbEN", add_special_tokens=False)]
    assert shown == ["a", "", "Eb", "", ""]
    assert stream.finish() == "EN"


def test_an_unfinished_character_is_not_shown():
    ids = TOKENIZER.encode("aé", add_special_tokens=False)[:-1]
    pieces, _ = run(ids)
    assert "".join(pieces) == "a"


def test_special_tokens_are_not_shown():
    pieces, _ = run(TOKENIZER.encode("a<|im_start|>b", add_special_tokens=False))
    assert "".join(pieces) == "ab"


@pytest.mark.parametrize("text", ["", " ", " leading and trailing "])
def test_spaces_survive(text):
    pieces, _ = run(TOKENIZER.encode(text, add_special_tokens=False))
    assert "".join(pieces) == text
