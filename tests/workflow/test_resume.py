"""A run whose head is killed while a job works goes on by `expoflow resume`; no job runs beside itself."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tree import REPOSITORY, Tree

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc"),
]
TABLES = ("alphas.csv", "rewards.csv", "benchmarks.csv", "summary.csv")
DPO = "results/logs/train/dpo.log"


class Watch(threading.Thread):
    """Looks at all jobs of a tree, again and again; `doubled` has the logs that two jobs wrote at a time."""

    def __init__(self, tree: Tree):
        super().__init__(daemon=True)
        self.tree, self.doubled, self.seen, self.over = tree, set(), set(), threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            logs = list(self.tree.jobs().values())
            self.seen |= set(logs)
            self.doubled |= {log for log in logs if logs.count(log) > 1}

    def __enter__(self) -> "Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.join()


def marked(folder: Path) -> list[int]:
    """What runs of `folder` have started and what still runs."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"EXPOFLOW_RUN={folder}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:
            pass
    return found


def expoflow(tree, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "expoflow.cli", *arguments],
        cwd="/",
        env=os.environ | {"EXPOFLOW_STORE": str(tree.store)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
    )


def start(tree, *arguments: str) -> subprocess.Popen:
    """Begin a run as one types it in the folder itself: what is relative is so to that folder."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    return subprocess.Popen(
        [*command, "--cores", "2", "--configfile", "config.yaml", *arguments],
        cwd=tree.folder,
        env=os.environ | {"EXPOFLOW_STORE": str(tree.store)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def killed(finished):
    """A tree whose head was killed while the DPO model was in training, which has stood still since."""
    folder = finished.folder
    shutil.rmtree(folder / "results/models/dpo")
    shutil.rmtree(folder / "results/pairs")
    (folder / "results/models/dpo.json").unlink()
    head = start(finished)
    for _ in range(1200):
        if finished.jobs(DPO):
            break
        assert head.poll() is None
        time.sleep(0.1)
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    left = finished.jobs(DPO)
    for pid in left:
        os.kill(pid, signal.SIGSTOP)
    assert left, "the job lives on without its head"
    return finished


def check_resumed(tree, reference) -> None:
    for table in TABLES:
        assert tree.read(table) == reference.read(table)
    until = time.monotonic() + 30
    while (
        marked(tree.folder) and time.monotonic() < until
    ):  # an engine host takes a moment to see that its head has ended
        time.sleep(0.1)
    assert marked(tree.folder) == []
    assert list((tree.folder / ".snakemake/locks").glob("*.lock")) == []
    assert list((tree.folder / ".snakemake/incomplete").glob("*")) == []
    assert tree.planned() == {}


@pytest.mark.long
def test_orphans_are_ended_before_their_jobs_run_again(killed, finished_once):
    status = expoflow(killed, "status", str(killed.folder)).stdout
    assert f"still at work; continue with: expoflow resume {killed.folder}" in status
    # A plain restart, as Snakemake advises it, starts nothing.
    with Watch(killed) as watch:
        locked = killed.snakemake("--cores", "2", check=False)
        assert f"was killed; continue with: expoflow resume {killed.folder}\n" in locked
        assert "--unlock" not in locked
        assert "continue with" not in killed.snakemake("--dry-run")
        killed.snakemake("--cores", "2", "--unlock")
        refused = killed.snakemake("--cores", "2", check=False)
        assert "of a run that was killed are still at work" in refused
        assert f"run: expoflow resume {killed.folder}" in refused
        resumed = expoflow(killed, "resume", str(killed.folder))
    assert resumed.returncode == 0, resumed.stdout
    assert "expoflow: ending processes" in resumed.stdout
    assert DPO in watch.seen
    assert watch.doubled == set()
    check_resumed(killed, finished_once)


@pytest.mark.parametrize("number", [1, 2])
def test_only_a_second_job_is_one_beside_the_first(tmp_path, number):
    """Not what the first one starts, which is a copy of it for a moment, here for a second."""
    script = tmp_path / ".snakemake/scripts/job.py"
    script.parent.mkdir(parents=True)
    script.write_text("import subprocess, time\nsubprocess.run(['true'], preexec_fn=lambda: time.sleep(1))\n")
    log = tmp_path / DPO
    log.parent.mkdir(parents=True)
    with Watch(Tree(tmp_path, tmp_path)) as watch, log.open("w") as file:
        for process in [subprocess.Popen([sys.executable, script], stdout=file) for _ in range(number)]:
            assert process.wait(timeout=60) == 0
    assert watch.seen == {DPO}
    assert watch.doubled == ({DPO} if number > 1 else set())


def test_a_run_that_is_alive_is_left_alone(finished):
    head = start(finished, "--force", "results/models/rm.json")
    while not finished.jobs():
        assert head.poll() is None
        time.sleep(0.1)
    refused = expoflow(finished, "resume", str(finished.folder))
    assert refused.returncode == 2
    assert f"its Snakemake runs, process {head.pid}; there is nothing to resume" in refused.stdout
    locked = finished.snakemake("--cores", "2", "--force", "results/models/rm.json", check=False)
    assert f"a run is at work in this folder (process {head.pid}); wait until it ends, or stop it\n" in locked
    assert "LockException" not in locked
    assert head.wait(timeout=300) == 0


def test_a_folder_without_a_run_is_an_error(tmp_path, finished):
    refused = expoflow(finished, "resume", str(tmp_path))
    assert refused.returncode == 2
    assert "nothing was run here" in refused.stdout
