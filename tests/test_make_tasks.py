"""Tasks made from hand-made rows of the datasets' columns."""

import itertools
import json
import random
import re
import sys
from types import SimpleNamespace

import pytest

from benchmarks import make_tasks
from benchmarks.make_tasks import BUCKETS, LONGEST, TASKS, download, make_task
from finch_integrations.documents import prepare_documents
from finch_integrations.errors import InvalidInputError, MissingExtraError

WORDS = ["river", "stone", "cloud", "paper", "garden", "window", "music", "train", "harvest"]


def count(text):
    return len(text.split())


def prose(name, words=60):
    """Sentences that no other name gives."""
    rng = random.Random(name)
    text = " ".join(rng.choice(WORDS) + (". " if n % 9 == 8 else "") for n in range(words))
    return f"The {name} began here. {text}".replace(".  ", ". ")


def squad_rows():
    rows = []
    for article, number in itertools.product(("Old_Mill", "Ferry", "Cave", "Bridge"), range(12)):
        name = f"{article}{number}x"
        row = {
            "id": name,
            "title": article,
            "context": prose(name),
            "question": f"What began at {number}?",
            "answers": {
                "text": [f"The {name}", f"{name} ", f"The {name}"],
                "answer_start": [0] * 3,
            },
        }
        none = {"text": [], "answer_start": []}
        rows += [row, {**row, "id": f"{name}-none", "question": "What never?", "answers": none}]
    return rows


def covid_rows():
    rows = []
    for paper in range(4):
        parts = [prose(f"study{paper}n{n}x", 100) for n in range(16)]
        context = f"A paper {paper}\n" + "\n".join(parts)
        for n in range(16):
            answer = f"study{paper}n{n}x"
            start = context.index(answer)
            rows.append(
                {
                    "document_id": paper,
                    "context": context,
                    "question": f"Which study was {n} of {paper}?",
                    "is_impossible": False,
                    "id": 100 * paper + n,
                    "answers": {"text": [answer], "answer_start": [start]},
                }
            )
    return rows


def nq_rows():
    answered = [
        {
            "example_id": -n,
            "question": f"who founded the {WORDS[n % 9]} works {n}",
            "answers": [f"founder{n}x"],
            "text": prose(f"founder{n}x"),
            "idx_gold_in_corpus": n,
        }
        for n in range(60)
    ]
    unanswered = {"example_id": 99, "question": "who", "answers": [], "text": prose("nobody")}
    elsewhere = {"example_id": 98, "question": "who", "answers": ["mayor"], "text": prose("nil")}
    return [*answered, unanswered, elsewhere]


def hotpot_rows():
    rows = []
    for n in range(12):
        titles = [f"Town {n}{letter}" for letter in "abcdefghij"]
        sentences = [[prose(f"mayor{title[5:]}x"), " It is small."] for title in titles]
        sentences[2][1] = " Yes, it is small."
        row = {
            "id": f"h{n}",
            "question": f"Who was mayor of town {n}?",
            "answer": f"mayor{n}cx",
            "supporting_facts": {"title": [titles[2], titles[7], titles[7]], "sent_id": [0, 0, 1]},
            "context": {"title": titles, "sentences": sentences},
        }
        rows += [row, {**row, "id": f"h{n}-yes", "answer": "yes"}]
    return rows


ROWS = {
    "squad_long": squad_rows(),
    "nq_multidoc": nq_rows(),
    "science_long": covid_rows(),
    "multihop": hotpot_rows(),
    "kv_lookup": [],
    "needle": squad_rows(),
}


def make(task, rows=None, *, buckets=("2k", "1k"), items=6, seed=0):
    rows = ROWS[task] if rows is None else rows
    return make_task(task, rows, buckets=buckets, items=items, seed=seed, count=count)


def texts(item):
    return [document["text"] for document in item["documents"]]


def gold(item):
    return [d["text"] for d in item["documents"] if d["id"] in item["gold_doc_ids"]]


def paired(items):
    return zip(items[::2], items[1::2], strict=True)


def test_every_task_has_rows_here():
    assert set(ROWS) == set(TASKS)


@pytest.mark.parametrize("task", TASKS)
def test_the_gold_documents_are_inside_and_only_they_hold_the_answer(task):
    for item in make(task):
        assert item["answers"]
        answer = item["answers"][0].lower()
        assert any(answer in text.lower() for text in gold(item))
        assert not any(answer in text.lower() for text in set(texts(item)) - set(gold(item)))
        assert len(gold(item)) == len(item["gold_doc_ids"]) in (1, 2)


@pytest.mark.parametrize("task", TASKS)
def test_buckets_are_filled_up_to_one_document(task):
    for item in make(task):
        used = sum(count(f"# {d['title']} {d['text']}") for d in item["documents"])
        room = BUCKETS[item["bucket"]] * 15 // 16
        assert room - LONGEST < used <= room


@pytest.mark.parametrize("task", TASKS)
def test_a_question_keeps_its_documents_and_their_order_as_it_grows(task):
    items = make(task)
    assert len({item["id"] for item in items}) == len(items) == 12
    assert [item["bucket"] for item in items] == ["1k", "2k"] * 6
    for short, long in paired(items):
        assert short["qid"] == long["qid"]
        assert short["question"] == long["question"]
        assert gold(short) == gold(long)
        assert texts(short) == [text for text in texts(long) if text in texts(short)]
        assert len(texts(long)) > len(texts(short))


@pytest.mark.parametrize("task", TASKS)
def test_only_the_seed_decides(task):
    items = make(task)
    assert items == make(task)
    assert items != make(task, seed=1)
    # Neither the buckets nor the number of items change what is in an item.
    assert [item for item in items if item["bucket"] == "2k"] == make(task, buckets=["2k"])
    assert items[:4] == make(task, items=2)


@pytest.mark.parametrize("task", TASKS)
def test_documents_are_valid_and_none_comes_twice(task):
    for item in make(task):
        documents = [
            {name: text for name, text in document.items() if text}
            for document in item["documents"]
        ]
        assert len(prepare_documents(documents)) == len(set(texts(item)))


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"kv_lookup"}))
def test_too_few_rows_say_what_to_change(task):
    with pytest.raises(InvalidInputError, match=f"{task}: .*Leave that bucket out"):
        make(task, buckets=["32k"])
    with pytest.raises(InvalidInputError, match=f"{task}: .* 0 usable questions.*--items"):
        make(task, [])


def test_questions_that_cannot_be_used_are_left_out():
    assert len(make("squad_long", items=48, buckets=["1k"])) == 48
    with pytest.raises(InvalidInputError, match="only 48 usable questions, 49 were asked for"):
        make("squad_long", items=49, buckets=["1k"])
    with pytest.raises(InvalidInputError, match="only 60 usable"):
        make("nq_multidoc", items=61, buckets=["1k"])
    with pytest.raises(InvalidInputError, match="only 12 usable"):
        make("multihop", items=13, buckets=["1k"])
    long = [{**row, "context": row["context"] + " word" * LONGEST} for row in squad_rows()]
    with pytest.raises(InvalidInputError, match="only 0 usable"):
        make("squad_long", long)


@pytest.mark.parametrize("task", TASKS)
def test_the_gold_documents_may_stand_anywhere(task):
    places = []
    for item in make(task, items=12 if task == "multihop" else 40, buckets=["1k"]):
        numbers = [document["id"] for document in item["documents"]]
        places += [numbers.index(gold_id) / (len(numbers) - 1) for gold_id in item["gold_doc_ids"]]
    assert min(places) < 0.25
    assert max(places) > 0.75


def test_documents_from_elsewhere_that_hold_an_answer_are_left_out():
    rows = [row for row in squad_rows() if row["answers"]["text"]]
    told = " ".join(row["answers"]["text"][0].upper() for row in rows)
    telling = {**rows[0], "title": "Telling", "answers": {"text": [], "answer_start": []}}
    tellers = [{**telling, "context": f"{prose(f'teller{n}')} {told}"} for n in range(20)]
    for item in make("squad_long", [*rows, *tellers], items=20, buckets=["1k"]):
        assert "Telling" not in {document["title"] for document in item["documents"]}


def test_long_documents_are_left_out():
    rows = [
        {**row, "context": row["context"] + " word" * LONGEST * (row["title"] == "Ferry")}
        for row in squad_rows()
    ]
    for item in make("squad_long", rows, items=20, buckets=["2k"]):
        assert "Ferry" not in {document["title"] for document in item["documents"]}


def test_squad_grows_outwards_in_the_article_then_into_others():
    rows = squad_rows()
    order = {}
    for row in rows:
        order.setdefault(row["title"].replace("_", " "), {})[row["context"]] = None
    seen, sides = set(), set()
    for short, long in paired(make("squad_long", items=20, buckets=["1k", "2k"])):
        (answering,) = gold(short)
        title = next(title for title, contexts in order.items() if answering in contexts)
        article = list(order[title])
        for item in (short, long):
            inside = [d["text"] for d in item["documents"] if d["title"] == title]
            assert inside == article  # 12 paragraphs of about 65 words fit 1k
            foreign = [d["title"] != title for d in item["documents"]]
            sides.add((foreign[0], foreign[-1]))
            seen.add(item["gold_doc_ids"][0])
    assert len(seen) > 8  # the answer is in many places
    assert (True, True) in sides
    assert sides <= {(True, True), (True, False), (False, True)}
    assert make("squad_long")[0]["answers"] == list(dict.fromkeys(make("squad_long")[0]["answers"]))


def test_a_paper_grows_on_both_sides_in_pieces_that_leave_no_gap():
    papers = {" ".join(row["context"].split()) for row in covid_rows()}
    both = 0
    for item in make("science_long", items=40, buckets=["1k"]):  # too short for a paper
        stretch = " ".join(" ".join(texts(item)).split())
        (paper,) = (paper for paper in papers if stretch in paper)
        inside = texts(item)[0] != gold(item)[0] != texts(item)[-1]
        both += inside and not paper.startswith(stretch) and not paper.endswith(stretch)
        assert all(re.fullmatch(r"A paper \d", d["title"]) for d in item["documents"])
    assert both > 5


def test_nq_distractors_are_those_that_share_the_question_s_words():
    rows = nq_rows()
    near = {"example_id": 7777, "question": "?", "answers": [], "text": prose("works founded by")}
    for item in make("nq_multidoc", [*rows, near], items=20):
        assert near["text"] in texts(item)


def test_multihop_takes_the_question_s_own_distractors_first():
    for item in make("multihop", buckets=["1k"]):
        number = item["qid"].removeprefix("hotpot-h")
        titles = {document["title"] for document in item["documents"]}
        assert titles >= {f"Town {number}{letter}" for letter in "abcdefghij"}
        golden = [d["title"] for d in item["documents"] if d["id"] in item["gold_doc_ids"]]
        assert sorted(golden) == [f"Town {number}c", f"Town {number}h"]


def test_the_registry_gives_one_value_for_each_key():
    for item in make("kv_lookup"):
        lines = [line for text in texts(item) for line in text.splitlines()]
        entries = dict(line.split(": ") for line in lines)
        assert len(entries) == len(lines)
        assert entries[item["question"].split()[-1].rstrip("?")] == item["answers"][0]


def test_needles_have_facts_that_only_look_like_them():
    single, keys, hops = (item for item in make("needle", items=3, buckets=["1k"]))
    assert sum(text.count("The password that") for text in texts(single)) == 1
    codes = re.findall(r"passcode of the (\w+ \w+) vault is (\d{6})\.", " ".join(texts(keys)))
    assert len(codes) == len(set(codes)) == 4
    asked = re.search(r"the (\w+ \w+) vault", keys["question"])[1]
    assert dict(codes)[asked] == keys["answers"][0]
    whole = " ".join(texts(hops))
    owners = dict(re.findall(r"The (\w+) manuscript was given to (\w+ \w+) by", whole))
    homes = dict(re.findall(r"(\w+ \w+) has lived in (\w+) since", whole))
    assert len(owners) == len(homes) == 2
    thing = re.search(r"the (\w+) manuscript", hops["question"])[1]
    assert homes[owners[thing]] == hops["answers"][0]
    assert len(hops["gold_doc_ids"]) == 2


@pytest.fixture
def run(monkeypatch, tmp_path):
    """Run the command with its rows and its tokenizer replaced."""
    by_source = {TASKS[task].source: rows for task, rows in ROWS.items()}
    monkeypatch.setattr(make_tasks, "download", by_source.__getitem__)
    monkeypatch.setattr(make_tasks, "token_counter", lambda name: count)

    def call(*options):
        monkeypatch.setattr("sys.argv", ["make_tasks", "--out", str(tmp_path / "out"), *options])
        make_tasks.main()
        return tmp_path / "out"

    return call


def test_the_command_writes_a_file_for_each_task(run):
    folder = run("--buckets", "1k", "2k", "--items", "2")
    assert {path.name for path in folder.iterdir()} == {f"{task}.jsonl" for task in TASKS}
    for task in TASKS:
        lines = (folder / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line) for line in lines] == make(task, items=2)


def test_a_task_that_fails_leaves_its_old_file(run):
    folder = run("--tasks", "needle", "--buckets", "1k", "--items", "1")
    before = (folder / "needle.jsonl").read_bytes()
    with pytest.raises(SystemExit, match="Leave that bucket out"):
        run("--tasks", "needle", "--buckets", "32k")
    assert (folder / "needle.jsonl").read_bytes() == before
    assert len(list(folder.iterdir())) == 1


def test_the_download_names_one_file_at_its_revision(monkeypatch):
    calls = []

    def load_dataset(kind, *, data_files, split):
        calls.append((kind, data_files, split))
        return SimpleNamespace(to_list=lambda: [{"id": 1}])

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(load_dataset=load_dataset))
    assert download(make_tasks.HOTPOT) == [{"id": 1}]
    download(make_tasks.NQ)
    kinds, files, splits = zip(*calls, strict=True)
    assert kinds == ("parquet", "json")
    assert re.fullmatch(
        r"hf://datasets/hotpotqa/hotpot_qa@[0-9a-f]{40}/distractor/validation-.*\.parquet", files[0]
    )
    assert set(splits) == {"train"}


def test_without_datasets_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install -e '\.\[benchmarks\]'"):
        download(make_tasks.SQUAD)
