"""README and docs/ say what is true: their code runs, their commands, names and messages exist."""

import ast
import importlib
import inspect
import json
import os
import re
import statistics
import subprocess
import sys
from dataclasses import fields

import pytest
import typer
from typer.testing import CliRunner

import finch_integrations
from finch_integrations import CompressionConfig, FinchError, RetrievalConfig, errors
from finch_integrations.cli.app import app
from finch_integrations.engine import embedded
from tests.documentation import (
    NAMES,
    ROOT,
    Block,
    blocks,
    check_names,
    finch_commands,
    load_page_parts,
    read,
)

README = read("README.md")
COMMANDS = typer.main.get_command(app).commands
# Answers are checked where the examples' documents say what the right one is.
PRINTED = {
    "README.md": {"7316": 3, "kept": 1},
    "docs/index.md": {"7316": 5, "kept": 3},
    "docs/langchain.md": {"7316": 4, "mark": 1},
    "docs/migrating.md": {"7316": 2},
    "docs/retrieval.md": {"lab.md#1 Doors": 1, "lab.md Doors": 1, "7316": 1},
    "docs/troubleshooting.md": {"ConfigurationError unknown option 'target_sise'; did you": 1},
}


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with short documents where the pages have long ones."""
    folder = tmp_path / "examples" / "station-handbook"
    folder.mkdir(parents=True)
    (folder / "04-laboratory.md").write_text(
        "# Stores\nThe chemical store has a lock. The door code of the chemical store is 7316.\n"
    )
    (folder / "food.md").write_text("# Kitchen\nDinner is at seven. The kitchen closes at nine.\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("thread_loop")
@pytest.mark.model
@pytest.mark.parametrize(
    "name", [name for name in NAMES if any(b.language == "python" for b in blocks(name))]
)
def test_the_python_examples_of_a_page_run(
    name, embedded_engine, embedded_encoder, workplace, capsys
):
    """One after the other, as a reader would; the fixtures make sure that the models are there."""
    names = {}
    ran = 0
    for block in blocks(name):
        if block.language == "python" and block.reason is None:
            exec(compile(block.code, name, "exec"), names)
            ran += 1
    assert ran or name == "docs/gpu.md"
    output = capsys.readouterr().out
    for text, times in PRINTED.get(name, {}).items():
        assert output.count(text) >= times, output


@pytest.mark.parametrize("name", NAMES)
def test_examples_that_are_not_run_use_names_and_options_that_exist(name):
    for block in blocks(name):
        if block.language == "python" and block.reason:
            compile(block.code, name, "exec")
            check_names(block.code)


def test_a_wrong_name_or_option_in_such_an_example_is_found():
    start = (
        "from finch_integrations import FinchEngine\nengine = FinchEngine.from_pretrained('m')\n"
    )
    assert check_names(start + "engine.compress([], '', target_size=1)") == 2
    with pytest.raises(AssertionError, match="target_sise"):
        check_names(start + "engine.compress([], '', target_sise=1)")
    with pytest.raises(AttributeError):
        check_names(start + "engine.squeeze([])")
    with pytest.raises(AttributeError):
        check_names("from finch_integrations import FinchMotor")


@pytest.mark.model
@pytest.mark.parametrize("name", [n for n in NAMES if any(map(finch_commands, blocks(n)))])
def test_the_finch_commands_of_a_page_run(name, embedded_engine, embedded_encoder, workplace):
    for block in blocks(name):
        for arguments in finch_commands(block):
            if block.reason:
                COMMANDS[arguments[0]].make_context(arguments[0], arguments[1:])
                continue
            if arguments[0] == "ask":
                arguments += ["--max-tokens", "8"]  # the last one counts
            arguments = ["examples" if word == "FOLDER" else word for word in arguments]
            result = CliRunner().invoke(app, arguments)
            assert result.exit_code == 0, (arguments, result.output)


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_that_are_mentioned_exist(name):
    text = read(name)
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.M))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", text, re.M)) <= targets
    mentioned = re.findall(r"(?:`|^)finch ([^`\n]+)", text, re.M)
    for words in mentioned:
        command, *rest = words.split()
        if command.startswith("--"):
            assert command in ("--help", "--version")
            continue
        known = {"--help"} | {o for p in COMMANDS[command].params for o in p.opts}
        assert {word for word in rest if word.startswith("-")} <= known, words
    for module, options in re.findall(r"python -m (benchmarks\.\w+)([^`\n]*)", text):
        source = _source_of_command(module)
        for option in re.findall(r"--[a-z-]+", options):
            assert f'"{option}"' in source, (module, option)
    extras = set(re.findall(r"^([a-z-]+) = \[", read("pyproject.toml"), re.M))
    for listed in re.findall(r"pip install[^`\n]*\[([a-z,-]+)\]", text):
        assert set(listed.split(",")) <= extras


def _source_of_command(module):
    path = module.replace(".", "/")
    own = read(f"{path}/__main__.py" if (ROOT / path).is_dir() else f"{path}.py")
    # Some of its options are those of several commands.
    return own + read("benchmarks/resumable.py") if "make_parser(" in own else own


def test_the_check_of_fences_finds_what_is_marked():
    found = [b.reason for b in blocks("docs/gpu.md") if b.language == "python"]
    assert found[0] == "needs a GPU"
    assert finch_commands(Block("bash", "finch ask 'a b' c  # d\nmake x\n", None)) == [
        ["ask", "a b", "c"]
    ]


def test_the_readmes_links_and_files_exist():
    for link in re.findall(r"\]\(([^)#]+)\)", README):
        assert link.startswith("https://") or (ROOT / link).exists(), link
    tree = read("CONTRIBUTING.md").split("## Where everything is")[1].split("\n## ")[0]
    for name in re.findall(r"^  ([a-z_]+)/", tree, re.M):
        assert (ROOT / "finch_integrations" / name).is_dir(), name
    for name in re.findall(r"\b([a-z_]+\.py)\b", tree):
        assert list((ROOT / "finch_integrations").rglob(name)), name


@pytest.mark.parametrize(
    ("page", "config", "left_out"),
    [
        ("docs/retrieval.md", RetrievalConfig, {"filter"}),
        ("docs/choosing.md", CompressionConfig, set()),
    ],
)
def test_tables_of_options_have_all_of_them_with_their_defaults(page, config, left_out):
    defaults = {field.name: field.default for field in fields(config)}
    if config is CompressionConfig:
        from finch_integrations.config import DEFAULT_TARGET_SIZE

        defaults["target_size"] = DEFAULT_TARGET_SIZE
    table = read(page).split("| meaning | default |")[1].split("\n\n")[0]
    documented = set()
    for names, values in re.findall(r"^\| (`.*?`) \|.*\| *(.*?) *\|$", table, re.M):
        for name, value in zip(
            re.findall(r"`(\w+)`", names), values.replace("`", "").split(", "), strict=False
        ):
            documented.add(name)
            if name not in left_out:
                expected = {"": None, "off": False}.get(value, value)
                assert str(defaults[name]).removesuffix(".0") == str(expected), name
    assert documented - left_out == defaults.keys()


# The pages that are made from code and results


@pytest.fixture(scope="module")
def parts():
    return load_page_parts()


def test_every_public_name_is_in_the_reference_and_described(parts):
    root = ROOT / "finch_integrations"
    exporting = {
        f"finch_integrations.{path.parent.name}"
        for path in root.glob("*/__init__.py")
        if "__all__" in path.read_text("utf-8")
    }
    assert {*exporting, "finch_integrations"} == set(parts.reference.PACKAGES)
    pages = {package: parts.reference.public_names(package) for package in parts.reference.PACKAGES}
    reference, overview = "\n".join(pages.values()), parts.reference.overview()
    for package in parts.reference.PACKAGES:
        assert (ROOT / "docs" / parts.reference.page_of(package)).exists()
        module = __import__(package, fromlist=["*"])
        for name in module.__all__:
            assert f".{name}\n" in f"{reference}\n", name
            assert f"[`{name}`](" in overview
            _check_described(getattr(module, name), f"{package}.{name}")


def _check_described(thing, name):
    """Docstrings of the thing itself, and of the methods that this package gives it."""
    assert thing.__doc__, name
    # Generated ones repeat the signature.
    assert not thing.__doc__.startswith(f"{name.rpartition('.')[2]}("), name
    for method, value in vars(thing).items() if inspect.isclass(thing) else ():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        ours = getattr(function, "__module__", "").startswith("finch_integrations")
        if inspect.isfunction(function) and ours and not method.startswith("_"):
            assert function.__doc__, f"{name}.{method}"


def test_every_option_of_the_command_line_is_in_its_reference(parts):
    reference = parts.reference.commands()
    for name, command in COMMANDS.items():
        section = reference.split(f"## finch {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            options = parameter.opts if parameter.param_type_name == "option" else ()
            assert all(f"`{option}`" in section for option in options if option != "--help")
            assert parameter.help.split(" (default")[0] in section, (name, parameter.name)
    assert "\nfinch ask QUESTION [PATH]... [OPTIONS]\n" in reference
    assert "\nfinch index PATH... [OPTIONS]\n" in reference
    size = "Document tokens to keep; auto: as many as the passages' scores call for."
    assert f"| `--target-size` | {size} | 2048 |" in reference


def test_the_memory_table_has_the_sizes_that_the_engine_counts(parts):
    """Models of the published shapes, without weights, asked as the engine asks them."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

    from finch_integrations.engine.support import inspect_model

    sizes = {}
    for model in parts.caches.MODELS:
        kinds = (LlamaConfig, LlamaForCausalLM)
        if model.name.startswith("Qwen3"):
            kinds = (Qwen3Config, Qwen3ForCausalLM)
        config = kinds[0](
            num_hidden_layers=model.layers,
            num_key_value_heads=model.kv_heads,
            num_attention_heads=model.kv_heads * 3,
            head_dim=model.head_dim,
            hidden_size=model.kv_heads * 24,
            intermediate_size=64,
            vocab_size=64,
            max_position_embeddings=model.window,
        )
        with torch.device("meta"):
            empty = kinds[1](config).to(torch.bfloat16)
        assert inspect_model(empty).kv_bytes_per_token == model.cache_bytes(1)
        assert inspect_model(empty).window == model.window
        sizes[model.name] = model.cache_bytes(1)
    # By hand: 2 · 32 · 8 · 128 · 2, 2 · 36 · 8 · 128 · 2 and 2 · 30 · 3 · 64 · 2 bytes.
    assert sizes["Llama-3.1-8B"] == sizes["Mistral-7B v0.3"] == 131_072
    assert sizes["Qwen3-8B"] == sizes["Qwen3-4B"] == 147_456
    assert sizes["SmolLM2-135M"] == 23_040
    table = parts.caches.memory()
    assert "| Llama-3.1-8B | 1 GiB | 2 GiB | 4 GiB | 8 GiB | 16 GiB | **403 MiB** |" in table
    assert "| SmolLM2-135M | 180 MiB | *360 MiB* |" in table  # beyond its window


@pytest.mark.model
def test_the_memory_tables_shape_of_the_embedded_model_is_the_real_one(parts, embedded_engine):
    small, spec = parts.caches.MODELS[-1], embedded_engine.backbone.spec
    assert small.cache_bytes(1, bytes_per_number=4) == spec.kv_bytes_per_token
    assert (small.layers, small.kv_heads, small.window) == (
        spec.num_layers,
        spec.num_kv_heads,
        spec.window,
    )


def test_the_memory_tables_bound_has_the_default_target_and_chunk(parts):
    from finch_integrations.config import DEFAULT_TARGET_SIZE

    caches = parts.caches
    assert (DEFAULT_TARGET_SIZE, CompressionConfig().chunk_length) == (caches.TARGET, caches.CHUNK)
    text = re.sub(r"\s+", " ", read("docs/choosing.md"))
    assert (
        f"a prefix of {caches.PREFIX}, the default target of {caches.TARGET:,}, a chunk of "
        f"{caches.CHUNK:,} and a question of {caches.QUESTION} tokens"
    ) in text


def test_the_tables_of_results_have_all_results(parts):
    report = json.loads(read("benchmarks/results/prefill.json"))
    assert all(f"| {name} |" in parts.prices.prefill() for name in report["ratios"])
    assert parts.results.recall().count("\n| ") == 2 + sum(
        map(len, json.loads(read("benchmarks/results/retrieval.json"))["results"].values())
    )
    assert "\n| hybrid query | " in parts.results.scale()
    for length in ("2k", "4k", "8k", "16k"):
        assert f"\n| {length}, 1/8 (" in parts.read_less.cascade()
    assert "\n| **3/8, words** | 0.37 | " in parts.read_less.cascade_choice()
    assert " seconds of the processor's time" in parts.prices.start()
    sections = json.loads(read("benchmarks/results/price.json"))
    long = [section for section in sections if section["target_size"] != parts.prices.TARGET]
    assert parts.prices.price_of_length().count("\n| ") == 2 + len(long) == 5
    assert "| 64k | **6k** | " in parts.read_less.read_cap()
    for how in ("everything", "cascade"):
        assert f"\n| {how} | 0." in parts.prices.price_of_many()
    assert "\n| titles | 1,014 | " in parts.prices.price_of_rows()


def test_the_pages_say_how_much_of_a_long_set_is_read():
    from finch_integrations.engine.budget import Budget, tokens_to_read

    most = f"{tokens_to_read(CompressionConfig(), Budget(1, 1), 10**9):,}"
    for page in ("methods", "choosing", "cache", "glossary", "scale"):
        assert f"{most}" in read(f"docs/{page}.md"), page
    assert f"at most {most}" in CompressionConfig.__doc__


def test_the_readmes_generated_parts_are_current(parts):
    """If not: python -m docs.write_readme."""
    from docs.write_readme import fill

    assert fill(README) == README
    assert README.count("<!-- generated: ") == len(parts.front.README_PARTS) == 2


def test_the_readmes_times_are_those_of_the_results():
    report = json.loads(read("benchmarks/results/price.json"))[0]
    first, second, prepared = (
        statistics.median(
            run[f"{name}, cascade"]["seconds"] / run["prefill"]["seconds"]
            for run in report["runs"]
            if f"{name}, cascade" in run
        )
        for name in ("first", "second", "prepared")
    )
    text = " ".join(README.split())
    assert (
        f"in {report['dtype']}, a question about {report['tokens']:,} tokens takes {first:.2f} "
        f"times as long as one full prefill of the same text; the next one {second:.2f}, or "
        f"{prepared:.2f} if"
    ) in text
    rows = json.loads(read("benchmarks/results/length.json"))["rows"]
    seconds = {(row["length"], row["method"]): row["seconds"] for row in rows}
    slower = [
        length
        for length, method in seconds
        if method == "likelihood" and seconds[length, method] > seconds[length, "full"]
    ]
    assert f"more than a prefill in chunks up to {max(slower)}k tokens" in text


@pytest.mark.model
def test_the_readmes_disk_space_is_what_the_embedded_model_takes(embedded_model):
    taken = sum(file.stat().st_size for file in embedded_model.rglob("*") if file.is_file())
    cost = f"{embedded.MODEL.size} to fetch and {taken / 1e6:.0f} MB in the user's cache folder"
    assert cost in README


@pytest.mark.model
@pytest.mark.slow
def test_the_readmes_first_example_prints_what_is_under_it(embedded_engine, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    found = blocks("README.md")
    number = next(n for n, block in enumerate(found) if block.language == "python")
    shown = found[number + 1]
    assert shown.language == "text"
    exec(compile(found[number].code, "README.md", "exec"), {})
    printed = capsys.readouterr().out
    # Kept to the token; on another processor the model's rounding may change its wording.
    assert printed.splitlines()[:2] == shown.code.splitlines()[:2]
    assert "7316" in printed.splitlines()[2]
    assert "7316" in shown.code.splitlines()[2]


def test_every_message_of_the_troubleshooting_is_a_heading_of_the_site(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "docs")
    hooks = importlib.import_module("hooks")
    page = read("docs/troubleshooting.md")
    headed = hooks.messages_as_headings(page)
    rows = re.findall(r"^\| (`.*`.*?) \| (.*) \|$", page, re.M)
    assert len(rows) >= 40
    assert all(f"### {message}\n\n{fix}\n" in headed for message, fix in rows)
    assert "\n|" not in headed


@pytest.mark.slow
def test_the_site_builds_strictly_and_takes_nothing_from_elsewhere(parts, tmp_path):
    """Strictly: a dead link or a page that is in no menu is an error."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_COLOR": "1"}
    )
    assert result.returncode == 0, result.stderr
    for page in tmp_path.rglob("*.html"):
        html = page.read_text(encoding="utf-8")
        assert "<!-- generated:" not in html
        assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?:https?:)?//', html)
    reference = "".join(page.read_text("utf-8") for page in tmp_path.glob("api-*.html"))
    for package in parts.reference.PACKAGES:
        for name in __import__(package, fromlist=["*"]).__all__:
            assert re.search(rf'id="finch_integrations\.(\w+\.)*{name}"', reference), name
    assert (tmp_path / "how-it-works.html").read_text("utf-8").count("<svg role=") == 2


# Errors


def test_every_error_has_its_place_in_the_troubleshooting():
    names = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, FinchError)
    }
    assert names <= set(finch_integrations.__all__)
    headings = set(re.findall(r"^## (\w+)$", read("docs/troubleshooting.md"), re.M))
    assert headings == names - {"FinchError"}


def test_the_messages_of_the_troubleshooting_are_those_of_the_code():
    messages = _messages()
    quoted = re.findall(r"^\| (`.*`.*?) \| .* \|$", read("docs/troubleshooting.md"), re.M)
    assert len(quoted) >= 40
    for cell in quoted:
        for quote in re.findall(r"`([^`]+)`", cell):
            parts = [part.strip() for part in quote.split("…")]
            assert any(all(part in message for part in parts) for message in messages), quote


def _messages():
    """Every text of the package, with … where something is put in."""
    found = []
    for path in (ROOT / "finch_integrations").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (p.value if isinstance(p, ast.Constant) else "…" for p in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found
