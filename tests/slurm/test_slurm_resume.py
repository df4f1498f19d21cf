"""A head that is killed while SLURM runs its jobs: `expoflow resume` goes on, and no job runs beside itself."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from itertools import pairwise

import pytest
from slurm_tree import SlurmTree

pytestmark = [pytest.mark.slurm, pytest.mark.workflow, pytest.mark.xdist_group("slurm")]
TARGET = "results/pairs/tiny/alphas.csv"


@pytest.fixture
def tree(finished, tmp_path) -> SlurmTree:
    """The finished tree as it was before its sweep, and nothing of it in the store."""
    shutil.copytree(finished.folder, tmp_path / "tree", symlinks=True)
    pair = tmp_path / "tree/results/pairs/tiny"
    for path in [*pair.glob("alpha=*/dev.*"), pair / "alphas.csv", pair / "best.json"]:
        path.unlink()
    return SlurmTree(tmp_path / "tree", tmp_path / "store")


def jobs_of(cluster, tree, *states: str) -> list[dict[str, str]]:
    return [
        job
        for job in cluster.jobs()
        if job["WorkDir"] == str(tree.folder) and (not states or job["JobState"] in states)
    ]


def kill_head_at_work(cluster, tree) -> list[dict[str, str]]:
    """Begin the sweep, and kill the head where two of its jobs run and two wait; returns these."""
    head = tree.start(TARGET)
    while len(jobs_of(cluster, tree, "RUNNING")) < 2 or len(jobs_of(cluster, tree)) < 4:
        assert head.poll() is None, (tree.folder / "snakemake.out").read_text()
        time.sleep(0.2)
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    left = jobs_of(cluster, tree, "RUNNING", "PENDING")
    assert {job["JobState"] for job in left} == {"RUNNING", "PENDING"}
    return left


def resume(tree) -> str:
    run = subprocess.run(
        [sys.executable, "-m", "expoflow.cli", "resume", str(tree.folder)],
        cwd="/",
        env=os.environ | {"EXPOFLOW_STORE": str(tree.store)},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=1200,
    )
    assert run.returncode == 0, run.stdout
    return run.stdout


def test_a_killed_head_is_resumed_without_a_job_beside_itself(cluster, finished, tree):
    left = kill_head_at_work(cluster, tree)
    assert "expoflow: ending SLURM jobs" in resume(tree)
    assert tree.read("pairs/tiny/alphas.csv") == finished.read("pairs/tiny/alphas.csv")
    assert jobs_of(cluster, tree, "RUNNING", "PENDING", "COMPLETING") == []
    assert list((tree.folder / ".snakemake/locks").glob("*.lock")) == []
    assert list((tree.folder / ".snakemake/incomplete").glob("*")) == []
    runs = defaultdict(list)
    for job in jobs_of(cluster, tree):
        runs[job["Comment"]].append(job)
    for each in runs.values():
        for earlier, later in pairwise(each):
            assert earlier["EndTime"] <= later["StartTime"]
        assert [job["JobState"] for job in each].count("COMPLETED") == 1
    states = {job["JobId"]: job["JobState"] for job in jobs_of(cluster, tree)}
    assert {states[job["JobId"]] for job in left} == {"CANCELLED"}


def test_a_plain_restart_beside_orphans_is_refused(cluster, tree):
    kill_head_at_work(cluster, tree)
    restart = tree.start("--unlock")
    assert restart.wait(timeout=120) == 0
    restart = tree.start(TARGET)
    assert restart.wait(timeout=120) != 0
    said = (tree.folder / "snakemake.out").read_text()
    assert "of a run that was killed are still at work" in said
    assert f"expoflow resume {tree.folder}" in said
    cluster.cancel_all()
