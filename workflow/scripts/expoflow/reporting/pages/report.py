"""results/report.html: the page to open first and to send to others.

It is one file, and it fetches nothing.
"""

import base64
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expoflow.columns import ALPHA_COLUMNS, BENCHMARK_COLUMNS
from expoflow.errors import DataError
from expoflow.paths import Results
from expoflow.reporting import rehearsal
from expoflow.reporting.pages import comparison, curves, findings, measures, provenance, shell, stages
from expoflow.reporting.pages.provenance import Told
from expoflow.reporting.printed_table import files
from expoflow.reporting.tables import BENCHMARKED, COMPARED, SCORED, SWEPT, read
from expoflow.selection.criteria import CRITERIA

# The columns that the table of chosen alphas shows for the aligned and the extrapolated model, if
# known.
SHOWN = {name: each.short for name, each in CRITERIA.items() if name in COMPARED}
PICTURES = 1_500_000  # bytes of static figures in the page; a figure that does not fit is only linked
TABLES = ("summary", "alphas", "benchmarks", "rewards")
# Columns that hold text, even if a name looks like a number.
TEXTS = {"pair", "best_alpha", "judged_on", "model", "source", "variant", "quantity"}


@dataclass(frozen=True)
class Picture:
    """A static figure, embedded in the page or, if it is too large, linked.

    `files` are its paths, relative to the page.
    """

    name: str
    caption: str
    data: str
    files: Sequence[str]


def write_report(page: Path, told: Told | None = None, results: Results | None = None) -> None:
    """Write the page from summary.csv and benchmarks.csv beside it, and from `results`.

    `results` is the same folder by default. Missing results are left out, so a failed run has the
    same page with gaps. Raises DataError if a result cannot be read.
    """
    from jinja2 import Environment

    told, own = told or Told(), Results(page.parent)
    results = results or own
    summary = [*read([own.table("summary")], ("pair", "best_alpha", "certified"))]
    pairs = [row["pair"] for row in summary]
    benchmarks = _numeric(own.table("benchmarks"), BENCHMARKED, BENCHMARK_COLUMNS[4:])
    scored = results.table("rewards")
    rewards = _numeric(scored, SCORED, measures.SCORES) if scored.exists() else []
    swept = [row for pair in pairs for row in _numeric(results.alphas(pair), SWEPT, ALPHA_COLUMNS[1:])]
    higher = findings.directions(told)
    found = findings.findings(pairs, benchmarks, higher, told, results)
    points = measures.points(swept, _choosing(rewards, told), told.confidence)
    charts = curves.charts(points, {each.pair: each.best.others for each in found})
    lines = comparison.lines(benchmarks, higher, told.confidence)
    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    body = template.from_string(shell.asset("report.html")).render(
        findings=found,
        rehearsal=next((rehearsal.words(row["rehearsal"]) for row in summary if row.get("rehearsal")), ""),
        partial=own != results,
        compared={line.pair for line in lines if line.verdict in comparison.ORDER},
        summary=[_rounded(row) for row in summary],
        shown={
            name: words for name, words in SHOWN.items() if any(row.get(f"{name}_expo") for row in summary)
        },
        points=points,
        measures=measures.shown(points),
        charts=charts["charts"],
        others=any(row["by"] for row in charts["rows"]),
        keys=curves.keys(charts["pairs"]),
        lines=lines,
        gaps=comparison.gaps(benchmarks),
        incomplete={row["pair"] for row in benchmarks if not row["metric"]},
        reproduction=_reproduction(told),
        note=told.note,
        tables=_links(page, map(own.table, TABLES)),
        printed=[(path.stem, _links(page, files(path))) for path in told.tables],
        pictures=_pictures(page, told.figures, results),
        answers=_answers(page, pairs, results, whole=own == results),
        **_origin(own, results, told, rewards),
    )
    shell.write_page(
        page,
        title="expoflow report",
        body=body,
        styles=["base.css", "report.css"],
        scripts=["unpack.js", "report.js"],
        data={"curve-data": charts},
        library=curves.library(),
    )


def _answers(page: Path, pairs: Iterable[str], results: Results, whole: bool) -> dict[str, str]:
    """The paths of the pages of answers, by pair, relative to this page.

    Beside a `whole` page each pair has one, or will have one.
    """
    places = {pair: results.answers_page(pair) for pair in pairs}
    return {
        pair: os.path.relpath(place, page.parent) for pair, place in places.items() if whole or place.exists()
    }


def _origin(
    own: Results, results: Results, told: Told, rewards: Sequence[Mapping[str, str]]
) -> dict[str, Any]:
    """The cost and the provenance of the run.

    Beside a page with gaps, the table of rewards may be from an earlier run.
    """
    return {
        "stages": stages.stages(results),
        "paid": stages.paid(results),
        "tokens": stages.tokens(rewards) if own == results else "",
        "models": provenance.models(told, results),
        "versions": provenance.versions(),
        "made": provenance.made([own.table("summary"), own.table("benchmarks")]),
        "config": told.config_text(),
        "again": told.again,
    }


def _choosing(rewards: Sequence[Mapping[str, str]], told: Told) -> list[Mapping[str, str]]:
    """The rows of the prompts that choose alpha. All of alphas.csv is measured on them alone."""
    from expoflow.selection.split import choosing

    ids: dict[str, set[str]] = {}
    for row in rewards:
        ids.setdefault(row["pair"], set()).add(row["prompt_id"])
    chose = {pair: choosing(own, told.pairs.get(pair, {}).get("judge")) for pair, own in ids.items()}
    return [row for row in rewards if row["prompt_id"] in chose[row["pair"]]]


def _numeric(path: Path, columns: Iterable[str], numbers: Collection[str]) -> list[dict[str, str]]:
    """The rows of a table with `columns`.

    Raises DataError if a cell of `numbers` is neither a number nor empty.
    """
    rows = [*read([path], columns)]
    for row in rows:
        for name in numbers:
            if (cell := row.get(name)) and not _is_number(cell):
                raise DataError(
                    f"{path}: {name} is {cell!r}, not a number; delete it and run snakemake again"
                )
    return rows


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _rounded(row: Mapping[str, str]) -> dict[str, str]:
    """Numbers with a fraction in three decimals, everything else unchanged."""
    return {
        key: comparison.decimals(float(value)) if _is_fraction(key, value) else value
        for key, value in row.items()
    }


def _is_fraction(key: str, value: str) -> bool:
    try:
        return key not in TEXTS and not float(value).is_integer()
    except (OverflowError, ValueError):
        return False


def _reproduction(told: Told) -> list[dict[str, Any]]:
    """The rows of reproduction.csv, if it is among the tables."""
    return [_rounded(row) for path in told.tables if path.stem == "reproduction" for row in read([path])]


def _links(page: Path, paths: Iterable[Path]) -> list[str]:
    """The existing ones of some files, relative to the page."""
    return [Path(os.path.relpath(path, page.parent)).as_posix() for path in paths if path.exists()]


def _pictures(page: Path, captions: Mapping[str, str], results: Results) -> list[Picture]:
    """The figures, each in the smaller of its two formats, embedded as long as there is room."""
    found, room = [], PICTURES
    for name, caption in captions.items():
        places = [path for kind in ("svg", "png") if (path := results.figure(name, kind)).exists()]
        if not places:
            continue
        smallest, data = min(places, key=lambda path: path.stat().st_size), ""
        if (size := smallest.stat().st_size) <= room:
            room -= size
            kind = {".svg": "image/svg+xml", ".png": "image/png"}[smallest.suffix]
            data = f"data:{kind};base64,{base64.b64encode(smallest.read_bytes()).decode()}"
        found.append(Picture(name, caption, data, _links(page, places)))
    return found
