"""Writes the table of docs/reliability.md from what the matrix has shown: python tests/faults/reliability.py RECORD."""

import json
import sys
from pathlib import Path

from matrix import LOCAL, MATRIX, REASONS, SLURM

PAGE = Path(__file__).parents[2] / "docs/reliability.md"
BEGIN, END = "<!-- Written by `make faults`. -->\n", "<!-- End of the table. -->\n"
WORDS = {"passed": "survived", "failed": "**failed**", "skipped": "not tried"}


def table(shown: dict[tuple[str, str], str]) -> str:
    """Stages x faults as two Markdown tables, what happens here and what happens on a SLURM; and the reasons."""
    parts = [_part(faults, shown) for faults in (LOCAL, SLURM)]
    return "\n".join([*parts, *(f"<sup>{letter}</sup> {reason}  " for letter, reason in REASONS.items()), ""])


def _part(faults: tuple[str, ...], shown: dict[tuple[str, str], str]) -> str:
    lines = [["stage", *faults], ["---"] * (len(faults) + 1)]
    for stage, marks in MATRIX.items():
        cells = dict(zip(LOCAL + SLURM, marks, strict=True))
        lines.append([stage, *(_cell(cells[fault], shown.get((stage, fault))) for fault in faults)])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(mark: str, outcome: str | None) -> str:
    return f"n/a <sup>{mark}</sup>" if mark in REASONS else WORDS.get(outcome, "not tried")


def write(record: Path) -> None:
    """Put the table of the last outcome of every cell into the page."""
    rows = [json.loads(line) for line in record.read_text().splitlines()]
    shown = {(row["stage"], row["fault"]): row["outcome"] for row in rows}
    before, _, rest = PAGE.read_text().partition(BEGIN)
    page = f"{before}{BEGIN}\n{table(shown)}\n{END}{rest.partition(END)[2]}"
    PAGE.write_text(page)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
