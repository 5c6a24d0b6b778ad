"""The HTML page that shows what was kept."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from finch_integrations import ConfigurationError, Document, Excerpt, InvalidInputError
from finch_integrations.report import make_report
from finch_integrations.report.answer import Passage, render_answer
from finch_integrations.report.comparing import check_comparison, compare_with

DOCUMENTS = [
    Document("Rope <b>one</b> & two. " * 12 + "The lamp oil is here. ", id="a<x>.md"),
    Document("Nothing at all is said in this one. " * 8, id="b.md", title="Second & last"),
]
QUESTION = "Where is the <lamp> oil?"


class Page(HTMLParser):
    """Collects the text of the page, of its documents and marks, its links and tags."""

    def __init__(self, html):
        super().__init__()
        self.text, self.marks, self.quotes, self.tags, self._open = "", [], [], [], []
        self.links, self.documents = {}, ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "mark":
            self.marks.append("")
        if tag not in ("meta", "rect", "line", "br", "img", "link"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self._open.pop() == tag, "tags are nested properly"

    def handle_data(self, data):
        self.text += data
        if not {"summary", "span", "h3"} & set(self._open):
            self.documents += data
        if self._open and self._open[-1] == "mark":
            self.marks[-1] += data
        if self._open and self._open[-1] == "q":
            self.quotes.append(data)
        if self._open and self._open[-1] == "a":
            target = next(a["href"] for tag, a in reversed(self.tags) if tag == "a")
            self.links.setdefault(target, []).append(data)

    @property
    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


@pytest.mark.parametrize("method", ["likelihood", "contrast", "finch"])
def test_the_page_shows_the_documents_and_marks_what_was_kept(engine, method):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100, method=method)
    report = make_report(engine, DOCUMENTS, context, answer="Here <i>.")
    page = Page(report.html)
    for document in DOCUMENTS:
        assert document.text.strip() in page.documents
    assert "a<x>.md" in page.text
    assert QUESTION in page.text
    assert "Here <i>." in page.text
    if method != "finch":
        assert sorted(page.marks) == sorted(excerpt.text for excerpt in context.excerpts)
    else:
        kept_somewhere = {p for layer in context.kept for p in layer.flatten().tolist()}
        assert sum(len(mark) for mark in page.marks) == len(kept_somewhere)
    best = max(context.excerpts, key=lambda excerpt: excerpt.score, default=None)
    assert page.quotes[:1] == ([best.text] if best else [])
    assert not re.search(r"https?:|<script|<link|src=", report.html), "opens offline"
    assert len(set(page.ids)) == len(page.ids)
    assert {link.removeprefix("#") for link in page.links} <= set(page.ids)


def test_the_page_says_where_nothing_was_removed(engine):
    whole = engine.compress(DOCUMENTS, QUESTION, target_size=5000)
    text = Page(make_report(engine, DOCUMENTS, whole).html).text
    assert "document tokens, all kept" in " ".join(text.split())
    assert "Everything was kept." in text
    assert "smaller" not in text
    assert "layers kept it" not in text


def test_the_layers_are_drawn(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100, method="finch")
    page = Page(make_report(engine, DOCUMENTS, context).html)
    rows = {attributes["y"] for tag, attributes in page.tags if tag == "rect"}
    assert rows == {"0", "1"}
    whole = engine.compress(DOCUMENTS, QUESTION, target_size=5000)
    page = Page(make_report(engine, DOCUMENTS, whole).html)
    bars = [attributes for tag, attributes in page.tags if tag == "rect"]
    assert [(bar["x"], bar["width"]) for bar in bars] == [("0.00", "1000.00")]
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
    assert shown.tags[0][1]["sandbox"] in (None, "")  # without any permission


def test_other_documents_are_refused(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100)
    with pytest.raises(InvalidInputError, match="other documents"):
        make_report(engine, DOCUMENTS[:1], context)


def test_a_selection_is_shown_like_the_context_that_is_made_of_it(engine):
    selection = engine.select(DOCUMENTS, QUESTION, target_size=100)
    context = engine.encode(selection)
    pages = [make_report(engine, DOCUMENTS, kept).html for kept in (selection, context)]
    facts = re.compile(r"<li>(?:peak KV|[\d.]+ s).*?</li>")
    assert facts.sub("", pages[0]) == facts.sub("", pages[1])


def test_documents_of_which_more_was_kept_come_first(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100)
    shares = {f"d{n}": share.kept_share for n, share in enumerate(context.document_shares, 1)}
    order = [id for id in Page(make_report(engine, DOCUMENTS, context).html).ids if id in shares]
    assert order == sorted(shares, key=lambda id: -shares[id])


def test_long_gaps_are_folded_and_nothing_of_the_text_is_lost(engine):
    long = Document("The lamp oil is here. " + "Nothing is said in this one. " * 40, id="long")
    context = engine.compress([long], QUESTION, target_size=60)
    page = Page(make_report(engine, [long], context).html)
    assert "characters left out" in page.text
    assert long.text.strip() in page.documents


def test_passages_lead_to_the_ones_before_and_after_them(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=150)
    page = Page(make_report(engine, DOCUMENTS, context).html)
    passages = [id for id in page.ids if id.startswith("p")]
    assert len(passages) == len(context.excerpts) > 2
    steps = [(link, sign) for link, texts in page.links.items() for sign in texts if sign in "‹›"]
    assert sorted(steps) == sorted(
        [(f"#{id}", "‹") for id in passages[:-1]] + [(f"#{id}", "›") for id in passages[1:]]
    )


def test_what_others_would_keep_is_next_to_it(engine):
    context = engine.compress(DOCUMENTS, QUESTION, target_size=100)
    compare = {
        "contrast": engine.select(DOCUMENTS, QUESTION, target_size=100, method="contrast"),
        "finch": engine.compress(DOCUMENTS, QUESTION, target_size=100, method="finch"),
        "mine": [Excerpt(document_id="b.md", start=0, end=7, text="Nothing", score=1)],
    }
    report = make_report(engine, DOCUMENTS, context, method="likelihood", compare=compare)
    page = Page(report.html)
    assert [page.text.count(name) >= 3 for name in ("likelihood", *compare)] == [True] * 4
    assert page.marks.count("Nothing") == 1
    assert page.documents.count(DOCUMENTS[0].text.strip()) == 4
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 4
    alone = Page(make_report(engine, DOCUMENTS, context).html)
    assert {id for id in page.ids} == set(alone.ids)
    wrong = [replace(compare["mine"][0], text="nothing")]
    with pytest.raises(InvalidInputError, match="other documents"):
        make_report(engine, DOCUMENTS, context, compare={"wrong": wrong})


@pytest.mark.parametrize(("what", "kept"), [("contrast", 100), ("finch", 100), ("40", 40)])
def test_a_comparison_spends_the_same_budget_or_the_one_that_is_named(engine, what, kept):
    other = compare_with(what, engine, DOCUMENTS, QUESTION, 100, {"method": "likelihood"})
    assert other.stats.kept_tokens == kept


def test_another_budget_changes_nothing_but_the_budget(engine):
    options = {"compression_ratio": 0.5, "method": "likelihood", "read_size": "all"}
    other = compare_with("40", engine, DOCUMENTS, QUESTION, 100, options)
    assert other.stats.read_tokens == other.stats.document_tokens
    assert other.stats.kept_tokens == 40


@pytest.mark.model
def test_hybrid_retrieval_fills_the_same_budget_with_chunks_of_the_documents(
    engine, embedded_encoder
):
    longer = [Document(document.text * 9, id=document.id) for document in DOCUMENTS]
    found = compare_with("hybrid", engine, longer, QUESTION, 600, {})
    assert 0 < sum(engine.count_tokens(excerpt.text) for excerpt in found) <= 600
    context = engine.compress(longer, QUESTION, target_size=600)
    page = Page(make_report(engine, longer, context, compare={"hybrid": found}).html)
    assert all(excerpt.text in page.marks for excerpt in found)


def test_what_cannot_be_compared_with_is_named():
    for known in ("likelihood", "contrast", "finch", "512"):
        check_comparison(known)
    for unknown in ("likelyhood", "0", "-3", "1.5", ""):
        with pytest.raises(ConfigurationError, match="nothing to compare with"):
            check_comparison(unknown)


# The answer's links

OIL = Passage("The lamp oil is in the red shed, on shelf 7316.", "p1", 1.0)
FOOD = Passage("Dinner is in the red hall at seven.", "p2", 0.5)


def links_of(answer, question="Where is it?"):
    return Page(str(render_answer(answer, [OIL, FOOD], question))).links


def test_words_that_few_passages_have_lead_to_the_best_of_them():
    assert links_of("Look at shelf 7316.") == {"#p1": ["shelf 7316"]}
    assert links_of("At seven") == {"#p2": ["seven"]}
    assert links_of("The hall, or the shed?") == {"#p1": ["shed"], "#p2": ["hall"]}
    assert links_of("A red thing, in it") == {}  # short words are in any text
    assert links_of("dinner", question="When is dinner?") == {}


def test_a_run_of_words_leads_to_the_passage_that_has_it_all():
    assert links_of("It is **in the red hall at seven**, I think") == {
        "#p2": ["in the red hall at seven"]
    }


def test_markdown_is_rendered_and_nothing_else():
    page = Page(
        str(
            render_answer(
                "# Oil\n\n- *one*\n- `two`\n\n|a|b|\n|-|-|\n|1|2|\n\n"
                "<img src=x onerror=alert(1)> ![x](http://x/y.png) [a](http://b) "
                "<http://c> [d](javascript:alert(1))",
                [OIL],
                "?",
            )
        )
    )
    tags = {tag for tag, _ in page.tags}
    assert {"h1", "ul", "li", "em", "code", "table"} <= tags
    assert not tags & {"img", "a", "script"}
    assert "onerror=alert(1)" in page.text
