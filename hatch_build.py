"""What the package says about itself beyond `pyproject.toml`: where the project is on the web.

One variable says it: FINCH_PROJECT_URL, the address of the repository. Without it there are no
project links, and the readme's links stay relative.
"""

import os
import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

VARIABLE = "FINCH_PROJECT_URL"


class ProjectLinks(MetadataHookInterface):
    """Fills in the project links, and the readme with links that work outside the repository."""

    PLUGIN_NAME = "custom"

    def update(self, metadata: dict[str, Any]) -> None:
        """Add to the metadata; called by hatchling."""
        base = os.environ.get(VARIABLE, "").rstrip("/")
        readme = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {
            "content-type": "text/markdown",
            "text": with_absolute_links(readme, base) if base else readme,
        }
        metadata["urls"] = project_urls(base) if base else {}


def project_urls(base: str) -> dict[str, str]:
    """The links that a package index shows."""
    return {
        "Repository": base,
        "Documentation": f"{base}/tree/main/docs",
        "Changelog": f"{base}/blob/main/CHANGELOG.md",
        "Issues": f"{base}/issues",
    }


def with_absolute_links(markdown: str, base: str) -> str:
    """Point links to files, and pictures, to the repository."""
    markdown = re.sub(r"(!\[[^]]*\]\()(?![a-z]+:|#)", rf"\1{base}/raw/main/", markdown)
    markdown = re.sub(r'((?:src|srcset)=")(?![a-z]+:|#)', rf"\1{base}/raw/main/", markdown)
    return re.sub(r"(?<!!)(\[[^]]*\]\()(?![a-z]+:|#)", rf"\1{base}/blob/main/", markdown)
