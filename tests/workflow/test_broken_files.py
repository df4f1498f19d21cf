"""Every job of the workflow on broken files, and on another job's: its log ends with an error and a remedy, never a traceback."""

import json
import os
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml
from snakemake.api import SnakemakeApi
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)
from tree import REPOSITORY, Tree

pytestmark = pytest.mark.workflow
SCRIPTS = REPOSITORY / "workflow/scripts"
# What only the hub, TRL or the packages of the extras can give: tests/hub, tests/trl and the benchmarks' own tests; and a rehearsal's.
ELSEWHERE = {"download", "dataset", "benchmark_data", "paper_tables", "first"}
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
    wanted = {"alpha": "1", "pair": "tiny", "model": "dpo", "variant": "expo", "prompts": "dev"}

    def fits(job: object) -> int:
        return sum(getattr(job.wildcards, name, None) == value for name, value in wanted.items())

    jobs = [job for job in jobs if getattr(job.wildcards, "figure", "sweep") == "sweep"]
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


@pytest.fixture(scope="module")
def walk(finished_once, tmp_path_factory):
    """The jobs of all rules in a copy of the finished tree, which is this process' working directory; and the config."""
    folder = tmp_path_factory.mktemp("walk") / "tree"
    shutil.copytree(finished_once.folder, folder, ignore=shutil.ignore_patterns(".snakemake"))
    second_pair(folder)
    Tree(folder, folder).edit(all_rules)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("EXPOFLOW_STORE", str(folder.with_name("store")))
        patch.setenv("EXPOFLOW_HOST", "off")
        jobs, config = planned(folder), yaml.safe_load((folder / "config.yaml").read_text())
        for name in ("preferences", "likelihood", "theory"):  # what others read
            assert outcome(jobs[name], config)[0] == 0
        yield jobs, config


def told(job: object, config: dict, path: Path, content: str | bytes | None) -> tuple[int, str]:
    """What a job ends with if `path` has another `content`, or is gone; then all is as before."""
    kept = {each: each.read_bytes() for each in (path, *map(Path, job.output)) if each.is_file()}
    path.unlink()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    try:
        return outcome(job, config)
    finally:
        for each, before in kept.items():
            each.unlink(missing_ok=True)
            each.write_bytes(before)


def plain(status: int, log: str) -> bool:
    """Whether a job has ended well, or the last line says what is wrong and what to do."""
    last = log.rstrip("\n").rpartition("\n")[2]
    return status == 0 or (status == 1 and last.startswith("error: ") and "; " in last)


def test_every_script_is_looked_at(walk):
    jobs, _ = walk
    scripts = {path.stem for path in SCRIPTS.glob("*.py")}
    assert {Path(job.rule.script).stem for job in jobs.values()} == scripts - ELSEWHERE


def test_a_broken_file_ends_no_job_with_a_traceback(walk):
    """Each input of each job is broken in two ways, which the seed chooses, and is missing."""
    jobs, config = walk
    chance, cases, failed, surprised = random.Random(17), 0, 0, []
    for name, job in jobs.items():
        for path in dict.fromkeys(map(Path, job.input)):
            contents = {"missing": None}
            for what in chance.sample([*BROKEN], 6):
                with suppress(UnicodeDecodeError):  # weights
                    contents[what] = BROKEN[what](path) if path.is_file() else None
            fitting = [(what, content) for what, content in contents.items() if content is not None][:2]
            for what, content in [("missing", None), *fitting] if path.is_file() and name != "train" else ():
                status, log = told(job, config, path, content)
                cases, failed = cases + 1, failed + bool(status)
                if not plain(status, log):
                    surprised.append(f"{name}: {path}: {what}: {status}: {log[-300:]}")
    assert not surprised, "\n".join(surprised)
    assert cases > 100
    assert failed > 80


def _as_long(text: str) -> Callable[[Path], str]:
    return lambda path: text.ljust(path.stat().st_size)  # another size would be another model


def _of(other: str) -> Callable[[Path], bytes]:
    return lambda path: Path(other).read_bytes()


PAIR = "results/pairs/tiny"
MODEL = "results/models"
# Job, file, what befalls it, and what is said: the thing, and what to do.
NAMED = {
    "prompts that are cut": ("prompts", "dev.jsonl", "cut", "dev.jsonl:", "write one JSON object per line"),
    "a prompt file that is gone": (
        "prompts",
        "dev.jsonl",
        None,
        "cannot read 'dev.jsonl'",
        "correct the path",
    ),
    "a stray response": (
        "score",
        f"{PAIR}/alpha=1/dev.generations.jsonl",
        lambda path: path.read_text().replace('{"prompt_id":"', '{"prompt_id":"f', 1),
        "has a response to 'f",
        "delete it and run snakemake again",
    ),
    "responses that are cut": (
        "score",
        f"{PAIR}/alpha=1/dev.generations.jsonl",
        "cut",
        "jsonl:",
        "delete it and run",
    ),
    "rewards that are cut": (
        "select",
        f"{PAIR}/alpha=1/dev.rewards.csv",
        "cut",
        "not a complete rewards",
        "delete it",
    ),
    "rewards of another alpha": (
        "select",
        f"{PAIR}/alpha=1/dev.rewards.csv",
        _of(f"{PAIR}/alpha=60/dev.rewards.csv"),
        f"{PAIR}/alpha=1/dev.rewards.csv: is of alpha 60, not 1; ",
        "delete it and run snakemake again",
    ),
    "a recipe of another alpha": (
        "select",
        f"{PAIR}/alpha=1/model/recipe.json",
        _of(f"{PAIR}/alpha=60/model/recipe.json"),
        f"{PAIR}/alpha=1/model/recipe.json: is of alpha 60.0, not 1.0; ",
        "delete it and run snakemake again",
    ),
    "a benchmark of another variant": (
        "benchmark_table",
        f"{PAIR}/benchmarks/expo/reward.json",
        _of(f"{PAIR}/benchmarks/aligned/reward.json"),
        f"{PAIR}/benchmarks/expo/reward.json: is of variant aligned, not expo; ",
        "delete it and run snakemake again",
    ),
    "no responses": (
        "score",
        f"{PAIR}/alpha=1/dev.generations.jsonl",
        "empty",
        f"{PAIR}/alpha=1/dev.generations.jsonl: has no response; ",
        "delete it and run snakemake again",
    ),
    "a choice that was edited": (
        "tables",
        f"{PAIR}/best.json",
        lambda path: path.read_text().replace('"alpha": "', '"alpha": "7'),
        f"was not tried according to {PAIR}/alphas.csv; ",
        "delete both and run snakemake again",
    ),
    "a config that is a list": (
        "preflight",
        f"{MODEL}/sft/config.json",
        _as_long("[1, 2]"),
        "sft/config.json: holds a list",
        ";",
    ),
    "a config that is no JSON": (
        "preflight",
        f"{MODEL}/sft/config.json",
        _as_long("hello"),
        "sft/config.json: not JSON",
        ";",
    ),
    "weights that are cut": ("preflight", f"{MODEL}/dpo/model.safetensors", "cut", "model.safetensors", ";"),
    "weights that are gone": (
        "extrapolate",
        f"{MODEL}/dpo/model.safetensors",
        None,
        "model.safetensors is gone",
        ";",
    ),
    "a prompt twice": (
        "generate",
        "results/prompts/dev.jsonl",
        "a line twice",
        "occurs twice",
        "delete the file",
    ),
    "a response twice": (
        "score",
        f"{PAIR}/alpha=1/dev.generations.jsonl",
        "a line twice",
        "has a response twice",
        "delete it",
    ),
    "two choices": (
        "tables",
        f"{PAIR}/alphas.csv",
        "a line twice",
        "does not say which alpha was chosen for pair tiny",
        "delete it",
    ),
    "a choice without a column": (
        "report",
        "results/summary.csv",
        lambda path: path.read_text().replace("certified", "b"),
        "has no column",
        "delete it and run",
    ),
    "benchmarks of fewer prompts": (
        "compare",
        "results/prompts/test.jsonl",
        "a line less",
        "do not fit its prompts",
        "delete",
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_said_of_a_broken_file(walk, case):
    jobs, config = walk
    name, file, change, thing, remedy = NAMED[case]
    path, job = Path(file), jobs[name]
    content = (BROKEN[change] if isinstance(change, str) else change)(path) if change else None
    status, log = told(job, config, path, content)
    assert status == 1
    assert TRACE not in log
    *_, last = log.rstrip("\n").split("\n")
    assert last.startswith("error: ")
    assert thing in last
    assert remedy in last
