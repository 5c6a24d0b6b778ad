"""Documents of several kinds; the checks of their texts and ids are in engine/test_prompt.py."""

import pytest

from finch_integrations import Document, InvalidInputError
from finch_integrations.documents import DocumentReader, prepare_documents, read_flat_fields


class Page:
    """A framework's own document, which can be iterated over."""

    def __init__(self, content):
        self.content = content

    def __iter__(self):
        yield "content", self.content


READER = DocumentReader(
    convert=lambda item: Document(item.content) if isinstance(item, Page) else None,
    one="a Page, a Document",
    many="pages or documents",
    if_empty="{name} is an empty list. Leave it out",
)
FLAT = DocumentReader(read_fields=read_flat_fields, skip_blank=True)


def test_every_kind_becomes_a_document():
    ours = Document("d", id="x")
    items = [Page("a"), "b", {"text": "c", "id": "i"}, ours]
    expected = (Document("a"), Document("b"), Document("c", id="i"), ours)
    assert READER.read(items) == expected
    assert READER.read(iter(items)) == expected


def test_a_mappings_title_may_be_in_its_metadata():
    metadata = {"title": "T"}
    item = {"text": "a", "metadata": metadata}
    assert FLAT.read([item]) == (Document("a", title="T", metadata=metadata),)
    assert FLAT.read([{**item, "title": "U"}])[0].title == "U"
    assert prepare_documents([item])[0].title is None
    assert READER.read([{"text": "a", "metadata": None}]) == (Document("a"),)


@pytest.mark.parametrize(
    ("item", "document"),
    [
        ({"text": "a", "source": "b.md"}, Document("a", metadata={"source": "b.md"})),
        ({"snippet": "a", "title": "T", "id": "i"}, Document("a", id="i", title="T")),
        (
            {"content": "a", "url": "u", "score": 1},
            Document("a", metadata={"url": "u", "score": 1}),
        ),
        (
            {"id": "i", "data": {"title": "T", "snippet": "a", "url": "u"}},
            Document("a", id="i", title="T", metadata={"url": "u"}),
        ),
        ({"data": "a"}, Document("a")),
        ({"data": {"name": "x", "age": 5}}, Document("name: x\nage: 5")),
    ],
)
def test_mappings_as_others_write_them(item, document):
    assert FLAT.read([item]) == (document,)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"body": "a"}, r"it\[0\] must have its text under one of the keys text, .*'body'"),
        ({"text": "a", "content": "b"}, "got the keys 'text', 'content'"),
        ({"data": {}}, "must be a text or a mapping with fields"),
        ({"data": "a", "more": 1}, "has data and also more"),
        ({"text": "a", "metadata": "b"}, "must be a mapping, got str"),
    ],
)
def test_mappings_that_cannot_be_read_are_named(item, message):
    with pytest.raises(InvalidInputError, match=message):
        FLAT.read([item], "it")


def test_blank_documents_are_set_aside_unless_all_are_blank():
    assert FLAT.read(["a", " \n", Document("")]) == (Document("a"),)
    assert FLAT.read([]) == ()
    with pytest.raises(InvalidInputError, match=r"all of pages are blank \(2\)"):
        FLAT.read(["", {"text": " "}], "pages")


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "pages is an empty list. Leave it out"),
        (None, "pages must be a list of pages or documents, got NoneType"),
        (7, "pages must be a list of pages or documents, got int"),
        ("text", "must be a list of pages or documents, got str.*Put a single one into a list"),
        (b"text", "got bytes"),
        ({"text": "a"}, "must be a list of pages or documents, got dict"),
        (Document("a"), "must be a list of pages or documents, got Document"),
        (Page("a"), "must be a list of pages or documents, got Page"),
        (["a", 5], r"pages\[1\] must be a Page, a Document, a string or a mapping, got int"),
        ([{"body": "a"}], r"pages\[0\] must have the key 'text' and .* the keys 'body'"),
        ([{}], "got the keys none"),
        ([{"text": "a", "content": "b"}], "got the keys 'text', 'content'"),
        ([{"text": "a", "author": "b"}], "got the keys 'text', 'author'"),
        ([{"text": "a", "metadata": "b"}], r"metadata of pages\[0\] must be a mapping, got str"),
    ],
)
def test_what_is_no_list_of_documents_is_named(items, message):
    with pytest.raises(InvalidInputError, match=message):
        READER.read(items, "pages")


@pytest.mark.parametrize("documents", [None, 7, Document("a"), {"text": "a"}])
def test_what_is_no_list_is_refused_by_the_engine_too(documents):
    with pytest.raises(InvalidInputError, match="documents must be a list of documents, got"):
        prepare_documents(documents)
