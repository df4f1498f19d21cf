"""The page of details: how every claim was measured, and all of its numbers."""

import re
from collections.abc import Mapping

from expoflow.claims.answers import Answer, Entry, met, paragraph, plain, spread
from expoflow.files.markdown import markdown_table

HEADER = ("quantity", "subject", "mean (smallest to largest) ± interval", "as expected")
LABELS = {  # quantities of measures.csv that need more words
    "ratio": "ratio of largest to smallest",
    "largest over smallest": "ratio of largest to smallest",
    "preference margin, apart": "preference margin, relative difference minus 0.1",
    "expected reward, apart": "expected reward, relative difference minus 0.1",
    "steps": "steps of the grid",
    "first share that is ahead": "smallest share that is clearly ahead",
    "quality": "true quality",
    "plain": "plain win rate minus 50",
    "length-controlled": "length-controlled win rate minus 50",
    "unfinished": "share of unfinished responses",
    "unfinished at the grid's end": "share of unfinished responses at the end of the grid",
    "reward at the grid's end": "reward at the end of the grid",
}
TEXT = """# The paper's claims: how they were measured

[{page}](../{page}) has the summary, the verdicts, and how to read a number. This page has the
same claims in the same order. It says how each was measured, and has all of its numbers. A number
without an entry in the last column takes no part in the verdict. If a quantity has many subjects
(pairs, tasks or kinds of pair), they are pooled. [measures.csv](measures.csv) has every subject in
every run.
"""


def page(found: Mapping[str, Answer], claims: Mapping[int, str], name: str) -> str:
    """The Markdown of the page.

    `claims` are headings by number, in order. `name` is the file name of the main page.
    """
    text = TEXT.format(page=name)
    for claim, title in claims.items():
        own = [answer for answer in found.values() if answer.statement.claim == claim]
        if own:
            text += f"\n## {title}\n" + "".join(map(_section, own))
    return text


def anchor(heading: str) -> str:
    """The anchor that GitHub and MkDocs give a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _section(answer: Answer) -> str:
    """How a statement was measured, its numbers, and the subjects that are not as expected."""
    statement, entries = answer.statement, list(answer.entries())
    verdict = f"Verdict: **{answer.verdict}**. " if answer.verdict else ""
    text = f"\n### {statement.phrase}\n\n{verdict}Paper: {_section_of(statement.section)}.\n\n"
    text += paragraph(statement.how) + "\n"
    text += markdown_table(HEADER, [_line(entry) for entry in entries], numbers=False)
    for entry in entries:
        if entry.exceptions:
            names = ", ".join(entry.exceptions)
            text += "\n" + paragraph(f"Not as expected in at least one run ({_label(entry)}): {names}.")
    return text


def _section_of(section: str) -> str:
    return f"section {section}" if section[0].isdigit() else section


def _line(entry: Entry) -> tuple[str, ...]:
    return (_label(entry), plain(entry.subject), spread(entry.rows), met(entry.rows))


def _label(entry: Entry) -> str:
    return LABELS.get(entry.quantity, plain(entry.quantity))
