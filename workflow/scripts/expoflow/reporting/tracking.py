"""Send a finished run's tables and figures to MLflow, by its own client."""

import csv
import importlib.util
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.config import Config
from expoflow.errors import shown
from expoflow.paths import RESULTS, Results

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Columns that say what a row belongs to, not what was measured.
KEYS = {"pair", "alpha", "variant", "benchmark", "metric", "n"}
# A server that does not answer must not delay the end of a run. MLflow's own defaults are minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
QUIET = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_LOGGING_LEVEL": "ERROR"}


def send(config: Config, results: Results = RESULTS) -> str:
    """Send what `config.tracking` asks for, and return a line on it, empty without this section.

    Anything that goes wrong becomes a warning. A password in MLflow's address is not shown.
    """
    return re.sub(r"//[^/@\s]*@", "//", _told(config, results)) if config.tracking else ""


def _told(config: Config, results: Results) -> str:
    place = config.tracking.mlflow
    if importlib.util.find_spec("mlflow") is None:
        return f"WARNING: tracking: mlflow is not installed, nothing is sent to {place}; pip install 'expoflow[track]'"
    os.environ |= {name: value for name, value in (PATIENCE | QUIET).items() if name not in os.environ}
    try:
        run = _send(config, results)
    except Exception as error:  # whatever went wrong, the results are there
        words = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        return f"WARNING: tracking: nothing, or only a part, was sent to {place}: {shown(words)}"
    return f"tracking: sent to {place}, experiment {config.tracking.experiment}, run {run}"


def _send(config: Config, results: Results) -> str:
    from mlflow import MlflowClient

    address, artifacts = _address(config.tracking.mlflow)
    client = MlflowClient(tracking_uri=address)
    known = client.get_experiment_by_name(config.tracking.experiment)
    experiment = (
        known.experiment_id if known else client.create_experiment(config.tracking.experiment, artifacts)
    )
    tags = {"rehearsal": str(config.limit)} if config.limit else {}
    made = client.create_run(experiment, run_name=Path.cwd().name, tags=tags)
    run = made.info.run_id
    try:
        _log(client, run, config, results)
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)
    return made.info.run_name


def _log(client: "MlflowClient", run: str, config: Config, results: Results) -> None:
    client.log_dict(
        run, config.model_dump(mode="json", exclude_none=True, exclude={"tracking"}), "config.json"
    )
    _log_metrics(client, run, results)
    for path in _files(results):
        client.log_artifact(run, str(path), path.parent.relative_to(results.folder).as_posix().strip("."))


def _address(place: str) -> tuple[str, str | None]:
    """MLflow's address of a place, and where its files go if MLflow does not decide that itself.

    A folder gets a database.
    """
    if re.match(r"[a-z][a-z0-9+.-]*:", place):
        return place, None
    folder = Path(place).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}", (folder / "artifacts").as_uri()


def _log_metrics(client: "MlflowClient", run: str, results: Results) -> None:
    from mlflow.entities import Metric

    now = int(1000 * time.time())
    found = [Metric(name, value, now, step) for name, value, step in _metrics(results)]
    for begin in range(0, len(found), 1000):  # as many as MLflow accepts at once
        client.log_batch(run, metrics=found[begin : begin + 1000])


def _metrics(results: Results) -> Iterator[tuple[str, float, int]]:
    """Metrics as (name, value, step).

    MLflow's steps are whole numbers, so a step of a sweep is alpha in thousandths. Other metrics
    have step 0.
    """
    for row in _rows(results.table("alphas")):
        step = round(1000 * float(row["alpha"]))
        yield from ((f"{row['pair']}/sweep/{name}", value, step) for name, value in _numbers(row))
    for row in _rows(results.table("summary")):
        yield from ((f"{row['pair']}/summary/{name}", value, 0) for name, value in _numbers(row))
    for row in _rows(results.table("benchmarks")):
        of = "/".join(row[name] for name in ("pair", "variant", "benchmark", "metric"))
        yield from ((_name(of, name), value, 0) for name, value in _numbers(row))


def _name(of: str, column: str) -> str:
    """A name that MLflow accepts: the metric's, with the column appended if it is not the value."""
    return re.sub(r"[^\w./: -]", "_", of if column == "value" else f"{of}/{column}")


def _rows(table: Path) -> list[dict[str, str]]:
    if not table.exists():
        return []
    with open(table, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def _numbers(row: dict[str, str]) -> Iterator[tuple[str, float]]:
    for name, text in row.items():
        try:
            yield from [(name, float(text))] if name not in KEYS and text else []
        except ValueError:
            continue


def _files(results: Results) -> Iterator[Path]:
    """The tables, figures, page and choices to send.

    The table of single rewards is left out, because it has a row per response.
    """
    for table in sorted(results.folder.glob("*.csv")):
        if table != results.table("rewards"):
            yield table
    for folder in (results.paper_tables, results.figures):
        yield from sorted(path for path in folder.glob("*") if path.is_file())
    yield from filter(Path.exists, [results.report])
    yield from sorted(
        path for name in ("best.json", "certificate.json") for path in results.pairs.glob(f"*/{name}")
    )
