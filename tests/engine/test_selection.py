"""Selections: chosen without a cache, kept as plain data, encoded anywhere."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from finch_integrations import (
    ConfigurationError,
    ContextTooLongError,
    Document,
    FinchEngine,
    InvalidInputError,
    Selection,
)
from finch_integrations.engine.prompt import build_frame
from finch_integrations.engine.selector import SelectionCache
from tests.forging import forge_selection, read_selection
from tests.tiny import make_model, make_tokenizer

DOCUMENTS = [
    Document("  One sentence is here. Another one is there. " * 6, id="a", title="A title"),
    Document("Something else is said. Nothing more. " * 8 + "\n", id="b"),
]
PROMPT = {
    "system": "Be brief.",
    "history": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}],
    "instruction": "Say in one word:",
}


@pytest.fixture
def selection(engine):
    return engine.select(DOCUMENTS, "What is said?", target_size=120, **PROMPT)


@pytest.mark.parametrize("method", ["likelihood", "contrast"])
@pytest.mark.parametrize("target_size", [1, 120, 5000])
def test_compressing_is_encoding_what_was_selected(engine, method, target_size):
    options = {"method": method, "target_size": target_size, **PROMPT}
    selection = engine.select(DOCUMENTS, "What is said?", **options)
    encoded = engine.encode(selection)
    compressed = engine.compress(DOCUMENTS, "What is said?", **options)
    assert compressed.kept[0].tolist() == [list(selection.positions)] == encoded.kept[1].tolist()
    assert compressed.document_shares == selection.document_shares == encoded.document_shares
    assert compressed.excerpts == encoded.excerpts
    assert engine.extract(DOCUMENTS, "What is said?", **options) == selection.excerpts
    for one, other in zip(compressed.cache.layers, encoded.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
        assert torch.equal(one.values, other.values)
    assert selection.complete == (target_size == 5000)
    assert selection.question == "What is said?"


def test_a_selection_says_what_was_kept_and_what_that_took(engine, selection):
    stats = selection.stats
    assert stats.kept_tokens == len(selection.token_ids) == len(selection.positions) == 120
    assert 120 < stats.read_tokens == stats.rated_tokens < stats.document_tokens
    assert stats.peak_kv_tokens > 0
    assert stats.compression_ratio == 1 - 120 / stats.document_tokens
    assert sum(share.kept_tokens for share in selection.document_shares) == 120
    text = engine.backbone.tokenizer.decode(selection.token_ids)
    assert all(excerpt.text in text for excerpt in selection.excerpts)
    everything = engine.select(DOCUMENTS, "What is said?", target_size=5000)
    assert everything.stats.read_tokens == 0
    assert everything.positions == tuple(range(stats.document_tokens))


ELSEWHERE = """
import sys
from finch_integrations import FinchEngine, Selection
engine = FinchEngine.from_pretrained(sys.argv[1], device="cpu", dtype="float32")
context = engine.encode(Selection.load(sys.argv[2]))
print(engine.generate(context, max_tokens=20).tokens)
"""


def test_a_saved_selection_is_encoded_in_another_process_and_answers_the_same(tmp_path, tokenizer):
    make_model().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "selection.json"
    with FinchEngine.from_pretrained(tmp_path / "model", device="cpu", dtype="float32") as engine:
        selection = engine.select(DOCUMENTS, "What is said?", target_size=120, **PROMPT)
        selection.save(path)
        assert Selection.load(path) == selection
        answer = engine.generate(engine.encode(selection), max_tokens=20)
    command = [sys.executable, "-c", ELSEWHERE, str(tmp_path / "model"), str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == str(answer.tokens)


@pytest.mark.parametrize("method", ["likelihood", "finch"])
def test_a_follow_up_equals_a_context_of_the_same_tokens_under_that_question(engine, method):
    options = {"target_size": 120, "method": method, **PROMPT}
    context = engine.compress(DOCUMENTS, "What is said?", **options)
    before = (context.document_shares, context.excerpts, context.stats)
    follow_up = engine.generate(context, question="And who is there?", max_tokens=20)
    prompt = replace(context.prompt, question="And who is there?")
    fresh = replace(context, prompt=prompt)
    if method == "likelihood":
        selection = engine.select(DOCUMENTS, "What is said?", **options)
        fresh = engine.encode(replace(selection, prompt=prompt))
    assert follow_up == engine.generate(fresh, max_tokens=20)
    assert follow_up.tokens != engine.generate(context, max_tokens=20).tokens
    assert (context.document_shares, context.excerpts, context.stats) == before
    with pytest.raises(InvalidInputError, match="the question is empty"):
        engine.generate(context, question=" ")


def test_the_scorer_reads_under_the_same_system_text_history_and_instruction(tokenizer):
    small = FinchEngine(make_model(), tokenizer)
    guided = FinchEngine(make_model(), tokenizer, scorer=small)
    alone = small.select(DOCUMENTS, "What is said?", target_size=120, **PROMPT)
    assert guided.select(DOCUMENTS, "What is said?", target_size=120, **PROMPT).excerpts == (
        alone.excerpts
    )
    bare = guided.select(DOCUMENTS, "What is said?", target_size=120)
    assert [e.score for e in bare.excerpts] != [e.score for e in alone.excerpts]


def test_more_can_be_selected_than_the_window_holds_but_not_encoded(tokenizer):
    engine = FinchEngine(make_model(max_position_embeddings=256), tokenizer)
    selection = engine.select(DOCUMENTS, "What?", target_size=400)
    assert len(selection.token_ids) == 400
    with pytest.raises(ContextTooLongError, match="keeping 400 of .* Keep at most"):
        engine.encode(selection)


def test_a_selection_of_another_tokenizer_is_refused(selection):
    other = FinchEngine(make_model(vocab_size=280), make_tokenizer(merges=[("t", "h")]))
    with pytest.raises(InvalidInputError, match="another tokenizer .* can be its scorer"):
        other.encode(selection)


def test_single_tokens_cannot_be_selected(engine):
    with pytest.raises(ConfigurationError, match="'finch' keeps single tokens, not passages"):
        engine.select(DOCUMENTS, "What?", target_size=50, method="finch")


@pytest.mark.parametrize("missing", ["prompt", "token_ids", "excerpts", "stats", "vocabulary"])
def test_a_file_without_something_is_refused(tmp_path, selection, missing):
    path = tmp_path / "selection.json"
    selection.save(path)
    facts = read_selection(path)
    del facts[missing]
    forge_selection(path, facts)
    with pytest.raises(InvalidInputError, match=f"damaged.*{missing}.*Select again"):
        Selection.load(path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "not a selection of this version"),
        ("[1", "not a selection of this version"),
        ("[" * 100_000, "not a selection of this version"),
        ("3", "not a selection of this version"),
        ('{"format": "finch-selection-0"}', "not a selection of this version"),
    ],
)
def test_files_of_another_kind_are_refused(tmp_path, text, reason):
    path = tmp_path / "selection.json"
    with pytest.raises(InvalidInputError, match="cannot read"):
        Selection.load(path)
    path.write_text(text)
    with pytest.raises(InvalidInputError, match=reason):
        Selection.load(path)


def test_ids_that_are_not_ids_are_refused(tmp_path, selection):
    path = tmp_path / "selection.json"
    selection.save(path)
    facts = read_selection(path)
    ids = facts["token_ids"]
    for wrong in ([*ids[:-1], -1], ids[:-1], ["a"] * 120, "120", None, [1.5] * len(ids)):
        forge_selection(path, {**facts, "token_ids": wrong})
        with pytest.raises(InvalidInputError, match="damaged.*token"):
            Selection.load(path)


def test_another_content_than_was_written_is_refused(tmp_path, selection):
    path = tmp_path / "selection.json"
    selection.save(path)
    whole = path.read_bytes()
    assert Selection.load(path) == selection
    for place in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(InvalidInputError, match="damaged|not a selection"):
            Selection.load(path)


def test_what_cannot_be_saved_is_named(tmp_path, engine, selection):
    odd = engine.select(DOCUMENTS, "What?", target_size=50, chat_template_kwargs={"f": object()})
    for thing in (odd, engine.encode(odd)):
        with pytest.raises(InvalidInputError, match="chat_template_kwargs must be plain data"):
            thing.save(tmp_path / "file")
    with pytest.raises(InvalidInputError, match="is a folder"):
        selection.save(tmp_path)
    with pytest.raises(InvalidInputError, match="there is no folder"):
        selection.save(tmp_path / "nowhere" / "file")
    assert list(tmp_path.iterdir()) == []


def test_the_same_question_to_the_same_documents_reads_nothing_again(engine):
    first = engine.select(DOCUMENTS, "What is said?", target_size=120)
    again = engine.select(list(DOCUMENTS), "What is said?", target_size=120)
    assert (again.positions, again.excerpts) == (first.positions, first.excerpts)
    assert (again.stats.read_tokens, again.stats.rated_tokens) == (0, first.stats.rated_tokens)
    both = engine.select_many(DOCUMENTS, ["Who?", "What is said?"], target_size=120)
    assert both[1].positions == first.positions
    assert both[0] == replace(
        engine.select(DOCUMENTS, "Who?", target_size=120), stats=both[0].stats
    )


@pytest.mark.parametrize(
    "change",
    [
        {"documents": [replace(DOCUMENTS[0], title="Another"), DOCUMENTS[1]]},
        {"documents": [replace(DOCUMENTS[0], id="c"), DOCUMENTS[1]]},
        {"documents": DOCUMENTS[::-1]},
        {"question": "Who?"},
        {"system": "Be brief."},
        {"target_size": 121},
        {"method": "contrast"},
        {"read_size": 200},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_else_is_another_selection(engine, change):
    asked = {"documents": DOCUMENTS, "question": "What is said?", "target_size": 120}
    engine.select(**asked)
    changed = engine.select(**(asked | change))
    fresh = FinchEngine(make_model(), make_tokenizer()).select(**(asked | change))
    assert (changed.positions, changed.prompt) == (fresh.positions, fresh.prompt)
    assert [replace(e, score=0) for e in changed.excerpts] == (
        [replace(e, score=0) for e in fresh.excerpts]
    )
    assert changed.document_shares == fresh.document_shares


def test_a_selection_of_another_scorer_is_another_selection(tokenizer):
    engine = FinchEngine(make_model(), tokenizer)
    alone = engine.select(DOCUMENTS, "What is said?", target_size=120)
    engine.scorer = FinchEngine(make_model(heads=8), tokenizer)
    scored = engine.select(DOCUMENTS, "What is said?", target_size=120)
    assert [e.score for e in scored.excerpts] != [e.score for e in alone.excerpts]
    assert scored.stats.read_tokens > 0


def test_what_is_read_at_once_leaves_room_for_the_longest_of_several_questions(tokenizer):
    engine = FinchEngine(make_model(max_position_embeddings=256), tokenizer)
    questions = ["Who?", "Who is there, and what is said of it? " * 4]
    unbroken = ["It was said again and again and " * 20]  # cut only where it must be
    chosen = engine.select_many(unbroken, questions, target_size=200)
    frames = [build_frame(tokenizer, selection.prompt) for selection in chosen]
    room = engine.window - max(len(f.prefix) + len(f.window.ids) for f in frames)
    assert 0 < room < 80  # else segments would be shorter in any case
    lengths = [engine.count_tokens(e.text) for selection in chosen for e in selection.excerpts]
    assert 0 < max(lengths) <= room


def test_old_selections_go():
    cache = SelectionCache(entries=2)
    for key in ("a", "b"):
        cache.put(key, key)
    assert cache.get("a") == "a"
    cache.put("c", "c")
    assert [cache.get(key) for key in ("a", "b", "c")] == ["a", None, "c"]
