"""Marks in a text that comes in pieces are those of the whole text."""

from hypothesis import given
from hypothesis import strategies as st

from finch_integrations import Document
from finch_integrations.pipeline.quotes import find_quotes
from finch_integrations.serve.marking import MarkedText, with_marks

DOCUMENTS = [
    Document("The door code is 4711 until noon. Ask the guard for a new one after that."),
    Document("Soup is served at one o'clock sharp. The door code is secret to all guests."),
]
WORDS = sorted({word for document in DOCUMENTS for word in document.text.split()})


def marked(pieces):
    text = MarkedText(DOCUMENTS)
    return [*(text.push(piece) for piece in pieces), text.finish()]


@given(
    st.lists(st.sampled_from([*WORDS, "and", "so.", "\n", "4711.", "是"]), max_size=40), st.data()
)
def test_pieces_have_the_marks_of_the_whole(words, data):
    text = " ".join(words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(marked(pieces)) == with_marks(text, find_quotes(text, DOCUMENTS))[0]


@given(st.lists(st.integers(0, 60), min_size=1, max_size=3), st.sampled_from([0, 1]))
def test_quotes_that_go_over_several_sentences_have_one_mark(cuts, number):
    text = f"I read: {DOCUMENTS[number].text} That is all."
    cuts = sorted(cuts)
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert "".join(marked(pieces)) == with_marks(text, find_quotes(text, DOCUMENTS))[0]


def test_what_no_further_word_changes_comes_at_once():
    pieces = marked(["The door code is 4711 until noon, ", "so be quick there, please. ", "Bye."])
    assert pieces[1].startswith("The door code is 4711 until noon [1], so")
