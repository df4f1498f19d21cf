"""Every job of the workflow on broken files: the last line of its log is an error with a remedy, never a traceback."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)
from tree import REPOSITORY

pytestmark = pytest.mark.workflow
SCRIPTS = REPOSITORY / "workflow/scripts"
# What only the hub, TRL or the packages of the extras can give: tests/hub, tests/trl and the benchmarks' own tests.
ELSEWHERE = {"download", "dataset", "benchmark_data", "paper_tables"}
TRACE = "Traceback (most recent call last)"


def all_rules(config: dict) -> None:
    """A config whose jobs are those of all rules that need no network."""
    models = config["models"]
    models["mine"] = {"path": "results/models/dpo"}
    config["pairs"]["other"] = {"sft": "sft", "aligned": "mine", "alphas": [1, 60]}
    config["select"]["compare"] = ["nll"]
    config["reward_check"] = {"miniature": True}
    config["theory"] = {"examples": 4, "limit": 4, "samples": 2, "max_tokens": 4} | {
        "planes": {"around": {"pairs": ["tiny", "other"], "points": 2}}
    }
    config["claims"] = {"capability": ["tiny"]}


def second_pair(folder: Path) -> None:
    """Give the pair `other` the results of `tiny`."""
    results = folder / "results/pairs"
    shutil.copytree(results / "tiny", results / "other")
    for path in results.glob("other/**/*"):
        if path.suffix in (".csv", ".json", ".jsonl") and "model" not in path.parts:
            path.write_text(path.read_text().replace("tiny", "other"))


def planned(folder: Path) -> dict[str, object]:
    """A job of every rule, as Snakemake would hand it to its script."""
    config = ConfigSettings(configfiles=[folder / "config.yaml"])
    with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        made = api.workflow(
            resource_settings=ResourceSettings(cores=2),
            config_settings=config,
            snakefile=REPOSITORY / "Snakefile",
            workdir=folder,
        )
        workflow = made.dag(DAGSettings(forceall=True)).workflow_api._workflow
        workflow._prepare_dag(forceall=True, ignore_incomplete=True, lock_warn_only=True)
        workflow._build_dag()
        jobs = [job for job in workflow.dag.jobs if job.rule.script]
    wanted = {"alpha": "1", "pair": "tiny", "model": "dpo", "variant": "expo"}

    def fits(job: object) -> int:
        return sum(getattr(job.wildcards, name, None) == value for name, value in wanted.items())

    return {job.rule.name: job for job in sorted(jobs, key=fits)}


class Stand:
    """The object `snakemake` of a script."""

    def __init__(self, job: object, config: dict):
        self.input, self.output, self.params, self.log = job.input, job.output, job.params, job.log
        self.wildcards, self.rule, self.threads, self.config = job.wildcards, job.rule.name, 1, config


@contextmanager
def as_before() -> Iterator[None]:
    """Undo what a script changes in its process: its output, its environment, its modules' place."""
    kept = os.dup(1), os.dup(2)
    streams, environment = (sys.stdout, sys.stderr), dict(os.environ)
    try:
        yield
    finally:
        for descriptor, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)
        sys.stdout, sys.stderr = streams
        os.environ.clear()
        os.environ.update(environment)


def outcome(job: object, config: dict) -> tuple[int, str]:
    """Run a job's script here: its exit status, and its log."""
    script, log = SCRIPTS / Path(job.rule.script).name, Path(job.log[0])
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    for output in job.output:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
    status = 0
    with as_before():
        try:
            exec(compile(script.read_text(), script, "exec"), {"snakemake": Stand(job, config)})
        except SystemExit as ended:
            status = ended.code
    return status, log.read_text()


def _json(change: Callable[[dict], object]) -> Callable[[Path], str | None]:
    def changed(path: Path) -> str | None:
        try:
            value = json.loads(path.read_text())
        except ValueError:
            return None
        return json.dumps(change(value)) if isinstance(value, dict) else None

    return changed


def _lines(change: Callable[[list[str]], list[str]]) -> Callable[[Path], str | None]:
    def changed(path: Path) -> str | None:
        lines = path.read_text().splitlines(keepends=True)
        return "".join(change(lines)) if path.suffix in (".csv", ".jsonl") and len(lines) > 2 else None

    return changed


def _words(line: str) -> str:
    """A row of a table, or of JSON lines, whose last value is a word."""
    cells = line.rstrip("\n").rpartition("," if line[0] != "{" else ":")
    return f'{cells[0]}{cells[1]}"oops"{"}" if line[0] == "{" else ""}\n'


# What befalls a file: None if the change does not fit it.
BROKEN: dict[str, Callable[[Path], str | bytes | None]] = {
    "empty": lambda path: "",
    "cut": lambda path: path.read_bytes()[: path.stat().st_size // 2],
    "bytes": lambda path: b"\xff\x00\x80PK" * 9,
    "a list": lambda path: "[1, 2]\n",
    "an empty object": lambda path: "{}\n",
    "null": lambda path: "null\n",
    "words": lambda path: "hello\nworld\n",
    "no first line": _lines(lambda lines: lines[1:]),
    "one line": _lines(lambda lines: lines[:2]),
    "a line twice": _lines(lambda lines: [*lines, lines[-1]]),
    "a line less": _lines(lambda lines: lines[:-1]),
    "a stray line": _lines(lambda lines: [*lines, lines[-1].replace("0", "f").replace("1", "e")]),
    "words for numbers": _lines(lambda lines: [lines[0], *map(_words, lines[1:])]),
    "nan": _lines(lambda lines: [line.replace("0.", "nan0.") for line in lines]),
    "other columns": _lines(lambda lines: [lines[0].replace("a", "b"), *lines[1:]]),
    "keys gone": _json(lambda value: dict([*value.items()][:1])),
    "values are words": _json(lambda value: dict.fromkeys(value, "oops")),
    "values are null": _json(lambda value: dict.fromkeys(value)),
    "values are lists": _json(lambda value: {key: [each] for key, each in value.items()}),
    "values are objects": _json(lambda value: {key: {"a": each} for key, each in value.items()}),
    "numbers are negative": _json(
        lambda value: {k: -1 if isinstance(v, int | float) else v for k, v in value.items()}
    ),
    "an unknown key": _json(lambda value: value | {"oops": 1}),
}
