"""A job that was given GPUs, and whose run has no hosts for it, has one of its own, which ends with it."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from expoflow.system.processes import ended
from expoflow.system.progress import read
from fake_gpus import Gpu, fake_gpus
from waits import wait

pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="hosts need Linux")
HERE = Path(__file__).parent


class Job:
    """A job of the tasks (kind, key, arguments), with a temporary folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str], *tasks):
        self.folder, self.places = folder, Path(tempfile.mkdtemp(prefix="expoflow-test-"))
        path = f"{environment.get('PYTHONPATH', '')}:{HERE}"
        self.process = subprocess.Popen(
            [sys.executable, HERE / "own_job.py", json.dumps(tasks)],
            cwd=folder,
            env=os.environ | environment | {"PYTHONPATH": path, "TMPDIR": str(self.places)},
            process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def rows(self) -> list[dict]:
        """What the tasks have said up to now."""
        file = self.folder / "rows"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []

    def log(self) -> str:
        return (self.folder / "log").read_text()

    def nothing_remains(self) -> bool:
        """Of processes, shared memory and temporary files."""
        rows = self.rows()
        pids = [row[name] for row in rows for name in ("pid", "worker", "child") if name in row]
        memory = [Path("/dev/shm") / row["memory"] for row in rows if "memory" in row]
        return (
            all(map(ended, pids))
            and not any(path.exists() for path in memory)
            and not [*self.places.iterdir()]
        )


@pytest.fixture
def job(tmp_path, monkeypatch):
    """Start a job that sees two GPUs and was given `visible` of them."""
    jobs = []
    monkeypatch.delenv("EXPOFLOW_HEAD", raising=False)
    seen = fake_gpus(tmp_path / "gpus", Gpu(), Gpu())

    def start(*tasks, visible="0,1", **more) -> Job:
        environment = seen | {"CUDA_VISIBLE_DEVICES": visible} | more
        jobs.append(Job(tmp_path, environment, *tasks))
        return jobs[-1]

    yield start
    for each in jobs:
        each.process.kill()
        each.process.wait()
        wait(each.nothing_remains)
        each.places.rmdir()


def done(job: Job) -> list[dict]:
    assert job.process.wait() == 0, job.log()
    return job.rows()


def test_what_spawns_does_not_begin_with_the_job_itself_and_the_log_is_whole(job):
    mine = job(["spread", "", {}])
    first, last = done(mine)
    assert mine.nothing_remains()
    assert first["pid"] != first["job"]
    assert first["devices"] == "0,1"
    assert last["finished"]
    said = [line for line in mine.log().splitlines() if not line.endswith(f"serves process {first['job']}")]
    assert said == ["the job begins", "said in the task", "said by a program", "the job ends"]
    assert not (mine.folder / "results").exists()


def test_a_part_that_dies_ends_the_host_which_is_started_again_once(job, tmp_path):
    (tmp_path / "die").touch()
    mine = job(["spread", "", {}])
    first, second, last = done(mine)
    assert first["pid"] != second["pid"]
    assert last["finished"]
    assert f"the engine host of slot 0 (process {first['pid']}) has died; starting another one" in mine.log()
    assert "RuntimeError: a part does not answer" in mine.log()
    assert mine.nothing_remains()


def test_the_host_lives_as_long_as_the_job_wants_the_same_model(job):
    asked = [["count", key, {"key": key, "n": 1}] for key in ("a", "a", "b")]
    first, second, third = done(job(*asked, visible="1"))
    assert first["pid"] == second["pid"] != third["pid"]


@pytest.mark.parametrize("visible", ["1", ""], ids=["in a host", "in the job"])
def test_how_far_the_work_is_can_be_seen_beside_the_job_s_log(job, visible):
    asked = {"prompts": ["a", "b", "c"], "config": {"samples": 2}, "done": [["a", 0]], "wait": [4, "go"]}
    mine = job(
        ["generate", "", asked], ["ask", "", {"kept": [1, 2], "n": 9, "wait": [5, "on"]}], visible=visible
    )
    wait(lambda: len(mine.rows()) == 3)
    wait(lambda: (said := read(mine.folder / "log")) and said.done == 4)
    said = read(mine.folder / "log")
    assert (said.total, said.unit, said.tokens) == (6, "responses", 30)
    (mine.folder / "go").touch()
    wait(lambda: len(mine.rows()) == 8)
    wait(lambda: (said := read(mine.folder / "log")) and (said.done, said.unit) == (5, "answers"))
    assert read(mine.folder / "log").total == 9
    (mine.folder / "on").touch()
    done(mine)
    assert mine.nothing_remains()
    assert not [*mine.folder.glob("*progress*")]


def test_the_last_word_of_a_job_is_its_error(job):
    mine = job(["spread", "", {}], ["fail", "", {"how": "checkpoint"}])
    assert mine.process.wait() == 1
    assert mine.log().splitlines()[-1] == "error: model 'x' is broken; mend it"
    assert mine.nothing_remains()


def test_a_host_that_dies_twice_has_said_why_in_the_job_s_log(job):
    mine = job(["crash", "", {}])
    assert mine.process.wait() == 1
    assert mine.log().count("Segmentation fault") == 2
    assert mine.log().endswith("has died, and so did the one before; its messages are above\n")


def test_without_a_gpu_the_job_does_the_work_itself(job):
    (row,) = done(job(["count", "", {"n": 1}], visible=""))
    assert row["pid"] == row["job"]


@pytest.mark.parametrize("how", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_remains_of_a_job_that_is_ended(job, how):
    mine = job(["spread", "", {}], ["count", "", {"n": 9, "wait": [1, "never"]}])
    wait(lambda: len(mine.rows()) == 3)
    if how == "SIGINT":
        os.killpg(mine.process.pid, signal.SIGINT)
    else:
        mine.process.send_signal(signal.Signals[how])
    assert mine.process.wait() != 0
    wait(mine.nothing_remains)
