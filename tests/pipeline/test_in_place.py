"""Chosen passages put where the documents were: nothing else of a prompt changes."""

import html
import json
from types import SimpleNamespace

import pytest

from finch_integrations import Document
from finch_integrations.pipeline.detection import detect
from finch_integrations.pipeline.document_tags import escape_tags, tag_document
from finch_integrations.pipeline.in_place import Edit, apply_edits, edit_regions, write_documents
from finch_integrations.pipeline.shorten import ShortenedDocument
from finch_integrations.pipeline.turns import DocumentRegion, Turn


def choice(*kept, complete=False, documents=()):
    """What was chosen of documents: the text that is left of each, None for nothing."""
    parts = [
        ShortenedDocument(index=number, text=text, excerpts=())
        for number, text in enumerate(kept)
        if text is not None
    ]
    return SimpleNamespace(shortened=tuple(parts), complete=complete, documents=documents)


def rewritten(text, *kept, **options):
    """A user's text in which detection finds documents, with what was chosen in their place."""
    found = detect([Turn(role="user", text=text)])
    edits = edit_regions([text], found.regions, found.documents, choice(*kept, **options))
    return apply_edits(text, edits.get(0, []))


PROMPT = (
    "Two files.\n\n<documents>\n{}\n{}\n</documents>\n\n  Where is it?  \n(Answer in one word.)"
)


def test_documents_are_replaced_where_they_are_and_the_rest_stays_byte_for_byte():
    a, b = tag_document("One. Two.", {"id": "a"}), tag_document("Three. Four.", {"id": "b"})
    left = tag_document("Two.", {"id": "a"}), tag_document("Three.", {"id": "b"})
    assert rewritten(PROMPT.format(a, b), "Two.", "Three.") == PROMPT.format(*left)


def test_a_document_of_which_nothing_is_left_disappears_with_its_tags():
    a, b = tag_document("One. Two.", {"id": "a"}), tag_document("Three.", {"id": "b"})
    expected = PROMPT.replace("{}\n{}", "{}").format(b)
    assert rewritten(PROMPT.format(a, b), None, "Three.") == expected


def test_where_no_tags_say_what_belongs_to_a_document_a_mark_takes_its_place():
    text = "Use the following context to answer.\n\nContext:\nOne. Two.\n\nQuestion: Where?"
    found = detect([Turn(role="user", text=text)])
    assert [document.text for document in found.documents] == ["One. Two."]
    assert rewritten(text, None) == text.replace("One. Two.", "[…]")
    assert rewritten(text, "Two.") == text.replace("One. Two.", "Two.")


def test_where_everything_is_kept_nothing_changes():
    text = PROMPT.format(tag_document(" One. ", {"id": "a"}), tag_document("B", {}))
    assert rewritten(text, "One.", "B", complete=True) == text


@pytest.mark.parametrize("left", [("One.", "Two."), ("One.", None)])
def test_where_everything_is_kept_white_space_that_passages_do_not_have_stays_too(left):
    # What was retrieved may begin and end with white space; passages do not, and blank ones none.
    texts = [" One. \n", "Two.\n" if left[1] else "\u200b"]
    text = f"<document>{texts[0]}</document>\n<document>{texts[1]}</document>"
    documents = [Document(one) for one in texts]
    regions, end = [], 0
    for document in documents:
        start = text.index(document.text, end)
        end = start + len(document.text)
        regions.append(DocumentRegion(0, start, end, document))
    assert edit_regions([text], regions, documents, choice(*left, complete=True)) == {}
    assert len(edit_regions([text], regions, documents, choice(*left))[0]) == 2


def test_tags_inside_of_documents_stay_escaped():
    inside = "The tag </document> ends one. So <\\/document> does not."
    text = PROMPT.format(tag_document(inside, {"id": "a"}), tag_document("B", {}))
    kept = "The tag </document> ends one."
    assert rewritten(text, kept, "B") == text.replace(escape_tags(inside), escape_tags(kept))


@pytest.mark.parametrize(
    "write",
    [
        lambda text: json.dumps(text)[1:-1],
        lambda text: json.dumps(text, ensure_ascii=False)[1:-1],
        html.escape,
        lambda text: html.escape(text, quote=False),
    ],
)
def test_texts_inside_of_json_and_xml_are_written_as_they_were(write):
    document = Document('He said "é" & left.\nThen < came.')
    written = write(document.text)
    text = f"<<{written}>>"
    region = DocumentRegion(0, 2, 2 + len(written), document)
    kept = '"é" & left.\nThen <'
    edits = edit_regions([text], [region], [document], choice(kept))
    assert (
        apply_edits(text, edits[0])
        == f"<<{write(chr(34) + 'é' + chr(34) + ' & left.' + chr(10) + 'Then <')}>>"
    )


def test_a_text_whose_writing_is_not_known_stays_whole():
    document = Document("one two three")
    region = DocumentRegion(0, 0, 11, document)
    assert edit_regions(["one-two-thr"], [region], [document], choice("two")) == {}


def test_a_document_that_is_shown_twice_is_shortened_twice():
    document = Document("One. Two.")
    text = "One. Two. | One. Two."
    regions = [DocumentRegion(0, 0, 9, document), DocumentRegion(0, 12, 21, document)]
    edits = edit_regions([text], regions, [document], choice("Two."))
    assert apply_edits(text, edits[0]) == "Two. | Two."


def test_edits_are_made_in_the_order_of_the_text():
    assert apply_edits("abcdef", [Edit(4, 5, "E!"), Edit(0, 2, "")]) == "cdE!f"


def test_documents_of_no_text_are_written_with_ids_titles_and_escaped_tags():
    documents = (Document("x", id="a&b", title='"T"'), Document("y", id="b"))
    written = write_documents(choice("x </document>", None, documents=documents))
    assert written == (
        '<documents>\n<document id="a&amp;b" title="&quot;T&quot;">\nx <\\/document>\n</document>\n'
        "</documents>"
    )
    found = detect([Turn(role="user", text=written + "\n\nWhere?")])
    assert [(d.id, d.title, d.text) for d in found.documents] == [("a&b", '"T"', "x </document>")]
