"""Pictures in the notebooks, so that they are seen where nobody runs them: make pictures.

Only pictures are kept of what a notebook shows, with few colours; all else is stripped.
"""

import base64
import hashlib
import io
import json
from pathlib import Path
from typing import Any

from benchmarks.quality import RESULTS

ROOT = Path(__file__).parents[2]
# With what their pictures are made from, besides their own code.
SHOWN = {
    ROOT / "notebooks" / "04_what_finch_keeps.ipynb": (),
    ROOT / "notebooks" / "05_paper_figures.ipynb": (
        *sorted(Path(__file__).parent.glob("*.py")),
        *(
            RESULTS / f"{name}.json"
            for name in ("length", "prefill", "quality", "retrieval", "scale")
        ),
    ),
}
_COLOURS = 24


def digest(path: Path) -> str:
    """Identifies what a notebook's pictures are made from: its code, and what it reads."""
    cells = json.loads(path.read_text("utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    found = hashlib.sha256("\n".join(code).encode())
    for used in SHOWN[path]:
        found.update(used.read_bytes())
    return found.hexdigest()[:16]


def store_pictures(path: Path) -> None:
    """Run a notebook and keep its pictures in it."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    metadata = dict(notebook.metadata)
    NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(ROOT)}}).execute()
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        pictures = [
            nbformat.v4.new_output("display_data", {"image/png": _smaller(data["image/png"])})
            for output in cell.outputs
            if "image/png" in (data := output.get("data", {}))
        ]
        cell.outputs, cell.execution_count = pictures, None
        # nbstripout leaves those alone.
        cell.metadata = {"keep_output": True} if pictures else {}
    notebook.metadata = metadata | {"pictures_made_from": digest(path)}
    nbformat.write(notebook, path)


def _smaller(png: str) -> str:
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(png))) as picture:
        few: Any = picture.convert("RGB").quantize(_COLOURS)
    file = io.BytesIO()
    few.save(file, "png", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def main() -> None:
    """Store the pictures of all notebooks that show some."""
    for path in SHOWN:
        store_pictures(path)
        print(path)


if __name__ == "__main__":
    main()
