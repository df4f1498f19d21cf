"""The micro configuration on a real SLURM: what it asked for, where it ran, and that results are the same."""

import re
import subprocess
import time

import pytest
from slurm_tree import TABLES

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]
ON_NODES = {
    "train": 3,
    "extrapolate": 4,
    "generate": 4,
    "score": 4,
    "select": 1,
    "export": 1,
    "benchmark_reward": 3,
    "compare": 1,
    "figure": 1,  # a group of three
}


@pytest.fixture
def records(finished):
    """SLURM's records of the run's jobs."""
    return finished.records


def of_rule(records, rule):
    return [job for job in records if job["Comment"].startswith(f"rule_{rule}_")]


def test_results_are_those_of_a_local_run(finished, local):
    for table in TABLES:
        assert finished.read(table) == local.read(table)
    assert (finished.folder / "results/report.html").is_file()


def test_every_job_ran_once_and_both_nodes_worked(records):
    assert {rule: len(of_rule(records, rule)) for rule in ON_NODES} == ON_NODES
    assert len(records) == sum(ON_NODES.values())
    assert {job["JobState"] for job in records} == {"COMPLETED"}
    assert {job["NodeList"] for job in records} == {"node1", "node2"}


def test_partitions_are_those_of_the_rules(records):
    models = {"generate", "score", "benchmark_reward"}
    for rule in ON_NODES:
        wanted = "gpu" if rule in models else "cpu"
        assert {job["Partition"] for job in of_rule(records, rule)} == {wanted}


def test_gpus_and_cpus_are_those_of_the_models(records):
    asked = {job["Comment"]: (job.get("TresPerJob"), job["NumCPUs"]) for job in records}
    assert asked["rule_generate_wildcards_tiny_60_dev"] == ("gres:gpu:2", "8")
    assert asked["rule_score_wildcards_tiny_60_dev"] == ("gres:gpu:1", "4")
    assert asked["rule_benchmark_reward_wildcards_tiny_sft"] == ("gres:gpu:1", "4")
    assert asked["rule_benchmark_reward_wildcards_tiny_aligned"] == ("gres:gpu:2", "8")
    assert asked["rule_extrapolate_wildcards_tiny_60"] == (None, "1")


def test_memory_and_time_have_come_from_manifests_that_were_made_in_the_same_run(records):
    for rule, memory, limit in (("generate", 8001, "01:01:00"), ("extrapolate", 4001, "00:16:00")):
        for job in of_rule(records, rule):
            assert (job["MinMemoryNode"], job["TimeLimit"]) == (f"{memory}M", limit)
    assert {job["Requeue"] for job in records} == {"1"}


def test_logs_of_slurm_go_beside_the_others(records, finished):
    folder = finished.folder / "results/logs/slurm"
    for job in records:
        assert job["StdOut"].startswith(str(folder))


def test_gpus_are_asked_for_by_gres_where_the_profile_says_so(finished, cluster):
    target = "results/pairs/tiny/alpha=1/dev.generations.jsonl"
    before = finished.read(target.removeprefix("results/"))
    finished.submit("--default-resources", "gpu_gres=gpu", "mem_mb=8000", "--force", target)
    last = cluster.jobs()[-1]
    assert re.fullmatch("rule_generate_wildcards_tiny_1_dev", last["Comment"])
    assert (last["TresPerNode"], "TresPerJob" in last, last["NumCPUs"]) == ("gres:gpu:2", False, "8")
    assert finished.read(target.removeprefix("results/")) == before


def test_a_job_waits_for_its_gpus_on_one_node(finished, cluster):
    """If each node has one GPU left, SLURM would give a job of two one of each, and the job could not start."""
    target = "results/pairs/tiny/alpha=1/dev.generations.jsonl"
    before = finished.read(target.removeprefix("results/"))
    with cluster.busy(3) as held:
        head = finished.start("--force", target)
        while not (jobs := [job for job in cluster.jobs() if int(job["JobId"]) > max(map(int, held))]):
            assert head.poll() is None, (finished.folder / "snakemake.out").read_text()
            time.sleep(0.2)
        time.sleep(5)  # what could start would have
        (job,) = [job for job in cluster.jobs() if job["JobId"] == jobs[0]["JobId"]]
        assert (job["JobState"], job["NumNodes"], job["TresPerJob"]) == ("PENDING", "1-1", "gres:gpu:2")
        subprocess.run(["scancel", held[0]], check=True)
        assert head.wait(timeout=300) == 0, (finished.folder / "snakemake.out").read_text()
    assert cluster.jobs()[-1]["NodeList"] == "node1"
    assert finished.read(target.removeprefix("results/")) == before
