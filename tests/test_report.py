"""The HTML page that shows what was kept."""

import re
from html.parser import HTMLParser

import pytest

from finch_integrations import Document, InvalidInputError
from finch_integrations.report import make_report

DOCUMENTS = [
    Document("Rope <b>one</b> & two. " * 12 + "The lamp oil is here. ", id="a<x>.md"),
    Document("Nothing at all is said in this one. " * 8, id="b.md", title="Second & last"),
]
QUESTION = "Where is the <lamp> oil?"


class Page(HTMLParser):
    """Collects the text of the page, of its marks, and the tags it opens."""

    def __init__(self, html):
        super().__init__()
        self.text, self.marks, self.quotes, self.tags, self._open = "", [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "mark":
            self.marks.append("")
        if tag not in ("meta", "rect"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag != "rect":
            assert self._open.pop() == tag, "tags are nested properly"

    def handle_data(self, data):
        self.text += data
        if self._open and self._open[-1] == "mark":
            self.marks[-1] += data
        if self._open and self._open[-1] == "blockquote":
            self.quotes.append(data)


@pytest.mark.parametrize("method", ["likelihood", "contrast", "finch"])
def test_the_page_shows_the_documents_and_marks_what_was_kept(engine, method):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100, method=method)
    report = make_report(engine, DOCUMENTS, context, answer="Here <i>.")
    page = Page(report.html)
    for document in DOCUMENTS:
        assert document.text.strip() in page.text
    assert "a<x>.md" in page.text
    assert QUESTION in page.text
    assert "Here <i>." in page.text
    if method != "finch":
        assert page.marks == [excerpt.text for excerpt in context.excerpts]
    else:
        kept_somewhere = {p for layer in context.kept for p in layer.flatten().tolist()}
        assert sum(len(mark) for mark in page.marks) == len(kept_somewhere)
    best = max(context.excerpts, key=lambda excerpt: excerpt.score, default=None)
    assert page.quotes[:1] == ([best.text] if best else [])
    assert not re.search(r"https?:|<script|<link|src=", report.html), "opens offline"


def test_the_page_says_where_nothing_was_removed(engine):
    whole = engine.compress(DOCUMENTS, QUESTION, target_size=5000)
    text = Page(make_report(engine, DOCUMENTS, whole).html).text
    assert "document tokens, all kept ·" in " ".join(text.split())
    assert "Everything was kept." in text
    assert "smaller" not in text
    assert "layers kept it" not in text


def test_the_layers_are_drawn(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100, method="finch")
    page = Page(make_report(engine, DOCUMENTS, context).html)
    rows = {attributes["y"] for tag, attributes in page.tags if tag == "rect"}
    assert rows == {"0", "2"}
    whole = engine.compress(DOCUMENTS, QUESTION, target_size=5000)
    page = Page(make_report(engine, DOCUMENTS, whole).html)
    bars = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert len(bars) == 2 * 160
    assert all("1.00" in bar["style"] for bar in bars)


def test_the_shares_are_those_of_the_context(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100)
    html = make_report(engine, DOCUMENTS, context).html
    for share in context.document_shares:
        assert f"{share.kept_share * 100:.1f} %" in html
        assert f"{share.kept_tokens:,.0f} of {share.tokens:,}" in html


def test_it_is_saved_whole_or_not_at_all(engine, tmp_path, monkeypatch):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100)
    report = make_report(engine, DOCUMENTS, context)
    report.save(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text("utf-8") == report.html
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        report.save(tmp_path / "other.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_notebooks_show_it_in_a_frame(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100)
    report = make_report(engine, DOCUMENTS, context)
    shown = Page(report._repr_html_())
    assert [(tag, a["srcdoc"]) for tag, a in shown.tags] == [("iframe", report.html)]


def test_other_documents_are_refused(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100)
    with pytest.raises(InvalidInputError, match="other documents"):
        make_report(engine, DOCUMENTS[:1], context)
