"""What is done to the pages when mkdocs builds the site.

A page says `<!-- generated: NAME -->`; that is replaced by the part of this name in `page_parts`.
"""

import re
from pathlib import Path
from typing import Any

from page_parts import PARTS  # next to this file: mkdocs finds it


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Write the generated parts; called by mkdocs."""
    markdown = re.sub(r"<!-- generated: (\w+) -->", lambda part: PARTS[part[1]](), markdown)
    # A list inside a numbered one: three spaces are enough everywhere but here.
    return re.sub(r"^   (?=- )", "    ", markdown, flags=re.M)


def on_page_content(html: str, **_: Any) -> str:
    """Put diagrams into the page itself, where they follow its colours; called by mkdocs."""
    return re.sub(
        r'<img alt="([^"]*)" src="(diagrams/[^"]+\.svg)"[^>]*>',
        lambda image: (
            (Path(__file__).parent / image[2])
            .read_text(encoding="utf-8")
            .replace("<svg ", f'<svg role="img" aria-label="{image[1]}" ', 1)
        ),
        html,
    )
