"""What `benchmarks.read_cap` compares is what a user gets who reads less."""

from benchmarks import read_cap
from benchmarks.items import Item
from benchmarks.quality import Bench
from benchmarks.read_cap import Rater, compare, halves, plan
from finch_integrations import Document, FinchEngine
from tests.tiny import make_model, make_tokenizer

QUESTION = "What is the code of door 3?"
DOCUMENTS = tuple(
    Document(f"Door {n} is red. Its code is {n * 7}. Nobody opened it in {1900 + n}. " * 3)
    for n in range(24)
)


def make_bench(documents):
    item = Item("one", "doors", "4k", QUESTION, documents, ("21",), frozenset())
    return Bench(FinchEngine(make_model(), make_tokenizer()), None, item, answer=False, feed=1024)


def test_a_part_of_the_ratings_gives_the_choice_of_who_reads_no_more():
    bench = make_bench(DOCUMENTS)
    total = len(bench.inputs.tokens)
    rater = Rater(bench.engine)
    found = rater.choices(bench, [1])
    assert list(found) == ["nothing", "3/8", "1k"]
    for name, read_size in (("3/8", total * 3 // 8), ("1k", 1024)):
        segments, scores, read = found[name]
        fresh = FinchEngine(make_model(), make_tokenizer())
        selection = fresh.select(DOCUMENTS, QUESTION, target_size=300, read_size=read_size)
        kept = read_cap.positions_of(read_cap.choose(segments, scores, 300))
        assert kept == selection.positions
        assert read == selection.stats.read_tokens
    assert found["1k"][2] < found["3/8"][2]


def test_passages_of_a_longer_set_that_a_shorter_one_has_are_rated_once(monkeypatch):
    asked = []
    backbone = type(make_bench(DOCUMENTS).backbone)
    original = backbone.log_likelihoods

    def counting(self, ids, cache, lengths, *, rows):
        asked.append(len(lengths))
        return original(self, ids, cache, lengths, rows=rows)

    monkeypatch.setattr(backbone, "log_likelihoods", counting)
    rater = Rater(make_bench(DOCUMENTS).engine)
    longer = rater.choices(make_bench(DOCUMENTS), [])
    first = sum(asked)
    assert first > 0
    again = rater.choices(make_bench(DOCUMENTS), [1])
    assert sum(asked) == first
    assert (again["3/8"][1] == longer["3/8"][1]).all()


def row(item, method, budget, *, nll=None, survives=True, task="t", bucket="64k"):
    found = {"id": item, "task": task, "bucket": bucket, "method": method, "budget": budget}
    return {**found, "survives": survives} | ({} if nll is None else {"nll": nll})


def test_every_second_item_of_each_task_is_kept_apart():
    tasks = {"a": "one", "b": "two", "c": "one", "d": "two", "e": "one"}
    rows = [row(i, m, 512, task=task) for i, task in tasks.items() for m in ("3/8", "6k")]
    found = halves(rows)
    assert {r["id"] for r in found["choice"]} == {"a", "b", "e"}
    assert {r["id"] for r in found["test"]} == {"c", "d"}
    assert sum(map(len, found.values())) == len(rows)


def test_the_table_has_paired_differences_and_the_answers_kept_at_every_budget():
    rows = [row(i, "3/8", 2048, nll=nll) for i, nll in (("a", 1.0), ("b", 2.0))]
    rows += [row(i, "6k", 2048, nll=nll) for i, nll in (("a", 1.5), ("b", 2.0))]
    rows += [row(i, "nothing", 2048, survives=i == "a") for i in "ab"]
    rows += [row(i, "6k", 1024, survives=i == "b") for i in "ab"]
    rows += [row(i, "6k", 512, survives=False) for i in "ab"]
    table = {cells[1]: cells for cells in compare(rows) if cells[0] == "64k"}
    assert list(table) == ["nothing", "6k", "8k", "3/8"]
    assert table["6k"][2].startswith("+0.250 [")
    assert table["6k"][3] == "2, 1, 0 of 2"
    assert table["nothing"][2:] == ["", "1, 0, 0 of 2"]
    assert table["3/8"][2] == ""


def test_tasks_take_turns():
    found = [["a1", "a2", "a3"], ["b1"]]
    assert [item for item, _ in plan(2, found)] == ["a1", "b1", "a2"]
