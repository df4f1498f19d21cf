"""The page of the claims over several runs (seeds): a summary, a table per claim, and the figures.

Everything on it is made from measures.csv in the folder beside it, which has every number of every
run. Only what was tried is written by hand, in a file of notes.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from expoflow.claims import details, figures, regret
from expoflow.claims.answers import COLUMNS, Answer, Row, answers, paragraph, read_measures
from expoflow.claims.statement import DEPENDS, FAILS, HOLDS
from expoflow.claims.summary import summary
from expoflow.errors import DataError
from expoflow.files.atomic import write_text
from expoflow.files.markdown import markdown_table
from expoflow.files.records import write_csv
from expoflow.paths import Results
from expoflow.reporting import rehearsal
from expoflow.reporting.tables import read

HEADER = ("claim", "verdict", "what is measured", "mean (smallest to largest) ± interval", "as expected")
CLAIMS = {  # by their number in measures.csv; those that matter most to a reader come first
    11: "True quality and reward hacking",
    4: "More and less preference data",
    13: "Choosing alpha without a reward model",
    5: "Training harder instead",
    12: "Training on the dev prompts instead",
    7: "Length, style and other spurious features",
    10: "Capabilities",
    8: "Pairs that were not aligned one from the other",
    3: "The path from the SFT model to the aligned model",
    1: "The first-order argument",
    2: "The size of the steps",
    6: "The direction of delta",
    9: "What leaves room for extrapolation",
}

TEXT = """# The paper's claims, measured

## Summary

{summary}
## How to read the tables

The paper cannot measure all of its claims at 7B. The miniature can: it is a small world in which
the true quality of every response is known. A claim that fails in it may hold at 7B, and vice
versa. A claim that fails is as good a result as one that holds.

- A number is the mean over all runs and pairs. The smallest and the largest value are in brackets.
  The number after ± is half the width of a run's 95 % interval, as a mean over the runs. The
  interval comes from a bootstrap over prompts.
- A value is *as expected* if it has the expected sign and its interval, if it has one, excludes 0.
  If the claim is that something does not rise (or fall), a value is as expected unless it and its
  interval show a rise (or a fall). The last column counts the values of all pairs and runs that are
  as expected. The verdict can rest on more values than the row shows.
- The verdict *{holds}* means that every value is as expected. The verdict *{fails}* means
  that in every run at least half of the values lack the expected sign. For a claim that something
  does not rise (or fall), at least half must, with their intervals, show a rise (or a fall).
  Everything else is *{depends}*.
- The best alpha is the one that a run chose, by reward on the dev prompts. The test prompts are
  unseen: they take no part in choosing alpha. Reward is a logit. True quality is in points.

The runs are {runs}.
[{folder}/details.md]({folder}/details.md) says how every claim was measured and has its other numbers.
[{folder}/measures.csv]({folder}/measures.csv) has every number of every run with its interval.
`{command}` makes this page. No number in its summary and tables is typed by hand.

"""


def write_page(
    runs: Sequence[Path], out: Path, notes: Path | None = None, command: str = "make claims"
) -> list[str]:
    """Write the page `out`; its details, table and figures go into the folder of its name.

    `runs` are Snakemake directories with results/claims.csv. Without any, the pages are written
    again from the table and the figures that the folder has. `notes` is a Markdown file: its first
    paragraph ends the summary, and the rest stands before the figures. Returns the names of the
    runs. Raises DataError if a run has no results/claims.csv, or the folder has no table.
    """
    folder = out.with_suffix("")
    measures = folder / "measures.csv"
    if runs:
        rows = [{"run": run.name, **row} for run in runs for row in _claims(run)]
        write_csv(measures, rows, COLUMNS)
        _draw(runs, folder)
    elif not measures.is_file():
        raise DataError(f"{measures}: no such file; name the runs whose claims the page shows")
    rows = read_measures(measures)
    names = list(dict.fromkeys(row["run"] for row in rows))
    caveat, _, rest = notes.read_text(encoding="utf-8").strip().partition("\n\n") if notes else ("", "", "")
    found = answers(rows)
    regrets = regret.regrets(found.get("nll_is_no_worse_than_reward"))
    text = TEXT.format(
        summary=summary(found, regrets, len(names), caveat),
        holds=HOLDS,
        fails=FAILS,
        depends=DEPENDS,
        runs=", ".join(f"`{name}`" for name in names),
        folder=folder.name,
        command=command,
    )
    text += "\n".join(
        _section(claim, found, folder.name, regret.table(regrets)) for claim in _measured(found)
    )
    if rest:
        text += f"\n{rest.strip()}\n"
    write_text(folder / "details.md", details.page(found, CLAIMS, out.name))
    write_text(out, text + _figures(folder, names))
    return names


def _claims(run: Path) -> list[Row]:
    """The rows of the run's results/claims.csv."""
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


def _measured(found: Mapping[str, Answer]) -> list[int]:
    """The claims that the runs have measured, in the order of the page."""
    numbers = {answer.statement.claim for answer in found.values()}
    return [claim for claim in CLAIMS if claim in numbers]


def _section(claim: int, found: Mapping[str, Answer], folder: str, regrets: str) -> str:
    """The heading and the table of a claim."""
    lines = [line(answer, folder) for answer in found.values() if answer.statement.claim == claim]
    title = f"## {CLAIMS[claim]}\n\n"
    return title + markdown_table(HEADER, lines, numbers=False) + (regrets if claim == 13 else "")


def line(answer: Answer, folder: str) -> tuple[str, ...]:
    """One line of a table: the cells of HEADER."""
    statement, said = answer.statement, answer.verdict
    link = f"[{statement.phrase}]({folder}/details.md#{details.anchor(statement.phrase)})"
    return (link, f"**{said}**" if said else "", statement.number, answer.value, answer.met)


def _draw(runs: Sequence[Path], folder: Path) -> None:
    """Draw the figures over the runs, copy those of the first run, and remove all others."""
    drawn = set(figures.draw(runs, folder))
    for name in figures.OF_ONE_RUN:
        picture = Results.of(runs[0]).figure(name, "png")
        if picture.is_file():
            shutil.copyfile(picture, folder / f"{name}.png")
            drawn.add(name)
    for name in {*figures.PICTURES, *figures.OF_ONE_RUN} - drawn:
        (folder / f"{name}.png").unlink(missing_ok=True)


def _figures(folder: Path, runs: Sequence[str]) -> str:
    """The Markdown of the figures that the folder has."""
    captions = {name: caption for name, (_, caption) in figures.PICTURES.items()}
    of_one = {name: f"{caption} From the run `{runs[0]}`." for name, caption in figures.OF_ONE_RUN.items()}
    shown = [each for each in (captions | of_one).items() if (folder / f"{each[0]}.png").is_file()]
    text = "".join(
        f"\n![{name}]({folder.name}/{name}.png)\n\n{paragraph(f'*{caption}*')}" for name, caption in shown
    )
    return f"\n## Figures\n{text}" if text else ""
