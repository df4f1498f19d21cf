"""Hatchling's metadata hook: README.md for a package index, without links to files of a clone."""

import re
from pathlib import Path

from hatchling.metadata.plugin.interface import MetadataHookInterface

IMAGE = re.compile(r"!\[[^\]]*\]\((?!https?:)[^)]*\)\n*")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)]+)\)")
DIAGRAM = re.compile(r"## [^\n]*\n+```mermaid\n.*?```\n*", re.DOTALL)


def long_description(readme: str) -> str:
    """Return the text without images and diagrams, with links to files replaced by the files' names."""
    text = DIAGRAM.sub("", IMAGE.sub("", readme))
    return LINK.sub(lambda found: found[1] if found[1] == found[2] else f"{found[1]} ({found[2]})", text)


class LongDescription(MetadataHookInterface):
    """The hook for the field `readme`."""

    def update(self, metadata: dict) -> None:
        """Set the field."""
        text = Path(self.root, "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": long_description(text)}
