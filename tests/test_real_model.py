"""The embedded model's real weights."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finch_integrations.cli.app import app
from finch_integrations.reading import read_documents

pytestmark = pytest.mark.model

HANDBOOK = Path(__file__).parent.parent / "examples" / "station-handbook"


def test_the_tokenizer_splits_digits(embedded_engine):
    tokenizer = embedded_engine.backbone.tokenizer
    assert tokenizer.tokenize("code 71432") == ["code", "Ġ", "7", "1", "4", "3", "2"]


def test_with_a_budget_for_everything_the_answer_is_that_of_generate(embedded_engine):
    document = "The main door has no lock. The door code of the chemical store is 7316."
    question = "What is the door code of the chemical store?"
    context = embedded_engine.compress([document], question)
    answer = embedded_engine.generate(context, max_tokens=30)
    backbone = embedded_engine.backbone
    content = f"{document}\n\nUsing only the text above, answer this question: {question}"
    prompt = backbone.tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        return_tensors="pt",
    )
    output = backbone.model.generate(**prompt, max_new_tokens=30, do_sample=False)
    assert list(answer.tokens) == output[0, prompt["input_ids"].shape[1] :].tolist()
    assert "7316" in answer.text
    assert answer.finish_reason == "stop"


def test_finch_ask_answers_over_documents_longer_than_the_window(embedded_engine):
    """`embedded_engine` is requested so that the command shares its loaded weights."""
    arguments = ["ask", "What is the door code of the chemical store?", str(HANDBOOK)]
    arguments += ["--device", "cpu", "--dtype", "float32", "--max-tokens", "24", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    statistics = answer["statistics"]
    assert statistics["document_tokens"] > 12_000
    assert statistics["kept_tokens"] == 2048
    bound = statistics["prefix_tokens"] + 2048 + 1024 + statistics["suffix_tokens"]
    assert statistics["peak_kv_tokens"] <= bound
    assert {Path(s["id"]).name for s in answer["sources"]} == {p.name for p in HANDBOOK.iterdir()}
    assert "7316" in answer["answer"]
    assert Path(answer["sources"][0]["id"]).name == "04-laboratory.md"
    assert "7316" in answer["sources"][0]["best_passage"]["text"]


def test_the_example_questions_stand_in_the_files_they_name():
    questions = json.loads((HANDBOOK.parent / "questions.json").read_text(encoding="utf-8"))
    texts = {Path(str(d.id)).name: d.text for d in read_documents([HANDBOOK]).documents}
    squeeze = lambda text: " ".join(text.split())  # noqa: E731
    assert len(questions) == 12
    for question in questions:
        assert question["answer"] in question["sentence"]
        holders = [name for name, text in texts.items() if question["answer"] in squeeze(text)]
        assert holders == [Path(question["file"]).name]


@pytest.mark.parametrize(
    ("method", "target_size"), [("finch", 2048), ("contrast", 512), ("likelihood", 512)]
)
def test_a_code_hidden_in_twice_the_window_is_found(embedded_engine, method, target_size):
    """In more than 16,000 tokens; keeping passages needs a quarter of the paper's budget."""
    filler = "The grass is green. The sky is blue. The sun is yellow. Here we go. "
    filler += "There and back again. "
    parts = [filler] * 680
    parts.insert(272, "The secret access code for the vault is 71432. ")
    context = embedded_engine.compress(
        ["".join(parts)],
        "What is the secret access code for the vault?",
        method=method,
        target_size=target_size,
    )
    assert context.stats.document_tokens > 16_000
    assert "71432" in embedded_engine.generate(context, max_tokens=16).text


def test_finch_rag_finds_and_cites_the_section_of_the_handbook(embedded_engine):
    from finch_integrations.pipeline.rag import FinchRAG
    from finch_integrations.retrieval import HybridRetriever

    documents = read_documents([HANDBOOK]).documents
    retriever = HybridRetriever.from_documents(documents)
    rag = FinchRAG(retriever, embedded_engine, sampling={"max_tokens": 40})
    answer = rag.answer("What is the door code of the chemical store?", top_k=5)
    assert "7316" in answer.text
    cited = {document.id: document for document in documents}
    for citation in answer.citations:
        whole = cited[citation.document_id].text
        assert whole[citation.source_start : citation.source_end] == citation.text
    assert any("laboratory" in citation.source for citation in answer.citations)


def test_the_embedded_embedder_finds_by_meaning():
    from finch_integrations.retrieval import HybridRetriever

    texts = [
        "The vessel takes on water.",
        "Dinner is served at seven.",
        "The lock opens with 7316.",
    ]
    retriever = HybridRetriever.from_documents(texts, encoder="embedded")
    for query, text in zip(
        ["Which boat is leaking?", "When do we eat?", "What is the door code?"], texts, strict=True
    ):
        assert retriever.retrieve(query, bm25_weight=0)[0].text == text


def test_a_follow_up_is_answered_from_what_the_question_before_it_is_about(embedded_engine):
    """By itself it could be about anything."""
    pages = read_documents([HANDBOOK]).documents
    question, follow_up = "What is the door code of the chemical store?", "And where is that?"
    options = {"target_size": 256}
    first = embedded_engine.select(pages, question, **options)
    history = [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "The door code is 7316."},
    ]
    second = embedded_engine.select(pages, follow_up, history=history, **options)
    alone = embedded_engine.select(pages, follow_up, **options)
    place = "The chemical store behind the dry room has a keypad"
    found = [
        any(place in excerpt.text for excerpt in selection.excerpts)
        for selection in (first, second, alone)
    ]
    assert found == [True, True, False]
    assert second.stats.read_tokens < 0.7 * first.stats.rated_tokens


def test_after_reading_ahead_follow_ups_read_nothing(embedded_engine):
    pages = read_documents([HANDBOOK]).documents
    embedded_engine.read_ahead(pages, target_size=256)
    for question in ("How thick must the ice be?", "How much coffee does the station drink?"):
        stats = embedded_engine.select(pages, question, target_size=256).stats
        assert stats.read_tokens == 0 < stats.rated_tokens
