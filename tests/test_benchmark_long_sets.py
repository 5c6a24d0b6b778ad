"""Sets longer than any window, made around a question, and what is reported of them."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks import long_sets, plots
from benchmarks.items import Item
from benchmarks.long_sets import RememberingEncoder, compare, gains, lengthen, plan, pool_of
from benchmarks.quality_results import read_buckets, write
from finch_integrations import Document
from tests.benchmark_rows import row


def make_item(number, *, question="Which colour?", task="squad_long"):
    documents = (
        Document("First.", id="d1", title=f"Own {number}"),
        Document("It is red.", id="d2", title=f"Own {number}"),
    )
    gold = frozenset({"d2"})
    return Item(f"{task}-{number}", task, "4k", question, documents, ("Red", "crimson"), gold)


POOL = [Document(f"Page {n}.", id="d1", title=f"Other {n}") for n in range(20)]


def test_a_longer_set_has_the_shorter_one_in_the_same_order():
    item = make_item(1)
    short, long = (lengthen(item, POOL, tokens, lambda text: 10) for tokens in (75, 150))
    texts = [document.text for document in long.documents]
    assert len(short.documents) == 7  # as many as fit
    assert len(texts) == len(set(texts)) == 15
    assert [text for text in texts if text in {d.text for d in short.documents}] == [
        document.text for document in short.documents
    ]
    assert texts.index("First.") < texts.index("It is red.")
    assert len({document.id for document in long.documents}) == 15
    assert [d.id for d in long.documents if d.text in ("First.", "It is red.")] == ["d1", "d2"]
    assert (long.gold, long.question) == (item.gold, item.question)
    assert lengthen(item, POOL[::-1], 150, lambda text: 10) == long  # whatever the pool's order
    other = lengthen(make_item(2), POOL, 150, lambda text: 10)
    assert [document.text for document in other.documents] != texts


def test_nothing_that_is_added_holds_an_answer_or_has_the_same_title():
    bad = [
        Document("A CRIMSON flag.", title="Flags"),
        Document("A bored crowd.", title="Crowds"),
        Document("More.", title="Own 1"),
    ]
    longer = lengthen(make_item(1), [*bad, *POOL], 200, lambda text: 10)
    assert not {document.text for document in longer.documents} & {one.text for one in bad}


def test_a_pool_that_is_too_small_is_an_error():
    with pytest.raises(SystemExit, match="squad_long has documents of 220 tokens; 1,000"):
        lengthen(make_item(1), POOL, 1000, lambda text: 10)


def test_documents_of_the_same_question_are_not_added():
    own, same, other, copy = (
        replace(make_item(number, question=question), documents=(Document(text, title="T"),))
        for number, (question, text) in enumerate(
            [("Which?", "one"), ("Which?", "two"), ("When?", "three"), ("Where?", "three")]
        )
    )
    assert [document.text for document in pool_of(own, [own, same, other, copy])] == ["three"]


def test_tasks_take_turns_and_nothing_has_no_length():
    found = [[make_item(1), make_item(2)], [make_item(3, task="needle")]]
    todo = [(item.id, length, m) for item, _, length, m in plan(2, found, (4, 16), ("none", "x"))]
    of_each = [(4, "none"), (4, "x"), (16, "x")]
    ids = ("squad_long-1", "needle-3", "squad_long-2")
    assert todo == [(item, *rest) for item in ids for rest in of_each]


def test_a_text_is_encoded_once(monkeypatch):
    seen = []

    def encode(self, texts):
        seen.extend(texts)
        return np.array([[len(text), 0] for text in texts])

    monkeypatch.setattr(RememberingEncoder.__base__, "encode_documents", encode)
    encoder = RememberingEncoder()
    assert encoder.encode_documents(["a", "bb", "a"])[:, 0].tolist() == [1, 2, 1]
    assert encoder.encode_documents(["ccc", "bb"])[:, 0].tolist() == [3, 2]
    assert seen == ["a", "bb", "ccc"]


@pytest.fixture
def measured(tmp_path):
    """Two questions at two lengths; of the longer one `finch` has one only."""
    rows = [row(item, "none", nll, bucket="4k") for item, nll in (("a", 5.0), ("b", 3.0))]
    for bucket, more in (("4k", 0), ("64k", 1)):
        for item, nll in (("a", 1.0), ("b", 2.0)):
            of_item = {"bucket": bucket, "budget": long_sets.BUDGET}
            rows.append(row(item, "default", nll + more, survives=item == "a", **of_item))
            if (bucket, item) != ("64k", "b"):
                rows.append(row(item, "finch", nll + 2 * more + 0.5, **of_item))
    write(rows, tmp_path / "long_sets.json")
    return read_buckets(tmp_path / "long_sets.json")


def test_a_method_is_compared_on_the_questions_that_it_shares_with_the_default(measured):
    assert [gain.tolist() for gain in gains(measured, "default").values()] == [[4, 1], [3, 0]]
    assert compare(measured) == [
        ["4k (2)", "default", "2.50", "1", ""],
        ["4k (2)", "finch", "2.00", "", "+0.50 [+0.50, +0.50]"],
        ["64k (2)", "default", "1.50", "1", ""],
        ["64k (1)", "finch", "1.50", "", "+1.50 [+1.50, +1.50]"],
    ]


def test_the_figure_draws_gains_on_the_same_questions_against_length(measured):
    (axes,) = plots.long_sets_figure(measured).axes
    drawn = {container.get_label(): container[0] for container in axes.containers}
    assert drawn["finch-integrations"].get_ydata() == pytest.approx([2.5, 1.5])
    assert drawn["finch (the paper's)"].get_ydata() == pytest.approx([2])  # one question at 64k
    assert axes.get_title() == "2,048 tokens kept, 2 questions"
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["4k tokens", "64k tokens"]
