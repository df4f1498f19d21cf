"""A SLURM that keeps accounts, and soon forgets jobs that have ended: sacct tells how they fared."""

import os
import signal
import subprocess
import time
from collections import Counter

import pytest
from slurm_tree import SWEEP, jobs_of, kill_head_at_work

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]
FIELDS = ("JobIDRaw", "Account", "State", "Comment", "WorkDir")


@pytest.fixture(scope="module", autouse=True)
def accounting(cluster, finished):
    with cluster.accounting("research"):
        yield


def charged_to(account: str) -> tuple[str, ...]:
    return ("--default-resources", f"slurm_account={account}", "mem_mb=8000")


def accounted(tree) -> list[dict[str, str]]:
    """What the accounting knows of the tree's jobs, in the order of their ids."""
    asked = ["sacct", "--allocations", "--noheader", "--parsable2", "--format", ",".join(FIELDS)]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [dict(zip(FIELDS, line.split("|"), strict=True)) for line in lines]
    return sorted(
        (row for row in rows if row["WorkDir"] == str(tree.folder)), key=lambda row: int(row["JobIDRaw"])
    )


def test_a_killed_head_is_resumed_and_all_jobs_are_charged_to_the_account(cluster, finished, tree):
    responses = [f"pairs/tiny/alpha={alpha}/dev.generations.jsonl" for alpha in ("-1", "0", "1", "60")]
    targets = [f"results/{name}" for name in responses]
    left = kill_head_at_work(cluster, tree, *charged_to("research"), targets=targets)
    said = tree.resume()
    assert "expoflow: ending SLURM jobs" in said
    assert "Falling back to 'sacct'" in said
    for name in responses:
        assert tree.read(name) == finished.read(name)
    rows = accounted(tree)
    assert {row["Account"] for row in rows} == {"research"}
    states = {row["JobIDRaw"]: row["State"].split()[0] for row in rows}  # CANCELLED by whom
    assert {states[job["JobId"]] for job in left} == {"CANCELLED"}
    done = Counter(row["Comment"] for row in rows if row["State"] == "COMPLETED")
    assert set(done.values()) == {1}
    assert Counter(comment.split("_")[1] for comment in done) == {"generate": 4}


def test_why_a_job_failed_is_told_and_it_is_tried_again(cluster, finished, tree):
    responses = "results/pairs/tiny/alpha=1/dev.generations.jsonl"
    head = tree.start(responses, *charged_to("research"))
    while not (stuck := tree.jobs("results/logs/generate/tiny/alpha=1.dev.log")):
        assert head.poll() is None, (tree.folder / "snakemake.out").read_text()
        time.sleep(0.1)
    for pid in stuck:
        os.kill(pid, signal.SIGSTOP)
    (job,) = jobs_of(cluster, tree, "RUNNING")
    subprocess.run(["scontrol", "update", f"JobId={job['JobId']}", "EndTime=now"], check=True)
    assert head.wait(timeout=600) == 0, (tree.folder / "snakemake.out").read_text()
    assert "SLURM status is: 'TIMEOUT'" in (tree.folder / "snakemake.out").read_text()
    assert [row["State"] for row in accounted(tree)] == ["TIMEOUT", "COMPLETED"]
    name = responses.removeprefix("results/")
    assert tree.read(name) == finished.read(name)


def test_an_account_that_there_is_not_is_named_before_a_job_is_submitted(cluster, tree):
    head = tree.start(SWEEP, *charged_to("nobody"))
    assert head.wait(timeout=300) != 0
    said = (tree.folder / "snakemake.out").read_text()
    assert "The given account nobody appears to be invalid" in said
    assert "research" in said.partition("Available accounts:")[2]
    assert accounted(tree) == []
