"""The cost of a run: time and memory of its jobs by stage, and payments to judges.

Snakemake measured time and memory.
"""

import csv
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from expoflow.files.records import Record, read_json
from expoflow.paths import Results
from expoflow.reporting.words import duration

OWN = "report"  # the time that an earlier run of this job took


@dataclass(frozen=True)
class Stage:
    """The jobs of a rule: their number, their total seconds and the largest memory of one job.

    The memory is in megabytes; it is None if it was not measured.
    """

    rule: str
    jobs: int
    seconds: float
    memory: float | None

    @property
    def time(self) -> str:
        """Their time in words."""
        return duration(self.seconds) if self.seconds >= 1 else "below 1 s"


class Spent(Record):
    """The ledger of a judge, in USD."""

    spent: float


def stages(results: Results) -> list[Stage]:
    """The stages with recorded times, the longest first. Unreadable files do not count."""
    logs = results.logs
    found: dict[str, list[tuple[float, float | None]]] = {}
    for path in sorted(logs.rglob("*.tsv")):
        rule = path.relative_to(logs).parts[0].removesuffix(".tsv")
        if rule != OWN:
            with suppress(OSError, ValueError, KeyError, StopIteration):
                found.setdefault(rule, []).append(_measured(path))
    summed = (
        Stage(
            rule,
            len(jobs),
            sum(seconds for seconds, _ in jobs),
            max(filter(None, (m for _, m in jobs)), default=None),
        )
        for rule, jobs in found.items()
        if jobs
    )
    return sorted(summed, key=lambda stage: -stage.seconds)


def paid(results: Results) -> dict[str, str]:
    """Payments to the judges, by benchmark: `1.23 USD`."""
    places = sorted(results.costs("*").parent.glob("*.json"))
    return {path.stem: f"{read_json(path, Spent).spent:.2f} USD" for path in places}


def tokens(rewards: Iterable[Mapping[str, str]]) -> str:
    """What the sweeps generated: `24,000 tokens in 1,200 responses`; empty if nothing."""
    counts = [int(row["response_tokens"]) for row in rewards if row.get("response_tokens")]
    return f"{sum(counts):,} tokens in {len(counts):,} responses" if counts else ""


def _measured(path: Path) -> tuple[float, float | None]:
    """Seconds and megabytes of a job. The memory of a short job may not have been measured."""
    with path.open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file, delimiter="\t"))
    try:
        return float(row["s"]), float(row["max_rss"])
    except ValueError:
        return float(row["s"]), None
