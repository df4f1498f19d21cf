"""Hatchling's metadata hook: README.md as a package index shows it, without what only a clone has."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

IMAGE = re.compile(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")
DIAGRAM = re.compile(r"## [^\n]*\n+```mermaid\n.*?```\n*", re.DOTALL)


def long_description(readme: str) -> str:
    """The text without images and diagrams, and with the names of files where links to them stood."""
    text = DIAGRAM.sub("", IMAGE.sub("", readme))
    return LINK.sub(lambda found: found[1] if found[1] == found[2] else f"{found[1]} ({found[2]})", text)


class LongDescription(MetadataHookInterface):
    """The field `readme`."""

    def update(self, metadata: dict) -> None:
        """Set it."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": long_description(text)}
