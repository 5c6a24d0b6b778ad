"""Count what a plain question passes through until its first token, on all threads.

Functions are those of this package, without comprehensions; depth is how many are within each
other. Each entry is asked twice, and the second question counts; `finch ask` loads its model again.
"""

import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from traceback import walk_stack
from types import CodeType, FrameType

from typer.testing import CliRunner

import finch_integrations
from finch_integrations import FinchRAG
from finch_integrations.cli.app import app
from finch_integrations.langchain import ChatFinch
from finch_integrations.pipeline.rag import WholeSet

ROOT = str(Path(finch_integrations.__file__).parent)
TEXTS = [f"Room {n} opens with the code {n}7316. Visitors wait in its hall. " * 3 for n in (1, 2)]
seen: dict[CodeType, int] = {}  # function -> how deep it was at most
following = False


def follow(frame: FrameType, event: str, _: object) -> None:
    """Note a function that begins; stop once the first token is there."""
    global following
    if event == "return" and frame.f_code.co_qualname == "Sampler.__call__":
        following = False
    if following and event == "call":
        within = [one.f_code for one, _ in walk_stack(frame)]
        functions = [code for code in within if not code.co_name.endswith(("expr>", "comp>"))]
        ours = [code for code in functions if code.co_filename.startswith(ROOT)]
        if ours and ours[0] is frame.f_code:
            seen[ours[0]] = max(seen.get(ours[0], 0), len(ours))


def walk(name: str, ask: Callable[[str], object]) -> None:
    """Print what the second of two questions passes through."""
    global following
    ask(f"Where do visitors wait, {name}?")
    seen.clear()
    following = True
    ask(f"Which code opens room 1, {name}?")
    files = {code.co_filename for code in seen}
    print(f"{name}: {len(seen)} functions, {max(seen.values())} deep, in {len(files)} files")


if __name__ == "__main__":
    threading.setprofile(follow)
    sys.setprofile(follow)
    chat = ChatFinch(max_tokens=1, target_size=60)
    walk("ChatFinch.invoke", lambda question: chat.invoke(question, documents=TEXTS))
    rag = FinchRAG(WholeSet(TEXTS), compression={"target_size": 60}, sampling={"max_tokens": 1})
    walk("FinchRAG.answer", rag.answer)
    with tempfile.TemporaryDirectory() as folder:
        for number, text in enumerate(TEXTS):
            Path(folder, f"{number}.txt").write_text(text)
        options = [folder, "--target-size", "60", "--max-tokens", "1"]
        walk("finch ask", lambda said: CliRunner().invoke(app, ["ask", said, *options]))
