"""Texts of others (paths, names of tensors, what a config says) in Markdown, where they must stay texts."""

import html

from expoflow.errors import shown


def code(text: str) -> str:
    """`text` as code in Markdown, in one line and also in a table's cell, whatever it holds."""
    return f"`{shown(' '.join(text.split())).replace('`', chr(39)).replace('|', chr(92) + '|')}`"


def prose(text: str) -> str:
    """`text` as words in Markdown: one line, no HTML."""
    return html.escape(shown(" ".join(text.split())), quote=False)
