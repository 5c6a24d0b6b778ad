"""The `finch` command, run in process on a tiny model."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from finch_integrations import FinchEngine, __version__
from finch_integrations.cli.app import app
from tests.peer import Reply, serving
from tests.tiny import text_of

run = CliRunner().invoke


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FINCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def files(tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.txt").write_text(text_of(300, seed=1))
    (folder / "b.md").write_text(text_of(100, seed=2))
    (folder / "empty.txt").write_text("")
    return folder


def options(model_folder, *more):
    return ["--model", model_folder, "--device", "cpu", "--dtype", "float32", *more]


def test_ask_streams_the_answer_and_names_sources_on_standard_error(model_folder, files):
    more = ("--target-size", "50", "--chunk-length", "64", "--max-tokens", "12")
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert result.exit_code == 0, result.output
    with FinchEngine.from_pretrained(model_folder, device="cpu", dtype="float32") as engine:
        documents = [
            {"text": (files / name).read_text(), "id": str(files / name)}
            for name in ("a.txt", "b.md")
        ]
        context = engine.compress(documents, "What?", target_size=50, chunk_length=64)
        expected = engine.generate(context, max_tokens=12)
    assert result.stdout == expected.text + "\n"
    assert f"skipped {files}/empty.txt: holds no text" in result.stderr
    for share in context.document_shares:
        assert (share.id in result.stderr) == (share.kept_tokens > 0)
    assert "402 document tokens, 120 rated, 50 kept (8.0x smaller)" in result.stderr
    assert f"peak KV {context.stats.peak_kv_tokens} tokens\n" in result.stderr
    statistics = result.stderr.splitlines()[-2:]
    assert all(len(line) < 80 for line in statistics), statistics


def test_the_answer_follows_a_schema_or_an_expression(tmp_path, model_folder, files):
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps({"type": "object", "properties": {"a": {"enum": [1, 2]}}}))
    for more, valid in (
        (("--schema", str(schema)), lambda text: json.loads(text) in ({}, {"a": 1}, {"a": 2})),
        (("--regex", "yes|no"), lambda text: text in ("yes", "no")),
    ):
        result = run(app, ["ask", "What?", str(files), *options(model_folder, "--json", *more)])
        assert result.exit_code == 0, result.output
        assert valid(json.loads(result.stdout)["answer"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--regex", "a", "--schema", "x.json"), "--schema or --regex"),
        (("--schema", "missing.json"), "the schema missing.json cannot be read"),
        (("--regex", "[a-"), "the regular expression cannot be compiled"),
    ],
)
def test_an_unusable_constraint_is_named(model_folder, files, arguments, message):
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *arguments)])
    assert result.exit_code == 1
    assert message in " ".join(result.output.split())


def test_a_budget_in_bytes_limits_what_the_answer_starts_from(model_folder, files):
    def ask(size):
        more = ("--json", "--max-tokens", "1", "--max-kv-bytes", size)
        return run(app, ["ask", "What?", str(files), *options(model_folder, *more)])

    with FinchEngine.from_pretrained(model_folder, device="cpu", dtype="float32") as engine:
        token = engine.backbone.spec.kv_bytes_per_token
    result = ask(str(token * 300))
    assert result.exit_code == 0, result.output
    kept = sum(source["kept_tokens"] for source in json.loads(result.stdout)["sources"])
    assert 0 < kept < 300
    result = ask("10")
    assert result.exit_code == 1
    assert "max_kv_bytes" in result.stderr


def test_ask_says_when_nothing_had_to_be_removed(model_folder, files):
    more = ("--target-size", "402", "--max-tokens", "1")
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert result.exit_code == 0, result.output
    assert "402 document tokens, all kept, peak KV" in result.stderr


def test_ask_json_is_one_object_with_everything(model_folder, files):
    more = ("--compression-ratio", "0.5", "--max-tokens", "5", "--json")
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert result.exit_code == 0, result.output
    answer = json.loads(result.stdout)
    assert answer["question"] == "What?"
    assert answer["finish_reason"] == "length"
    assert {s["id"] for s in answer["sources"]} == {f"{files}/a.txt", f"{files}/b.md"}
    assert sum(s["kept_tokens"] for s in answer["sources"]) == pytest.approx(201)
    assert all(0 <= s["kept_share"] <= 1 for s in answer["sources"])
    best = [s["best_passage"] for s in answer["sources"]]
    scores = [passage["score"] for passage in best if passage]
    assert len(scores) == sum(s["kept_tokens"] > 0 for s in answer["sources"])
    assert scores == sorted(scores, reverse=True)
    assert [file["path"] for file in answer["skipped"]] == [f"{files}/empty.txt"]
    statistics = answer["statistics"]
    assert (statistics["document_tokens"], statistics["kept_tokens"]) == (402, 201)
    assert statistics["compression_ratio"] == 0.5
    assert statistics["generation_tokens"] == 5


def test_ask_shows_the_best_passage_of_the_best_source_first(tmp_path, model_folder):
    (tmp_path / "a.txt").write_text("Nothing of that kind is said in here. " * 9, "utf-8")
    (tmp_path / "b.txt").write_text("The lamp oil stands behind the red shed door. " * 9, "utf-8")
    more = ("--target-size", "300", "--max-tokens", "1")
    question = "Where does the lamp oil stand? Behind the red shed door?"
    result = run(app, ["ask", question, str(tmp_path), *options(model_folder, *more)])
    lines = result.stderr.splitlines()
    first = next(n for n, line in enumerate(lines) if line.endswith(f"%  {tmp_path}/b.txt"))
    assert "The lamp oil stands behind the red shed" in lines[first + 1]
    assert all(len(line) <= 80 for line in lines if line.startswith(" " * 10))
    assert not any("a.txt" in line for line in lines[:first])


def test_a_scorer_chooses_what_the_model_reads(folders, files):
    large, small = map(str, folders)
    more = ("--scorer", small, "--target-size", "50", "--max-tokens", "3", "--json")
    result = run(app, ["ask", "What?", str(files), *options(large, *more)])
    assert result.exit_code == 0, result.output
    place = {"device": "cpu", "dtype": "float32"}
    documents = [(files / name).read_text() for name in ("a.txt", "b.md")]
    with (
        FinchEngine.from_pretrained(small, **place) as scorer,
        FinchEngine.from_pretrained(large, **place, scorer=scorer) as engine,
    ):
        context = engine.compress(documents, "What?", target_size=50)
    found = json.loads(result.stdout)
    assert (found["model"], found["scorer"]) == (large, small)
    kept = {share.tokens: share.kept_tokens for share in context.document_shares}
    assert {s["tokens"]: s["kept_tokens"] for s in found["sources"]} == kept
    assert found["statistics"]["peak_kv_tokens"] == context.stats.peak_kv_tokens


def test_what_was_read_is_kept_for_the_next_start_if_asked_for(model_folder, files, cache):
    more = ("--target-size", "50", "--max-tokens", "1")

    def ask(question, *flags):
        result = run(app, ["ask", question, str(files), *options(model_folder, *more, *flags)])
        assert result.exit_code == 0, result.output
        return result.stderr

    assert "read before" not in ask("What?")
    assert not (cache / "passages").exists()
    assert "read before" not in ask("What?", "--keep-passages")
    assert "of them read before" in ask("Who?", "--keep-passages")
    assert "read before" not in ask("Who?")


def test_a_read_size_limits_what_is_rated(model_folder, files):
    more = ("--target-size", "50", "--max-tokens", "1", "--read-size", "100", "--json")
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    statistics = json.loads(result.stdout)["statistics"]
    assert 50 <= statistics["rated_tokens"] <= 100 < statistics["document_tokens"]


def test_the_scores_can_decide_how_much_is_kept(model_folder, files):
    more = options(model_folder, "--target-size", "auto", "--max-tokens", "1")
    result = run(app, ["ask", "What?", str(files), *more, "--json"])
    assert result.exit_code == 0, result.output
    statistics = json.loads(result.stdout)["statistics"]
    assert 192 <= statistics["kept_tokens"] < statistics["document_tokens"]
    reason = {"scores": "no others score nearly as high", "floor": "the least"}
    said = run(app, ["ask", "What?", str(files), *more]).stderr
    assert reason[statistics["limited_by"]] in " ".join(said.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "What?", "nowhere"], "no file or folder nowhere"),
        (["ask", "What?", "FILES", "--target-size", "0"], "target_size must be"),
        (["ask", "What?", "FILES", "--target-size", "many"], "or 'auto', got 'many'"),
        (
            ["ask", "What?", "FILES", "--target-size", "9", "--compression-ratio", ".5"],
            "one budget",
        ),
        (["ask", "What?", "FILES", "--max-tokens", "0"], "max_tokens"),
        (["ask", "What?", "FILES", "--method", "magic", "--model", "MODEL"], "unknown method"),
        (["ask", " ", "FILES", "--model", "MODEL"], "the question is empty"),
        (["ask", "What?", "FILES", "--model", "./nowhere"], "no model folder"),
        (["ask", "What?", "FILES", "--device", "abacus"], "device 'abacus'"),
        (
            ["ask", "What?", "FILES", "--method", "finch", "--scorer", "x", "--model", "x"],
            "a scorer chooses passages and does nothing in the method 'finch'",
        ),
        (["ask", "What?", "FILES", "--model", "MODEL", "--scorer", "./nowhere"], "no model folder"),
    ],
)
def test_mistakes_end_in_one_message_without_a_traceback(model_folder, files, arguments, message):
    places = {"FILES": str(files / "a.txt"), "MODEL": model_folder}
    result = run(app, [places.get(argument, argument) for argument in arguments])
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_ctrl_c_ends_quietly(model_folder, files, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(FinchEngine, "compress", interrupt)
    result = run(app, ["ask", "What?", str(files / "a.txt"), *options(model_folder)])
    assert result.exit_code == 130
    assert result.stderr == "error: interrupted\n"


def test_models_lists_what_is_cached(tmp_path, monkeypatch):
    monkeypatch.setenv("FINCH_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    result = run(app, ["models"])
    assert (result.exit_code, result.stdout) == (0, "")
    assert "finch fetch" in result.stderr

    from finch_integrations.engine import embedded

    folder = embedded.MODEL.folder
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"x" * 2_000_000)
    result = run(app, ["models"])
    assert result.stdout == f"embedded  2 MB  {folder}\n"
    listed = json.loads(run(app, ["models", "--json"]).stdout)
    assert listed == [{"model": "embedded", "path": str(folder), "bytes": 2_000_000}]


def test_version():
    assert run(app, ["--version"]).stdout == f"finch {__version__}\n"


def test_the_module_runs_like_the_command():
    output = subprocess.run(
        [sys.executable, "-m", "finch_integrations", "--version"], capture_output=True, text=True
    )
    assert output.stdout == f"finch {__version__}\n"


def test_ask_writes_a_report(tmp_path, model_folder, files):
    page = tmp_path / "kept.html"
    more = ("--target-size", "50", "--max-tokens", "3", "--report", str(page))
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert result.exit_code == 0, result.output
    assert f"Report: {page}" in result.stderr
    assert f"{files}/a.txt" in page.read_text("utf-8")
    more += ("--compare", "finch", "--compare", "20")
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert result.exit_code == 0, result.output
    assert all(f"<h3>{name}</h3>" in page.read_text("utf-8") for name in ("finch", "20 tokens"))
    more = ("--report", str(tmp_path / "nowhere" / "kept.html"))
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert result.exit_code == 1
    assert "there is no folder" in result.stderr
    more = ("--report", str(tmp_path))
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert (result.exit_code, result.stdout) == (1, "")
    assert f"{tmp_path} is a folder" in result.stderr
    for more, message in {
        ("--compare", "finch"): "--compare needs --report",
        ("--compare", "snapkv", "--report", str(page)): "'snapkv' is nothing to compare with",
    }.items():
        result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert message in result.stderr


def test_a_report_that_cannot_be_written_costs_no_answer(
    tmp_path, model_folder, files, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("finch_integrations.report.Report.save", full)
    more = ("--max-tokens", "3", "--json", "--report", str(tmp_path / "kept.html"))
    result = run(app, ["ask", "What?", str(files), *options(model_folder, *more)])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["finish_reason"] == "length"
    assert "cannot be written to" in result.stderr
    assert "No space left on device" in result.stderr


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_ask_lets_a_server_answer_from_what_is_chosen_here(model_folder, files):
    more = ("--model", "big", "--scorer", model_folder, "--dtype", "float32", "--target-size", "50")
    with serving() as peer:
        result = run(app, ["ask", "What?", str(files), "--base-url", peer.url, *more])
        as_json = run(app, ["ask", "What?", str(files), "--base-url", peer.url, *more, "--json"])
    assert result.exit_code == 0, result.output
    assert result.stdout == "The code is 7316.\n"
    assert "402 document tokens, 75 rated, 50 kept (8.0x smaller)" in result.stderr
    body = peer.requests[0]["body"]
    assert (body["model"], body["max_tokens"], body["temperature"]) == ("big", 256, 0.0)
    with FinchEngine.from_pretrained(model_folder, device="cpu", dtype="float32") as engine:
        documents = [
            {"text": (files / name).read_text(), "id": str(files / name)}
            for name in ("a.txt", "b.md")
        ]
        excerpts = engine.extract(documents, "What?", target_size=50)
    sent = body["messages"][-1]["content"]
    assert excerpts
    assert all(excerpt.text in sent for excerpt in excerpts)
    answer = json.loads(as_json.stdout)
    assert (answer["answer"], answer["model"]) == ("The code is 7316.", "big")
    assert answer["statistics"]["kept_tokens"] == 50


@pytest.mark.allow_hosts(["127.0.0.1"])
def test_ask_reports_a_servers_errors_in_one_line(model_folder, files, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-secret")
    more = ("--model", "big", "--scorer", model_folder, "--api-key-env", "MY_KEY")
    reply = Reply(status=401, content={"error": "wrong key sk-secret"})
    with serving(reply) as peer:
        result = run(app, ["ask", "What?", str(files), "--base-url", peer.url, *more])
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: the server at")
    assert "MY_KEY" in result.stderr
    assert "sk-secret" not in result.output


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--base-url", "http://127.0.0.1:9"), "needs --model"),
        (("--api-key-env", "KEY"), "--api-key-env needs --base-url"),
        (("--base-url", "nonsense", "--model", "m"), "base_url must be"),
        (("--base-url", "http://127.0.0.1:9", "--model", "m", "--method", "finch"), "prunes"),
        (("--base-url", "http://127.0.0.1:9", "--model", "m", "--report", "r.html"), "report"),
    ],
)
def test_ask_refuses_what_makes_no_sense_with_a_server(files, more, message):
    result = run(app, ["ask", "What?", str(files), *more])
    assert result.exit_code == 1
    assert message in result.stderr
