"""The benchmark's scores of answers, and its baselines on a tiny model."""

import json

import numpy as np
import pytest
import torch

from benchmarks import quality
from benchmarks.answers import normalize, score_answer, score_citations
from benchmarks.baselines import Perplexity, rank_by_retrieval
from benchmarks.items import load_items, tasks_of
from finch_integrations import Document
from tests.tiny import make_input


@pytest.mark.parametrize(
    ("answer", "f1", "exact", "contains"),
    [
        ("The Eiffel Tower.", 1, 1, 1),
        ("It is the Eiffel tower, in Paris", 2 * (2 / 6) / (2 / 6 + 1), 0, 1),
        ("Eiffel", 2 * 0.5 / 1.5, 0, 0),
        ("the eiffel towers", 0.5, 0, 0),
        ("", 0, 0, 0),
    ],
)
def test_answers_are_scored_as_squads(answer, f1, exact, contains):
    scores = score_answer(answer, ["Eiffel Tower", "La dame de fer"])
    assert scores == {"f1": pytest.approx(f1), "exact": exact, "contains": contains}


@pytest.mark.parametrize(
    ("answer", "cited"),
    [
        ("The oil is in the red shed, I think.", 1),
        ("The lamp is on the old tower.", 0),
        ("The oil is in the red shed, and the lamp is on the old tower.", 0.5),
        ("The lamp is on the old tower, which is white.", 0),  # its next sentence has the answer
        ("In the shed.", None),  # too short to be a quote
        ("", None),
    ],
)
def test_a_citation_is_right_if_the_quoted_sentences_hold_an_answer(answer, cited):
    documents = [
        Document("It is night. The oil is in the red shed by the pier. Bring it."),
        Document("The lamp is on the old tower, which is white. It is in the red shed at night."),
    ]
    scores = score_citations(answer, documents, ["blue house", "The RED shed"])
    assert scores == ({} if cited is None else {"cited": cited})


def test_case_articles_and_punctuation_do_not_count():
    assert normalize(" A door,  the  CODE! ") == "door code"


def test_tasks_are_the_files_of_a_folder(tmp_path, monkeypatch, capsys):
    item = {
        "id": "mine-2k-1",
        "bucket": "2k",
        "question": "Which?",
        "documents": [{"id": "d", "title": "T", "text": "This one."}],
        "answers": ["This"],
        "gold_doc_ids": ["d"],
    }
    lines = [item, item | {"bucket": "4k"}, {"id": "no question", "text": "but a document"}]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert tasks_of(tmp_path) == ["mine"]
    (loaded,) = load_items(tmp_path, "mine", "2k")
    assert (loaded.task, loaded.question, loaded.answers) == ("mine", "Which?", ("This",))
    for tasks, folder, message in (
        (["--tasks", "mine", "other"], tmp_path, f"there is no other.jsonl in {tmp_path}"),
        (["--buckets", "8k"], tmp_path, "no such items of the length '8k'"),
    ):
        monkeypatch.setattr("sys.argv", ["quality", "--data", str(folder), *tasks])
        with pytest.raises(SystemExit):
            quality.main()
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"there are no task files .*nowhere"):
        tasks_of(tmp_path / "nowhere")


def test_perplexity_keeps_the_tokens_that_the_question_changes_most(engine):
    backbone = engine.backbone
    documents = [f"Room {n} is {c}. " * 40 for n, c in enumerate("abc")]
    inputs = make_input(documents, "Which colour is room 2?")
    method = Perplexity(backbone, inputs, 64)
    for budget in (1, 100, len(inputs.tokens)):
        kept = method.keep(budget)
        assert len(kept) == len(set(kept)) == budget
    passage = method._segments[0]
    text = tuple(inputs.tokens.ids[passage.start : passage.end])

    def log_likelihoods(ids):
        with torch.inference_mode():
            rated = backbone.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        rows = range(len(ids) - len(text), len(ids))
        return torch.stack([rated[row - 1, ids[row]] for row in rows])

    prefix, window = inputs.frame.prefix, inputs.frame.window
    asked = log_likelihoods([*prefix, *window.ids, *text])
    change = asked - log_likelihoods([*prefix, *text])
    torch.testing.assert_close(method._change(passage), change, rtol=1e-3, atol=1e-4)
    # Of one passage alone the tokens with the largest change stay.
    method._segments, method._scores = [passage], torch.zeros(1)
    half = -(-len(text) // 2)
    kept = {i - passage.start for i in method.keep(half)}
    assert kept == set(change.argsort(descending=True)[:half].tolist())


class WordEncoder:
    """Vectors that say which of a few words a text has."""

    WORDS = ("lamp", "oil", "harbour", "boat")

    def encode_documents(self, texts):
        return np.array([[w in t.lower() for w in self.WORDS] for t in texts], dtype=np.float32)

    def encode_query(self, text):
        return self.encode_documents([text])[0]


def test_retrieval_ranks_by_titles_and_neighbourhoods_where_it_is_to():
    filler = "It rained all day, and nobody went out to sea or to the market of the town. "
    documents = [
        Document(
            "The oil is in the red shed. " + filler * 2 + "It is kept for the lamp.", title="A"
        ),
        Document(filler * 3, title="The lamp and its oil"),
        Document(filler * 3, title="B"),
    ]
    inputs = make_input(documents, "Where is the oil for the lamp?")

    def ranks(name):
        segments, scores = rank_by_retrieval(name, inputs, WordEncoder())
        assert len(scores) == len(segments) > 4
        return segments, scores

    segments, alone = ranks("rag-hybrid")
    _, titled = ranks("rag-hybrid-titled")
    _, around = ranks("rag-hybrid-around")
    last = {n: max(i for i, s in enumerate(segments) if s.document == n) for n in range(3)}
    assert alone[last[1]] == alone[last[2]]  # no word of theirs is in the question
    assert titled[last[1]] > titled[last[2]]  # but its title has them
    middle = [i for i, s in enumerate(segments) if s.document == 0][1]
    assert around[middle] - around[last[2]] > alone[middle] - alone[last[2]]
