"""What is done to the pages when mkdocs builds the site.

A page says `<!-- generated: NAME -->`; that is replaced by the part of this name in `page_parts`.
"""

import re
from pathlib import Path
from typing import Any

from page_parts import PARTS  # next to this file: mkdocs finds it


def on_page_markdown(markdown: str, page: Any = None, **_: Any) -> str:
    """Write the generated parts; called by mkdocs."""
    if page is not None and page.file.src_uri == "troubleshooting.md":
        markdown = messages_as_headings(markdown)
    markdown = re.sub(r"<!-- generated: (\w+) -->", lambda part: PARTS[part[1]](), markdown)
    # A list inside a numbered one: three spaces are enough everywhere but here.
    return re.sub(r"^   (?=- )", "    ", markdown, flags=re.M)


def messages_as_headings(markdown: str) -> str:
    """Turn tables of messages into headings, which the site's search finds one by one."""
    markdown = re.sub(r"^\| message \| fix \|\n\|---\|---\|\n", "", markdown, flags=re.M)
    return re.sub(r"^\| (.*?`) \| (.*) \|$|^\| (.+?) \| (.*) \|$", _heading, markdown, flags=re.M)


def _heading(row: re.Match[str]) -> str:
    message, fix = row[1] or row[3], row[2] or row[4]
    return f"### {message}\n\n{fix}\n"


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
