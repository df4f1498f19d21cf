"""Writes the table of docs/architectures.md from what the sweep finds: python tests/architectures/page.py [CLASS ...].

The rows of the classes that are named are made anew, those of the others stay; without a name all are made (five minutes of CPU time).
"""

import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import transformers
from tiny import classes
from trials import OUTCOMES, PAIRS, Trial, trials

PAGE = Path(__file__).parents[2] / "docs/architectures.md"
BEGIN, END = "<!-- Written by tests/architectures/page.py. -->\n", "<!-- End of the tables. -->\n"
Cell = tuple[str, str]  # outcome and reason
Row = dict[str, Cell]  # by kind of pair


def row(found: Iterable[Trial]) -> Row:
    return {each.pair: (each.outcome, general(each.reason)) for each in found}


def general(reason: str) -> str:
    """A reason without names of tensors and modules, folders, numbers and what is cell syntax."""
    reason = re.sub(r"(?<!\w)/\S*/", "", reason)
    reason = re.sub(r"\w+(\.\w+)*\.(weight|bias)\b|\w+(\.\w+){2,}", "NAME", reason.replace("|", "/"))
    reason = re.sub(r"NAME(, NAME)+", "NAME", reason)
    return re.sub(r"\d+", "N", reason)[:300]


def shown() -> dict[str, Row]:
    """What the page says, by class."""
    rest = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    reasons = dict(re.findall(r"^<sup>(\d+)</sup> (.+?) *$", rest, re.MULTILINE))
    rows: dict[str, Row] = {}
    head, _, table = rest.partition("| class | ")[2].partition(" |\n")
    for name, line in re.findall(r"^\| (\w+) \| (.*) \|$", table, re.MULTILINE):
        cells = [re.fullmatch(r"([a-z ]*?)(?: <sup>(\d+)</sup>)?", cell) for cell in line.split(" | ")]
        said = {pair: cell for pair, cell in zip(head.split(" | "), cells, strict=True) if cell[1]}
        rows[name] = {pair: (cell[1], reasons[cell[2]] if cell[2] else "") for pair, cell in said.items()}
    return rows


def tables(rows: dict[str, Row]) -> str:
    """Counts by outcome, and every class by kind of pair; reasons below."""
    counts = [Counter(each[pair][0] for each in rows.values() if pair in each) for pair in PAIRS]
    lines = [
        ["", *PAIRS],
        ["---", *["---:"] * len(PAIRS)],
        ["tried", *(str(each.total()) for each in counts)],
    ]
    lines += [[outcome, *(str(each[outcome]) for each in counts)] for outcome in OUTCOMES]
    numbers: dict[str, int] = {}
    lines += [[], ["class", *PAIRS], ["---"] * (len(PAIRS) + 1)]
    for name in sorted(rows):
        lines.append([name, *(_cell(rows[name].get(pair), numbers) for pair in PAIRS)])
    text = "".join(f"| {' | '.join(line)} |\n" if line else "\n" for line in lines)
    return text + "\n" + "".join(f"<sup>{number}</sup> {reason}  \n" for reason, number in numbers.items())


def _cell(cell: Cell | None, numbers: dict[str, int]) -> str:
    outcome, reason = cell or ("", "")
    return f"{outcome} <sup>{numbers.setdefault(reason, len(numbers) + 1)}</sup>" if reason else outcome


def write(rows: dict[str, Row]) -> None:
    before, _, rest = PAGE.read_text().partition(BEGIN)
    version = f"transformers {transformers.__version__}:\n"
    PAGE.write_text(f"{before}{BEGIN}\n{version}\n{tables(rows)}\n{END}{rest.partition(END)[2]}")


def main(names: list[str]) -> None:
    known, rows = classes(), shown()
    for name in names or known:
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = row(trials(name, Path(folder)))
        print(
            name, *(f"{pair}: {outcome}" for pair, (outcome, _) in rows[name].items()), sep="; ", flush=True
        )
        write({name: each for name, each in rows.items() if name in known})


if __name__ == "__main__":
    main(sys.argv[1:])
