"""Tasks whose documents a search found."""

import json

import pytest

from benchmarks import searched_sets
from benchmarks.items import load_items
from finch_integrations import Document
from tests.encoders import HashEncoder

ROPES = [
    f"Rope {n} of the pier is tied to mast {n} and was made in the year 19{n}." for n in range(60)
]
FACT = "The blue lamp hangs in cabin seven."


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def make(tmp_path, monkeypatch, questions, **leave_out):
    documents = [
        {"id": f"r{n}", "title": f"Rope {n}", "text": text} for n, text in enumerate(ROPES)
    ]
    documents += [{"id": "fact", "title": "Lamps", "text": FACT}]
    monkeypatch.setattr(searched_sets, "token_counter", lambda name: lambda text: len(text.split()))
    monkeypatch.setattr(searched_sets, "as_encoder", lambda name: HashEncoder())
    monkeypatch.setitem(searched_sets.BUCKETS, "1k", 200)
    monkeypatch.setitem(searched_sets.BUCKETS, "2k", 400)
    options = {
        "questions": write(tmp_path / "asked.jsonl", questions),
        "documents": write(tmp_path / "texts.jsonl", documents),
        "out": str(tmp_path / "made"),
        **leave_out,
    }
    arguments = [
        part for key, value in options.items() for part in (f"--{key.replace('_', '-')}", value)
    ]
    monkeypatch.setattr("sys.argv", ["searched_sets", *arguments, "--buckets", "1k", "2k"])
    searched_sets.main()
    return tmp_path / "made"


def question(qid, text, answer, gold):
    return {
        "qid": qid,
        "subtask": "boats",
        "question": text,
        "answers": [answer],
        "gold_doc_ids": gold,
    }


ASKED = [
    question("q1", "Where does the blue lamp hang?", "cabin seven", ["fact"]),
    question("q2", "When was rope 7 of the pier made?", "197", ["r7"]),
]


def test_the_documents_are_those_that_are_found_in_their_order(tmp_path, monkeypatch):
    made = make(tmp_path, monkeypatch, ASKED)
    short, long = (load_items(made, "searched_boats", bucket) for bucket in ("1k", "2k"))
    assert [item.question for item in short] == [row["question"] for row in ASKED]
    for item, longer, answer in zip(short, long, ("cabin seven", "197"), strict=True):
        texts = [document.text for document in item.documents]
        (gold,) = (d for d in item.documents if d.id in item.gold)
        assert answer in gold.text
        assert 5 < len(texts) < len(longer.documents)
        # A longer set begins with what a shorter one has, but for what was put in at its end.
        assert set(texts) <= {document.text for document in longer.documents}
    first = short[1].documents[0]
    assert first.title == "Rope 7"


def test_what_answers_and_is_not_found_comes_last(tmp_path, monkeypatch):
    hidden = question("q3", "When was rope 7 of the pier made?", "cabin seven", ["fact"])
    made = make(tmp_path, monkeypatch, [hidden])
    (item,) = load_items(made, "searched_boats", "1k")
    assert item.documents[-1].text == FACT
    assert item.gold == {item.documents[-1].id}


def test_questions_of_other_tasks_are_left_out(tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    write(other / "seen.jsonl", [{"question": " where does the Blue lamp hang? ", "documents": []}])
    write(other / "asked.jsonl", ASKED)
    write(other / "texts.jsonl", [{"id": "x", "title": "x", "text": "x"}])
    asked = [{**row, "documents": "texts.jsonl"} for row in ASKED]
    write(other / "asked.jsonl", asked)
    made = make(tmp_path, monkeypatch, ASKED, leave_out=str(other))
    (item,) = load_items(made, "searched_boats", "1k")
    assert item.question == ASKED[1]["question"]


def test_a_document_that_is_not_found_at_all_has_the_last_place():
    documents = [Document("Red.", id="a"), Document("Blue.", id="b"), Document("Gold.", id="c")]
    asked = question("q", "Which colour?", "gold", ["c"])
    ((_, made),) = searched_sets.questions_of([asked], documents, lambda text: ["b", "a"])
    assert [page.text for page in sorted([*made.others, *made.gold], key=lambda p: p.place)] == [
        "Blue.",
        "Red.",
        "Gold.",
    ]


def test_a_question_whose_documents_do_not_say_the_answer_is_left_out(
    tmp_path, monkeypatch, capsys
):
    wrong = question("q3", "Where does the blue lamp hang?", "cabin nine", ["fact"])
    made = make(tmp_path, monkeypatch, [wrong, ASKED[1]])
    assert [item.question for item in load_items(made, "searched_boats", "1k")] == [
        ASKED[1]["question"]
    ]
    assert "q3 is left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (
            question("q4", "Where?", "here", ["nowhere"]),
            "q4 is answered by nowhere, and .* no such",
        ),
        (
            question("q5", "Where?", "cabin nine", ["fact"]),
            "no questions left: nothing was written",
        ),
    ],
)
def test_what_is_wrong_with_the_questions_is_said(tmp_path, monkeypatch, asked, message):
    with pytest.raises(SystemExit, match=message):
        make(tmp_path, monkeypatch, [asked])
    assert not (tmp_path / "made").exists()


def test_a_collection_that_is_too_small_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tests.test_searched_sets.ROPES", ROPES[:8])
    with pytest.raises(SystemExit, match="Leave that bucket out of --buckets"):
        make(tmp_path, monkeypatch, [ASKED[0]])
    assert not (tmp_path / "made").exists()
