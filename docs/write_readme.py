"""Write the README's generated parts: python -m docs.write_readme."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def fill(readme: str) -> str:
    """Replace what is between `<!-- generated: NAME -->` and `<!-- end -->`."""
    from page_parts.front import README_PARTS

    return re.sub(
        r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)",
        lambda part: f"{part[1]}{README_PARTS[part[2]]()}\n{part[3]}",
        readme,
        flags=re.S,
    )


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "docs"))
    page = ROOT / "README.md"
    page.write_text(fill(page.read_text(encoding="utf-8")), encoding="utf-8")
