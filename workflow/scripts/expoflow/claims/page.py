"""The page of the claims over several runs (seeds): one table, claim by claim, and the figures below it.

Everything on it is made from the runs' tables; what was tried stands in a file of notes that is put on it as it is.
"""

import shutil
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from expoflow.claims import figures, tables
from expoflow.claims.selection import WAYS
from expoflow.claims.statement import DEPENDS, FAILS, HOLDS, STATEMENTS, YES, Statement, verdict
from expoflow.errors import DataError
from expoflow.files.atomic import write_text
from expoflow.files.markdown import markdown_table
from expoflow.files.records import write_csv
from expoflow.paths import Results
from expoflow.reporting import rehearsal
from expoflow.reporting.tables import read

Row = Mapping[str, str]

HEADER = ("claim", "section", "the paper says, in our words", "how it was measured", "result", "verdict")
CLAIMS = {
    1: "first order",
    2: "smallness",
    3: "path",
    4: "data",
    5: "training harder",
    6: "quality of delta",
    7: "spurious features",
    8: "combinations",
    9: "cause",
    10: "capability",
    11: "reward hacking",
    12: "dev training",
    13: "no reward model",
}
LISTED = 3  # subjects of a quantity that are told one by one, or
NUMBERS = 10  # quantities and subjects of a statement together
REGRETS = ("pairs", *WAYS.values())

TEXT = """# The paper's claims, measured

This page is made by `{command}`; nothing on it is typed. The paper argues more than it can measure at
7B; a miniature, in whose world the true quality of every response is known, can measure it. {runs}

A claim that fails here is as good a result as one that holds: the world was not bent for a wanted row. It is small, so
that a claim that fails in it may hold at 7B, and the other way round.

**How to read a result.** A number is the mean over the runs; behind it stand the smallest and the largest of the runs,
and, as ±, half the width of the 95 % interval inside a run (bootstrap over prompts, mean over the runs). Where a quantity
has many subjects, mean, smallest and largest are over subjects and runs, and it is said how many are as expected, and
which subjects are not in every run. [{folder}/measures.csv]({folder}/measures.csv) has every number of every run with its interval.

**The rule of the verdicts.** *{holds}*: in every run every subject has the expected sign, and its interval, where it has
one, excludes 0 (where no change is expected: the interval does not lie on the other side). *{fails}*: in every run at
least half of the subjects have the other sign. *{depends}*: everything else. No verdict: the quantity is only told.

{counts}

"""


def write_page(
    runs: Sequence[Path], out: Path, notes: Path | None = None, command: str = "make claims"
) -> None:
    """Write the page `out`, and its tables and figures into the folder of its name beside it.

    `runs` are Snakemake directories with results/claims.csv; `notes` is a Markdown file that stands before the
    figures. Raises DataError where a run has none.
    """
    found = {run.name: _claims(run) for run in runs}
    folder = out.with_suffix("")
    rows = [{"run": name, **row} for name, claims in found.items() for row in claims]
    write_csv(folder / "measures.csv", rows, ("run", *tables.CLAIM_COLUMNS))
    lines = list(_lines(found))
    said = {word: sum(line[-1] == f"**{word}**" for line in lines) for word in (HOLDS, FAILS, DEPENDS)}
    counts = ", ".join(f"{number} *{word}*" for word, number in said.items())
    text = TEXT.format(
        command=command,
        runs=f"The runs: {', '.join(f'`{name}`' for name in found)}.",
        folder=folder.name,
        holds=HOLDS,
        fails=FAILS,
        depends=DEPENDS,
        counts=f"Of {len(lines)} statements: {counts}.",
    )
    text += markdown_table(HEADER, lines, numbers=False) + _regrets(runs)
    if notes:
        text += "\n" + notes.read_text(encoding="utf-8").strip() + "\n"
    text += _figures(runs, folder)
    write_text(out, text)


def _claims(run: Path) -> list[Row]:
    path = Results.of(run).table("claims")
    if not path.is_file():
        raise DataError(
            f"{path}: no such file; run snakemake in {run} with a config that has the section claims"
        )
    rows = list(read([path]))
    if any(rehearsal.COLUMN in row for row in rows):
        raise DataError(
            f"{path}: is of a rehearsal, which shows no result; leave it out, or run it without `limit`"
        )
    return rows


def _lines(found: Mapping[str, list[Row]]) -> Iterable[tuple[str, ...]]:
    """A line of the table for every statement that a run has measured."""
    for name, statement in sorted(STATEMENTS.items(), key=lambda item: item[1].claim):
        by_run = {run: [row for row in rows if row["statement"] == name] for run, rows in found.items()}
        if any(by_run.values()):
            yield line(statement, by_run)


def line(statement: Statement, by_run: Mapping[str, list[Row]]) -> tuple[str, ...]:
    """One line of the table: the cells of HEADER."""
    said = verdict([row["outcome"] for row in rows] for rows in by_run.values())
    groups: dict[tuple[str, bool], dict[str, list[Row]]] = defaultdict(lambda: defaultdict(list))
    for rows in by_run.values():
        for row in rows:
            groups[row["quantity"], bool(row["expected"])][row["subject"]].append(row)
    few = sum(map(len, groups.values())) <= NUMBERS
    cells = [  # what is expected comes first
        _group(quantity, groups[quantity, hoped], few)
        for quantity, hoped in sorted(groups, key=lambda key: not key[1])
    ]
    claim = f"{statement.claim} {CLAIMS[statement.claim]}"
    return (
        claim,
        statement.section,
        statement.phrase,
        statement.how,
        "; ".join(cells),
        f"**{said}**" if said else "",
    )


def _group(quantity: str, subjects: Mapping[str, list[Row]], few: bool) -> str:
    """A quantity in words: its subjects one by one, or all together where there are many."""
    if few or len(subjects) <= LISTED:
        return "; ".join(f"{quantity}, {subject}: {_spread(each)}" for subject, each in subjects.items())
    rows = [row for each in subjects.values() for row in each]
    hoped = [row["outcome"] == YES for row in rows if row["outcome"]]
    asked = f", as expected in {sum(hoped)} of {len(hoped)}" if hoped else ""
    if hoped and not all(hoped):
        others = [name for name, each in subjects.items() if any(row["outcome"] != YES for row in each)]
        asked += f" (not in every run: {', '.join(others)})"
    return f"{quantity}, {len(subjects)} subjects: {_spread(rows)}{asked}"


def _spread(rows: Sequence[Row]) -> str:
    """Mean, smallest and largest value, and half the width of the interval inside a run."""
    values = [float(row["value"]) for row in rows]
    text = _number(_mean(values))
    if len(values) > 1:
        text += f" ({_number(min(values))} to {_number(max(values))})"
    halves = [(float(row["high"]) - float(row["low"])) / 2 for row in rows if row["low"]]
    if halves:
        text += f" ±{_number(_mean(halves))}"
    return text


def _number(value: float) -> str:
    """Three significant digits, without an exponent."""
    if value == 0 or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 else f"{value:.1g}"


def _regrets(runs: Sequence[Path]) -> str:
    """The table of regrets by kind of pair and way to choose."""
    found = [{"run": run.name, **row} for run in runs for row in read([Results.of(run).table("regrets")])]
    if not found:
        return ""
    kinds = {"all": found} | {
        kind: [row for row in found if row["kind"] == kind]
        for kind in dict.fromkeys(row["kind"] for row in found)
    }
    lines = []
    for kind, rows in kinds.items():
        cells = [_regret([row for row in rows if row["by"] == way]) for way in WAYS]
        number = len({(row["run"], row["pair"]) for row in rows})
        lines.append((f"{kind.replace('_', ' ')} ({number})", *cells))
    return (
        "\n**Regret**: true quality lost on the prompts that choose alpha against the best alpha >= 0 of the same grid, same "
        "responses: mean over pairs and runs (smallest to largest mean of a run; largest of a pair). No pair with an "
        "alpha above 0 is left out.\n\n" + markdown_table(REGRETS, lines)
    )


def _regret(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    values = [float(row["regret"]) for row in rows]
    runs = {
        run: [float(row["regret"]) for row in rows if row["run"] == run]
        for run in {row["run"] for row in rows}
    }
    means = [sum(each) / len(each) for each in runs.values()]
    return f"{_mean(values):.3f} ({min(means):.3f} to {max(means):.3f}; {max(values):.2f})"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _figures(runs: Sequence[Path], folder: Path) -> str:
    """Draw those over the runs, take over those of the first one; the Markdown that shows them."""
    drawn = figures.draw(runs, folder)
    for name, caption in figures.OF_ONE_RUN.items():
        picture = Results.of(runs[0]).figure(name, "png")
        if picture.is_file():
            shutil.copyfile(picture, folder / picture.name)
            drawn[name] = f"{caption} The run `{runs[0].name}`."
    return "".join(
        f"\n![{name}]({folder.name}/{name}.png)\n\n*{caption}*\n" for name, caption in drawn.items()
    )
