"""Whatever is passed to the API and the command line: an answer, or one of our errors."""

import json
import math

import pytest
from typer.testing import CliRunner

from finch_integrations import Document, FinchEngine, FinchError, FinchRAG, SamplingParams
from finch_integrations.cli.app import app
from finch_integrations.config import CompressionConfig, RetrievalConfig
from finch_integrations.pipeline.rag import WholeSet
from finch_integrations.retrieval.hybrid import HybridRetriever
from tests.hostile.conftest import amount
from tests.tiny import CHATML, make_model, make_tokenizer, text_of

ODD = [
    None, True, 0, -1, 1.5, math.nan, math.inf, 10**30, 2**64, 1e-320, "", " ", "\x00", "\ud800",
    "x" * 1000, "\x1b[2J", "<|im_end|>", "[" * 1000, b"bytes", [], [None], [[]], {}, {"a": 1},
    {1: 2, "b": 3}, set(), object(), Exception, lambda: None, iter([]), [float("nan")], ("a",),
]  # fmt: skip
DOCUMENTS = [text_of(80, seed=1), text_of(60, seed=2)]


def typed(call, *args, **kwargs):
    """Call it; anything but an answer and our own errors fails the test."""
    try:
        call(*args, **kwargs)
    except FinchError as error:
        return bool(str(error).strip())
    return False


@pytest.fixture(scope="module")
def engine():
    return FinchEngine(
        make_model(), make_tokenizer(), compression=CompressionConfig(target_size=40)
    )


@pytest.fixture(scope="module")
def context(engine):
    return engine.compress(DOCUMENTS, "What?")


@pytest.mark.parametrize("config", [CompressionConfig, SamplingParams, RetrievalConfig])
def test_options_of_every_kind_are_checked(config):
    tried = sum(typed(config, **{name: odd}) for name in config.__dataclass_fields__ for odd in ODD)
    assert tried > len(config.__dataclass_fields__) * 10


def test_documents_of_every_kind(engine):
    for odd in ODD:
        typed(engine.select, odd, "What?")
        typed(engine.select, [odd], "What?")
        typed(engine.select, [Document("text", id=odd)], "What?")
        typed(engine.select, [Document("text", title=odd)], "What?")
        typed(engine.select, [{"text": "text", "metadata": odd}], "What?")
    assert typed(engine.select, None, "What?")


def test_questions_and_what_is_around_them(engine):
    for odd in ODD:
        for name in ("system", "history", "instruction", "chat_template_kwargs"):
            typed(engine.compress, DOCUMENTS, "What?", **{name: odd})
        typed(engine.compress, DOCUMENTS, odd)
    for instruction in (3, "\x00", "\ud800", None):
        assert typed(engine.compress, DOCUMENTS, "What?", instruction=instruction)
    for kwargs in ({"tokenize": True}, {"add_generation_prompt": False}, {1: 2}, "x", [1]):
        assert typed(engine.compress, DOCUMENTS, "What?", chat_template_kwargs=kwargs)


def test_contexts_and_files(engine, context, tmp_path):
    for odd in ODD:
        assert typed(engine.generate, odd, max_tokens=1)
        typed(engine.generate, context, question=odd, max_tokens=1)
    assert typed(context.save, tmp_path)
    assert typed(engine.load_context, tmp_path)


@pytest.mark.parametrize(
    "options",
    [{"seed": 2**64}, {"temperature": 1e-320}, {"temperature": math.nan}, {"top_p": 0}],
)
def test_sampling_that_cannot_work_is_refused(options):
    assert typed(SamplingParams, **options)


def test_a_device_without_numbers_is_refused(tmp_path):
    assert typed(FinchEngine.from_pretrained, tmp_path, device="meta")


@pytest.mark.parametrize(
    "broken", ["{{ 1 / 0 }}", "{{ messages[9].x.y }}", "{{ raise }}{% for %}", "{{ {}['a']['b'] }}"]
)
def test_a_template_that_raises_is_a_typed_error(broken):
    engine = FinchEngine(
        make_model(), make_tokenizer(broken + CHATML), compression=CompressionConfig(target_size=40)
    )
    assert typed(engine.compress, DOCUMENTS, "What?")


class Returns:
    """An encoder and a reranker that return something."""

    name = "odd"

    def __init__(self, value):
        self.value = value

    def encode_documents(self, texts):
        return self.value

    def encode_query(self, query):
        return self.value

    def __call__(self, pairs):
        return self.value


def test_encoders_and_rerankers_that_return_anything(engine):
    for odd in ODD:
        assert typed(HybridRetriever.from_documents, DOCUMENTS, encoder=Returns(odd))
        retriever = HybridRetriever.from_documents(["one two", "three"], reranker=Returns(odd))
        assert typed(retriever.retrieve, "one")


def test_metadata_with_keys_of_several_kinds_is_refused_where_it_cannot_be_kept(tmp_path):
    documents = [Document("text", metadata={1: "a", "b": 2})]
    assert typed(HybridRetriever.from_documents(documents).save, tmp_path / "index")
    assert not (tmp_path / "index").exists()


def test_a_history_that_is_no_list_of_messages(engine):
    rag = FinchRAG(WholeSet(["one two"]), engine)
    for odd in (None, "text", 3):
        assert typed(rag.answer, "one?", history=odd)


def test_the_command_line_with_anything(tmp_path, rng):
    (tmp_path / "a.txt").write_text("The door code is 4711.")
    index = str(tmp_path / "index")
    run = CliRunner().invoke
    built = run(app, ["index", str(tmp_path / "a.txt"), "-o", index, "--encoder", "none"])
    assert built.exit_code == 0
    words = [
        "", " ", "-", "--", "--nonsense", "-i", index, "--top-k", "0", "-1", "nan", "1e999",
        "9" * 30,
        "\x1b[31m", "\udc80", "x" * 5000, "/dev/null", "/proc/self/mem", str(tmp_path), "../" * 50,
        "--json", "--out", "search", "index", "cache", "--folder", "--encoder", "no/such",
        "🚪", "a\nb",
    ]  # fmt: skip
    for _ in range(amount(400, 60)):
        command = rng.choice(["search", "index", "cache", "ask"])
        args = [command, *rng.choices(words, k=rng.randrange(1, 5))]
        if command == "ask":
            args += ["--index", "nowhere"]  # no model is loaded
        if command == "index":
            args += ["--encoder", "none", "--out", str(tmp_path / "made")]
        if "--clear" in args:
            continue
        result = run(app, args, env={"FINCH_CACHE": str(tmp_path / "cache")})
        assert result.exit_code in (0, 1, 2), (args, result.output)
        assert "Traceback" not in result.output
        assert "does not know" not in result.output, (args, result.output)
    assert json.loads(run(app, ["search", "door", "-i", index, "--json"]).stdout)
