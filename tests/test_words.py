"""Where words are, in several scripts. BM25's words: test_bm25.py."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations.words import word_spans


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The door's CODE, 4711!", ["the", "door", "s", "code", "4711"]),
        ("snake_case Straße", ["snake", "case", "strasse"]),
        ("cafe\u0301 café", ["café", "café"]),
        ("हिन्दी भाषा", ["हिन्दी", "भाषा"]),
        ("门密码是7316。", ["门", "密", "码", "是", "7316"]),
        ("ＡＢＣ店 ｶﾅ カナ", ["abc", "店", "カ", "ナ", "カ", "ナ"]),
        ("ที่นี่", ["ที่", "นี่"]),
        ("한국어 문서", ["한국어", "문서"]),
        ("?!", []),
    ],
)
def test_words_are_found_whatever_the_script(text, expected):
    assert [word.text for word in word_spans(text)] == expected


def test_characters_without_spaces_are_parts_of_words():
    assert [word.size for word in word_spans("door 店カ ที่a 9")] == [1, 0.5, 0.5, 0.25, 1, 1]


@given(st.text(alphabet="aB9é\u0301 .店カที่हि\n_𠀀", max_size=30))
def test_places_are_in_order_and_hold_every_letter(text):
    position = 0
    for word in word_spans(text):
        assert position <= word.start < word.end
        assert not any(c.isalnum() for c in text[position : word.start])
        position = word.end
    assert not any(c.isalnum() for c in text[position:])
