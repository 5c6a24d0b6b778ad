"""What the README and the pages of docs/ are made of: code blocks, commands, names."""

import ast
import importlib
import inspect
import re
import shlex
import sys
from dataclasses import dataclass, fields
from pathlib import Path

from finch_integrations import CompressionConfig, FinchEngine, RetrievalConfig, SamplingParams

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
_BLOCK = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.M | re.S,
)
# What `**overrides` of our own methods stand for.
OPTIONS = {f.name for c in (CompressionConfig, RetrievalConfig, SamplingParams) for f in fields(c)}


@dataclass(frozen=True)
class Block:
    """A fenced block; `reason` says why it is not run, if it is not."""

    language: str
    code: str
    reason: str | None


def read(name):
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(name):
    text = read(name)
    found = [Block(m["language"], m["code"], m["reason"]) for m in _BLOCK.finditer(text)]
    assert len(found) * 2 == len(re.findall("^```", text, re.M)), "every fence is understood"
    assert text.count("<!-- not run:") == sum(b.reason is not None for b in found)
    return found


def finch_commands(block):
    """The arguments of every `finch` command of a block."""
    return [
        shlex.split(line, comments=True)[1:]
        for line in block.code.splitlines()
        if block.language in ("", "bash") and line.startswith("finch ")
    ]


def check_names(code):
    """Make sure that the names of this package, and the options they are called with, exist."""
    known = {}
    tree = ast.parse(code)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module.startswith("finch_integrations"):
            module = importlib.import_module(node.module)
            known |= {alias.name: getattr(module, alias.name) for alias in node.names}
    # Methods of what was made: `engine = FinchEngine.from_pretrained(…)` makes a FinchEngine.
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            made = node.value.func
            made = made.value if isinstance(made, ast.Attribute) else made
            if isinstance(made, ast.Name) and inspect.isclass(known.get(made.id)):
                known |= {t.id: known[made.id] for t in node.targets if isinstance(t, ast.Name)}
    checked = 0
    for call in [node for node in ast.walk(tree) if isinstance(node, ast.Call)]:
        function = _resolve(call.func, known)
        if function is not None:
            _check_call(function, call)
            checked += 1
    return checked


def _resolve(node, known):
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        owner = known.get(node.value.id)
        return owner and getattr(owner, node.attr)  # an attribute that is not there is an error
    return None


def _check_call(function, call):
    given = {keyword.arg for keyword in call.keywords if keyword.arg}
    parameters = inspect.signature(function).parameters
    unknown = given - parameters.keys()
    # Models take what transformers takes.
    if function != FinchEngine.from_pretrained:
        assert unknown <= OPTIONS, f"{function} has no option {unknown - OPTIONS}"
    variadic = {p.kind for p in parameters.values()} & {inspect.Parameter.VAR_KEYWORD}
    assert variadic or not unknown, f"{function} has no option {unknown}"


def load_page_parts():
    """The package next to the pages that writes their generated parts, found as mkdocs finds it."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("page_parts")
    finally:
        sys.path.remove(str(ROOT / "docs"))
