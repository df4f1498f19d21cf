"""AlpacaEval's files from the hub: those that no setting names, and what is said if they are not there."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from expoflow.benchmarks.alpaca_eval import files as alpaca_eval_files
from expoflow.config.benchmarks import AlpacaEvalBenchmark

PROGRAM = """
import sys
from pathlib import Path
from expoflow.benchmarks.alpaca_eval import files
from expoflow.config.benchmarks import AlpacaEvalBenchmark
from expoflow.errors import DataError
try:
    config = AlpacaEvalBenchmark.model_validate_json(sys.argv[1])
    files.gather(config, 0, Path(sys.argv[2]))
except DataError as error:
    sys.exit(f"error: {error}")
"""
ROWS = [{"instruction": "Say.", "output": "Said.", "generator": "x"}]


@pytest.fixture
def dataset(hub, tmp_path) -> str:
    """The commit of a dataset with the reference's outputs alone."""
    folder = tmp_path / "dataset"
    folder.mkdir()
    (folder / "alpaca_eval_gpt4_baseline.json").write_text(json.dumps(ROWS))
    return hub.add("datasets/org/set", folder)


def gather(user, config: AlpacaEvalBenchmark, path: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM, config.source(), str(path)]
    return subprocess.run(command, env=user.environment(), cwd=user.folder, capture_output=True, text=True)


def test_what_is_not_given_comes_from_the_hub(user, hub, dataset):
    config = AlpacaEvalBenchmark(hub="org/set", df_gamed="mine.csv", revision=dataset)
    files = config.inputs()
    assert files["df_gamed"] == "mine.csv"
    path = user.folder / files["reference"]
    assert path.parts[-3:-1] == ("benchmarks", f"alpaca_eval.{config.source_name()}")
    run = gather(user, config, path)
    assert run.returncode == 0, run.stderr
    assert [each.output for each in alpaca_eval_files.read_questions(path)] == ["Said."]
    assert json.loads(path.read_text()) == ROWS
    assert not any("alpaca_eval" in request for request in hub.requests if "resolve" not in request)


def test_another_revision_is_another_file():
    names = {
        AlpacaEvalBenchmark(hub="org/set", revision=revision).source_name() for revision in (None, "a", "b")
    }
    assert len(names) == 3


@pytest.mark.parametrize(
    ("name", "file"), [("org/none", "alpaca_eval_gpt4_baseline.json"), ("org/set", "df_gamed.csv")]
)
def test_what_the_hub_lacks_is_named(user, dataset, name, file):
    run = gather(user, AlpacaEvalBenchmark(hub=name), user.folder / file)
    assert run.returncode == 1
    assert run.stderr.strip().splitlines()[-1].startswith(f"error: alpaca_eval: {file} of dataset '{name}'")
    assert "Traceback" not in run.stderr
    assert not (user.folder / file).exists()
