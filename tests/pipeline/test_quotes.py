"""Finding where an answer repeats its documents."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finch_integrations import Document
from finch_integrations.pipeline.quotes import MIN_WORDS, find_quotes

DOCUMENTS = [
    Document("The boat leaves at nine. Bring warm clothes and a flask of tea."),
    Document("The door code of the chemical store is 7316. Tell nobody."),
]


def quoted(answer, documents=DOCUMENTS):
    return [
        (
            answer[q.start : q.end],
            q.document,
            documents[q.document].text[q.source_start : q.source_end],
        )
        for q in find_quotes(answer, documents)
    ]


def test_longest_runs_are_found_with_their_places():
    answer = "It says: the door code of the CHEMICAL  store is 7316! Bring warm clothes and gum."
    assert quoted(answer) == [
        (
            "the door code of the CHEMICAL  store is 7316",
            1,
            "The door code of the chemical store is 7316",
        ),
        ("Bring warm clothes and", 0, "Bring warm clothes and"),
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("7316.", [("7316", 1, "7316")]),
        ("is 7316", [("is 7316", 1, "is 7316")]),
        ("code 7316", []),  # not next to each other in the document
        ("boat", []),  # a word without a number says nothing about where it is from
        ("of the store door", []),
        ("", []),
        ("...", []),
    ],
)
def test_short_answers_count_only_with_a_number(answer, expected):
    assert quoted(answer) == expected


def test_a_short_answer_that_stands_in_two_documents_is_no_quote():
    assert quoted("42", [Document("It is 42."), Document("Not 42.")]) == []


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("化学药品库的门密码是7316。", "注意：化学药品库的门密码是7316，请保密。",
         "化学药品库的门密码是7316"),
        ("門の暗証番号は金庫の中", "門の暗証番号は金庫にある。", "門の暗証番号は金庫"),
        ("化学药品库的门", "化学药品库的门", None),  # seven characters
        ("密码7316", "密码7316", "密码7316"),  # a short one with a number
        ("รหัสประตูของห้องเก็บสารเคมี", "จำรหัสประตูของห้องเก็บสารเคมีไว้",
         "รหัสประตูของห้องเก็บสารเคมี"),
        ("รหัสประตูห้อง", "รหัสประตูห้อง", None),  # thirteen letters and signs: three words
        ("हिन्दी भाषा", "हिन्दी भाषा", None),  # two words
        ("लाल नाव आज रात आएगी", "वह लाल नाव आज रात आएगी।", "लाल नाव आज रात आएगी"),
        ("Le cafe\u0301 est déjà ouvert", "LE CAFÉ est déjà ouvert.", "LE CAFÉ est déjà ouvert"),
        ("the red boat", "the red boat", None),
        ("the GPU的显存是", "see the GPU的显存是多少", "the GPU的显存是"),  # 2 words and 4
    ],
)  # fmt: skip
def test_word_for_word_answers_are_quotes_in_every_script(answer, text, expected):
    found = [source for _, _, source in quoted(answer, [Document(text)])]
    assert found == ([] if expected is None else [expected])


def test_of_a_word_only_its_whole_counts():
    assert quoted("हिन्दी 7", [Document("हिन्दू 7"), Document("हिन्दी 7")]) == [
        ("हिन्दी 7", 1, "हिन्दी 7")
    ]


@pytest.mark.parametrize("unit", ["a b ", "the red boat leaks ", "门密码", "ที่นี่"])
def test_a_megabyte_that_repeats_itself_is_searched_within_seconds(unit):
    text = unit * (1_000_000 // len(unit.encode()))
    started = time.process_time()
    (quote,) = find_quotes(text[:2000], [Document("no"), Document(text)])
    assert time.process_time() - started < 10
    assert (quote.start, quote.source_start) == (0, 0)
    assert quote.end == quote.source_end


def test_no_documents_no_quotes():
    assert find_quotes("the door code of the store", []) == ()


WORDS = st.lists(st.sampled_from(["a", "b", "C", "7", ",", "\n"]), max_size=30).map(" ".join)


@given(answer=WORDS, texts=st.lists(WORDS, max_size=3))
def test_quotes_are_equal_on_both_sides_and_do_not_overlap(answer, texts):
    documents = [Document(text) for text in texts]
    words = lambda text: text.lower().replace(",", " ").split()  # noqa: E731
    position = 0
    for quote in find_quotes(answer, documents):
        said = words(answer[quote.start : quote.end])
        assert said == words(texts[quote.document][quote.source_start : quote.source_end])
        assert len(said) >= min(MIN_WORDS, len(words(answer)))
        assert quote.start >= position
        position = quote.end
