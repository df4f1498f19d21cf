"""A finished run's tables and figures in MLflow: a folder of its own, without any server."""

import sqlite3
from pathlib import Path

import pytest
from expoflow.config.tracking import TrackingConfig
from expoflow.paths import Results
from expoflow.reporting import tracking

TABLES = {
    "alphas": "pair,alpha,reward,reward_low,chosen\nmine,-1,0.5,,0\nmine,0,1.0,0.9,0\nmine,0.25,1.5,1.4,1\n",
    "summary": "pair,best_alpha,certified,reward_expo\nmine,0.25,1,1.5\n",
    "benchmarks": "pair,variant,benchmark,metric,value,standard_error,n\n"
    'mine,expo,lm_eval,"ifeval.acc,x",0.75,0.1,4\nmine,expo,mt_bench,,,,\n',
    "rewards": "pair,alpha,reward\nmine,0,1.0\n",
}


class Section:
    """What of a config is asked."""

    def __init__(self, place: str | None, limit: int | None = None):
        self.tracking = place and TrackingConfig(mlflow=place, experiment="tests")
        self.limit = limit

    def model_dump(self, exclude: set[str], **_) -> dict:
        assert "tracking" in exclude  # its address may have a password
        return {"seed": 42}


@pytest.fixture
def results(tmp_path) -> Results:
    found = Results(tmp_path / "results")
    for name, text in TABLES.items():
        found.table(name).parent.mkdir(parents=True, exist_ok=True)
        found.table(name).write_text(text)
    for path in (found.figure("sweep", "svg"), found.best("mine"), found.report):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return found


def test_nothing_is_sent_unless_it_is_asked_for(results):
    assert tracking.send(Section(None), results) == ""


def test_numbers_of_the_tables_have_names_that_mlflow_takes(results):
    assert list(tracking._metrics(results)) == [
        ("mine/sweep/reward", 0.5, -1000),
        ("mine/sweep/chosen", 0.0, -1000),
        ("mine/sweep/reward", 1.0, 0),
        ("mine/sweep/reward_low", 0.9, 0),
        ("mine/sweep/chosen", 0.0, 0),
        ("mine/sweep/reward", 1.5, 250),
        ("mine/sweep/reward_low", 1.4, 250),
        ("mine/sweep/chosen", 1.0, 250),
        ("mine/summary/best_alpha", 0.25, 0),
        ("mine/summary/certified", 1.0, 0),
        ("mine/summary/reward_expo", 1.5, 0),
        ("mine/expo/lm_eval/ifeval.acc_x", 0.75, 0),
        ("mine/expo/lm_eval/ifeval.acc_x/standard_error", 0.1, 0),
    ]


def test_a_folder_keeps_what_is_sent(results, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'expoflow[track]'")
    monkeypatch.chdir(tmp_path)
    words = tracking.send(Section("kept"), results)
    assert words.startswith("tracking: sent to kept, experiment tests, run "), words
    assert tracking.send(Section("kept"), results).startswith("tracking: sent to kept")
    with sqlite3.connect(tmp_path / "kept/mlflow.db") as database:
        rows = database.execute("select key, value, step from metrics order by step").fetchall()
        runs = database.execute("select status from runs").fetchall()
    assert runs == [("FINISHED",), ("FINISHED",)]
    assert rows.count(("mine/sweep/reward", 1.5, 250)) == 2
    files = {path.name for path in (tmp_path / "kept/artifacts").rglob("*") if path.is_file()}
    assert files == {
        *("alphas.csv", "summary.csv", "benchmarks.csv", "sweep.svg", "report.html", "best.json"),
        "config.json",
    }


def test_a_rehearsal_and_a_run_that_was_not_sent_whole_are_told_apart(results, tmp_path, monkeypatch):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'expoflow[track]'")
    monkeypatch.chdir(tmp_path)
    assert tracking.send(Section("kept", limit=4), results).startswith("tracking: sent to kept")
    results.table("summary").write_bytes(b"\xff")
    assert "WARNING: tracking: nothing, or only a part, was sent" in tracking.send(Section("kept"), results)
    with sqlite3.connect(tmp_path / "kept/mlflow.db") as database:
        statuses = database.execute("select status from runs order by start_time").fetchall()
        tags = database.execute("select value from tags where key = 'rehearsal'").fetchall()
    assert (statuses, tags) == ([("FINISHED",), ("FAILED",)], [("4",)])


def test_a_password_is_not_shown(results, monkeypatch):
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'expoflow[track]'")
    said = tracking.send(Section("http://me:secret@127.0.0.1:9"), results)
    assert "sent to http://127.0.0.1:9" in said
    assert "secret" not in said


def test_what_goes_wrong_is_a_warning(results, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("kept").write_text("no folder")
    (line,) = tracking.send(Section("kept"), results).splitlines()
    assert line.startswith("WARNING: tracking: ")
    pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'expoflow[track]'")
    (line,) = tracking.send(Section("http://127.0.0.1:9"), results).splitlines()
    assert line.startswith("WARNING: tracking: nothing, or only a part, was sent to http://127.0.0.1:9: ")
