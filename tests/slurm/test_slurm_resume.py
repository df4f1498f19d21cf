"""A head that is killed while SLURM runs its jobs: `expoflow resume` goes on, and no job runs beside itself."""

from collections import defaultdict
from itertools import pairwise

import pytest
from slurm_tree import SWEEP, jobs_of, kill_head_at_work

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]


def test_a_killed_head_is_resumed_without_a_job_beside_itself(cluster, finished, tree):
    left = kill_head_at_work(cluster, tree)
    assert "expoflow: ending SLURM jobs" in tree.resume()
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
    restart = tree.start(SWEEP)
    assert restart.wait(timeout=120) != 0
    said = (tree.folder / "snakemake.out").read_text()
    assert "of a run that was killed are still at work" in said
    assert f"expoflow resume {tree.folder}" in said
    cluster.cancel_all()
