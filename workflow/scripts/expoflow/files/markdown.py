"""Texts of others (paths, names of tensors, what a config says) in Markdown, where they must stay texts."""

import html
from collections.abc import Iterable, Sequence

from expoflow.errors import shown


def code(text: str) -> str:
    """`text` as code in Markdown, in one line and also in a table's cell, whatever it holds."""
    return f"`{shown(' '.join(text.split())).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def prose(text: str) -> str:
    """`text` as words in Markdown: one line, no HTML."""
    return html.escape(shown(" ".join(text.split())), quote=False)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], numbers: bool = True) -> str:
    """A Markdown table; with `numbers` all but the first column stand to the right."""
    align = ["---", *["---:" if numbers else "---"] * (len(header) - 1)]
    lines = (header, align, *rows)
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)
