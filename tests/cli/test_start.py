"""What starting the command imports: no more than it needs, because that is what one waits for."""

import subprocess
import sys

import pytest

from tests.tiny import make_model, make_tokenizer, text_of

# Packages that are here, take long to import and are of no use to the commands below. (typer
# imports pydantic, and transformers imports accelerate and scipy, whatever is asked of them.)
FRAMEWORKS = {
    "datasets", "fastapi", "httpx", "jinja2", "langchain_core", "llama_index",
    "llguidance", "markitdown", "matplotlib", "openai", "pandas", 
    "sentence_transformers", "sklearn", "torchvision", "uvicorn",
}  # fmt: skip
ENGINE = {"bm25s", "numpy", "safetensors", "tokenizers", "torch", "transformers"}


def imported(*arguments, allow=()):
    """The heavy packages that a command imports, but for some that are allowed."""
    heavy = (FRAMEWORKS | ENGINE) - set(allow)
    code = (
        "import sys\n"
        "from finch_integrations.cli.app import app\n"
        "try:\n"
        f"    app({list(arguments)!r})\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"print('imported', sorted({heavy!r} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.rpartition("imported ")[2].strip()


@pytest.mark.parametrize("arguments", [["--help"], ["ask", "--help"], ["models"], ["cache"]])
def test_help_and_lists_start_without_what_computes(arguments, tmp_path, monkeypatch):
    monkeypatch.setenv("FINCH_CACHE", str(tmp_path))
    # Retrieval has its own list of models, and needs numpy, which takes a tenth of a second.
    assert imported(*arguments, allow={"numpy"} if arguments == ["models"] else ()) == "[]"


def test_asking_imports_the_engine_and_no_framework(tmp_path):
    make_model().save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "a.txt").write_text(text_of(300))
    found = imported(
        "ask", "What?", str(tmp_path / "a.txt"), "--model", str(tmp_path / "model"),
        "--device", "cpu", "--target-size", "50", "--max-tokens", "2", "--json",
        allow=ENGINE | {"jinja2"},  # chat templates
    )  # fmt: skip
    assert found == "[]"
