"""Documents shortened to passages of their own text."""

import asyncio

import pytest

from finch_integrations import ConfigurationError, Document
from finch_integrations.pipeline.shared_engine import SharedEngine
from finch_integrations.pipeline.shorten import GAP, shorten

FILLER = "Nothing of that kind is said in here today. "
DOCUMENTS = [
    Document(FILLER * 3 + "The lamp oil stands in the red shed.\n\n" + FILLER * 6, id="a"),
    Document(FILLER * 5),
    Document("The oil for the lamp is by the red shed door too, they say.", title="T"),
]
QUESTION = "Where is the lamp oil: in the red shed?"


def test_what_is_left_is_the_passages_of_extract_in_order(engine):
    options = {"target_size": 260}
    shortened = shorten(engine, DOCUMENTS, QUESTION, options)
    excerpts = engine.extract(DOCUMENTS, QUESTION, **options)
    assert tuple(e for part in shortened for e in part.excerpts) == excerpts
    assert [part.index for part in shortened] == sorted({p.index for p in shortened})
    for part in shortened:
        text = DOCUMENTS[part.index].text
        position = 0
        for piece in part.text.split(GAP):  # every piece is in the text, in order
            assert text.find(piece, position) >= position
            position = text.find(piece, position) + len(piece)
        kept = "".join("".join(e.text.split()) for e in part.excerpts)
        assert "".join(part.text.replace(GAP, "").split()) == kept


def test_with_room_for_everything_nothing_changes(engine):
    shortened = shorten(engine, DOCUMENTS, QUESTION, {"target_size": 5000})
    assert [part.text for part in shortened] == [document.text.strip() for document in DOCUMENTS]


def test_a_handle_shortens_in_the_worker_with_and_without_an_event_loop(engine):
    handle = SharedEngine(engine)
    expected = shorten(engine, DOCUMENTS, QUESTION, {"target_size": 100})
    assert handle.shorten(DOCUMENTS, QUESTION, {"target_size": 100}) == expected
    result = asyncio.run(handle.ashorten(DOCUMENTS, QUESTION, {"target_size": 100}))
    assert result == expected
    with pytest.raises(ConfigurationError, match="target_size"):
        handle.shorten(DOCUMENTS, QUESTION, {"target_size": 0})
