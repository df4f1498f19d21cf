"""Escaped text from outside (paths, names of tensors, config values) in Markdown."""

import html
from collections.abc import Iterable, Sequence

from expoflow.errors import shown


def code(text: str) -> str:
    """`text` as code in Markdown on one line. Any text is safe, in table cells too."""
    return f"`{shown(' '.join(text.split())).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def prose(text: str) -> str:
    """`text` as words in Markdown: one line, no HTML."""
    return html.escape(shown(" ".join(text.split())), quote=False)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> str:
    """A Markdown table. With `numbers`, all columns but the first are aligned to the right."""
    align = ["---", *["---:" if numbers else "---"] * (len(header) - 1)]
    lines = (header, align, *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
