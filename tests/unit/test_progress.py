"""How far a job is, as others see it: what is counted, and what becomes of the file."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from expoflow.system import progress
from expoflow.system.progress import FILE, Progress, begun, place, read, report


@pytest.fixture
def log(tmp_path) -> Path:
    """The log of a job that this process is."""
    with progress.of_job(tmp_path / "job.log"):
        yield tmp_path / "job.log"
    assert [*tmp_path.iterdir()] == []
    assert FILE not in os.environ


def told(log: Path) -> tuple:
    found = read(log)
    return found.done, found.total, found.unit, found.last


def wait(log: Path, *wanted) -> None:
    """Until this is told."""
    for _ in range(600):
        if told(log) == wanted:
            return
        time.sleep(0.1)
    raise AssertionError(told(log))


def counted(monkeypatch, *said: tuple[float, dict]) -> Progress:
    """What is told after reports at these seconds: 1000 responses are asked for unless they say else."""
    found = None
    for second, each in said:
        monkeypatch.setattr(progress, "time", SimpleNamespace(time=lambda: 1e9 + second))  # noqa: B023
        each = ({"total": 1000, "unit": "responses", "last": "", "tokens": 0} | each).values()
        total, unit, last, tokens, done = each
        found = (
            found.then(done, total, unit, last, tokens) if found else begun(done, total, unit, last, tokens)
        )
    return found


def test_the_file_is_what_the_job_has_said(log):
    assert read(log) is None
    before = time.time()
    report(3, 10, "steps", "loss 0.5")
    found = json.loads(place(log).read_text())
    assert before <= found["began"] == found["updated"] <= time.time()
    assert {name: found[name] for name in ("done", "total", "unit", "last", "before")} == {
        "done": 3, "total": 10, "unit": "steps", "last": "loss 0.5", "before": 3,
    }  # fmt: skip
    assert place(log) == log.with_name(".job.log.progress")


def test_it_is_told_once_a_second_and_what_was_said_last_comes_too(log):
    for step in range(5):
        report(step, 10, "steps")
    assert told(log)[0] == 0
    wait(log, 4, 10, "steps", "")
    report(0, 7, "rewards")
    wait(log, 0, 7, "rewards", "")


def test_speed_counts_neither_what_was_kept_nor_the_time_to_load(monkeypatch):
    first = (0, {"done": 500}), (60, {"done": 510, "tokens": 300})
    for number in (1, 2):
        found = counted(monkeypatch, *first[:number])
        assert (found.speed, found.left, found.tokens_per_second) == (None, None, None)
    found = counted(
        monkeypatch, *first, (70, {"done": 530, "tokens": 2300}), (80, {"done": 550, "tokens": 4300})
    )
    assert (found.began, found.updated) == (1e9, 1e9 + 80)
    assert (found.speed, found.left, found.tokens_per_second) == (2, 225, 200)


def test_a_count_that_begins_anew_has_a_speed_of_its_own(monkeypatch):
    rounds = [(2 * step, {"done": step}) for step in range(100)]
    rounds += [(200 + 4 * step, {"done": step}) for step in range(10)]
    found = counted(monkeypatch, *rounds)
    assert (found.began, found.speed) == (1e9 + 200, 0.25)
    found = counted(monkeypatch, *rounds, (300, {"done": 9, "unit": "steps"}))
    assert (found.began, found.speed) == (1e9 + 300, None)


def test_a_file_that_says_no_more_than_it_must_is_read(tmp_path):
    must = {"done": 30, "total": 40, "unit": "steps", "last": "", "began": 100, "updated": 115}
    place(tmp_path / "log").write_text(json.dumps(must))
    found = read(tmp_path / "log")
    assert (found.speed, found.left, found.tokens_per_second) == (2, 5, None)


def test_more_may_be_done_than_was_said(monkeypatch):
    found = counted(monkeypatch, *((step, {"done": step, "total": 3}) for step in range(6)))
    assert (found.speed, found.left) == (1, 0)


def test_a_total_that_is_not_known_may_come_later_and_stays(log, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0)
    report(2, None, "answers")
    assert told(log)[:2] == (2, None)
    report(3, 50, "answers")
    report(4, None, "answers")
    assert told(log)[:2] == (4, 50)
    report(4, None, "points")
    assert told(log)[:2] == (4, None)


def test_nobody_is_told_outside_of_a_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report(1, 2, "steps")
    assert [*tmp_path.iterdir()] == []


COUNT = '{"done": %s, "total": 4, "unit": "steps", "last": "", "began": 1, "updated": 2}'


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"done": 1}', COUNT % '"all"', COUNT % "NaN", COUNT % "1e999"]
)
def test_what_is_no_count_is_none(tmp_path, text):
    place(tmp_path / "log").write_text(text)
    assert read(tmp_path / "log") is None


def test_a_terminal_obeys_nothing_of_it(log):
    report(1, 2, "bytes", "model\x1b[2J.safetensors")
    assert read(log).last == r"model\x1b[2J.safetensors"


def test_a_job_goes_on_after_what_cannot_be_told(log, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0)
    report(1, 2, "steps")
    report(float("nan"), 2, "steps")
    report(2, 2, "steps", "\udcff")
    report(2, 2, "steps")
    assert told(log)[0] == 2


def test_a_place_that_cannot_be_written_is_no_matter(tmp_path):
    with progress.of_job(tmp_path / "gone" / "job.log"):
        report(1, 2, "steps")
    with progress.of_job(Path("/dev/full")):
        report(1, 2, "steps")


def test_whoever_reads_meanwhile_finds_it_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "PAUSE", 0)
    log, ends = tmp_path / "job.log", threading.Event()

    def work() -> None:
        while not ends.is_set():
            report(1, 10**9, "bytes", "x" * 5000)

    with progress.of_job(log):
        report(1, 10**9, "bytes")
        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        found = [read(log) for _ in range(300)]
        ends.set()
        for thread in threads:
            thread.join()
    assert None not in found


def test_it_costs_next_to_nothing(tmp_path):
    threads = threading.active_count()
    with progress.of_job(tmp_path / "job.log"):
        begin = time.process_time()
        for step in range(100_000):
            report(step, 100_000, "steps")
        assert time.process_time() - begin < 1  # on any machine; it is some hundredths
        assert threading.active_count() <= threads + 1


JOB = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
from expoflow.system import child, progress
from expoflow.system.logs import job_log

with job_log(sys.argv[1]):
    if sys.argv[2] == "itself":
        progress.report(5, 9, "steps")
    else:
        code = "from expoflow.system import progress; progress.report(5, 9, 'steps')"
        child.run([sys.executable, "-c", code])
    while not Path(sys.argv[1] + ".go").exists():
        time.sleep(0.01)
    if sys.argv[3]:
        raise ValueError(sys.argv[3])
"""


def started(log: Path, who: str = "itself", error: str = "") -> subprocess.Popen:
    """A job that has said how far it is, and waits."""
    job = subprocess.Popen([sys.executable, "-c", JOB, log.name, who, error], cwd=log.parent)
    while read(log) is None:
        assert job.poll() is None, log.read_text()
        time.sleep(0.01)
    assert told(log) == (5, 9, "steps", "")
    return job


@pytest.mark.parametrize(("who", "error"), [("itself", ""), ("itself", "broken"), ("a child", "")])
def test_the_file_goes_with_the_job_s_end(tmp_path, who, error):
    log = tmp_path / "job.log"
    job = started(log, who, error)
    (tmp_path / "job.log.go").touch()
    assert job.wait() == bool(error), log.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.log", "job.log.go"]


def test_what_a_killed_job_leaves_goes_with_the_next(tmp_path):
    log = tmp_path / "job.log"
    job = started(log)
    job.kill()
    job.wait()
    assert told(log)[0] == 5  # whether it runs is for others to say
    place(log).with_name(".job.log.progress.new").touch()
    (tmp_path / "job.log.go").touch()
    subprocess.run([sys.executable, "-c", JOB, "job.log", "itself", ""], cwd=tmp_path, check=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["job.log", "job.log.go"]
