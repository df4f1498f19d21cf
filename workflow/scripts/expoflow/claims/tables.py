"""The tables of the claims of one run: results/{claims,regrets,styles}.csv."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from expoflow.claims import capability, data, geometry, harder, path, selection, spurious  # noqa: F401
from expoflow.claims.run import STYLES, Run
from expoflow.claims.selection import regrets
from expoflow.claims.statement import STATEMENTS, outcome
from expoflow.config import Config
from expoflow.files.records import write_csv
from expoflow.paths import Results

CLAIM_COLUMNS = (
    "claim",
    "statement",
    "quantity",
    "subject",
    "value",
    "low",
    "high",
    "n",
    "expected",
    "outcome",
    "note",
)
REGRET_COLUMNS = ("pair", "kind", "by", "alpha", "quality", "best_alpha", "regret", "low", "high")
STYLE_COLUMNS = ("pair", "setting", "alpha", *STYLES)


def write_claims(config: Config, results: Results, claims: Path, regret: Path, styles: Path) -> None:
    """Write the three tables of the run of `config` whose results are in `results`."""
    run = Run(config, results)
    write_csv(claims, claim_rows(run), CLAIM_COLUMNS)
    write_csv(regret, _regret_rows(run), REGRET_COLUMNS)
    write_csv(styles, _style_rows(run), STYLE_COLUMNS)


def claim_rows(run: Run) -> Iterator[dict[str, Any]]:
    """One row per measured quantity, ordered by claim."""
    for name, statement in sorted(STATEMENTS.items(), key=lambda item: item[1].claim):
        for measure in statement.measure(run):
            labels = {"claim": statement.claim, "statement": name, "outcome": outcome(measure)}
            yield labels | measure.model_dump()


def _regret_rows(run: Run) -> Iterator[dict[str, Any]]:
    for each in regrets(run):
        measure = selection.measured("regret", each.pair, each.draws)
        yield each._asdict() | {"regret": each.regret, "low": measure.low, "high": measure.high}


def _style_rows(run: Run) -> Iterator[dict[str, Any]]:
    """Means per response at every alpha, for the pairs of claim 7."""
    settings = {"fractions": "fraction", "length_bias": "length_bias"}
    pairs = [(pair, name) for key, name in settings.items() for pair in run.ordered(key, name)]
    for pair, name in pairs if run.knows_quality else ():
        label = f"{name} {run.config.setting(pair, name):g}"
        columns = {style: run.draws(pair, style)[0] for style in STYLES}
        for place, alpha in enumerate(run.config.pairs[pair].grid()):
            means = {style: float(values[place]) for style, values in columns.items()}
            yield {"pair": pair, "setting": label, "alpha": alpha, **means}
