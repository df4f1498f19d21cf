"""The whole default run on a real SLURM: every job where and with what it asked for, and the same results.

Half an hour, so `make test-slurm-whole` alone runs it.
"""

import shutil
from collections import Counter

import pytest
import yaml
from slurm_tree import SlurmTree, ask_for_gpus, jobs_of
from workflow.tree import REPOSITORY

pytestmark = [pytest.mark.slurm, pytest.mark.whole, pytest.mark.workflow]
MINIATURE = REPOSITORY / "config/config.yaml"
HOURS = 2 * 3600
# By rule: partition, GPUs and CPUs; MB of memory. Jobs of a group have the sum of several.
ASKED = {
    "train": ("cpu", None, "1"),
    "extrapolate": ("cpu", None, "1"),
    "generate": ("gpu", "gres:gpu:1", "4"),
    "score": ("gpu", "gres:gpu:1", "4"),
    "benchmark_reward": ("gpu", "gres:gpu:1", "4"),
    "export": ("cpu", None, "1"),
}
MEMORY = {"generate": 8001, "score": 8001, "benchmark_reward": 8001, "extrapolate": 4001, "export": 4001}
GROUPED = {f"{rule}_{rule}" for rule in ("select", "compare", "figure")}


def new_default_tree(folder) -> SlurmTree:
    """`make run`'s own config, in which every model asks for one of the nodes' GPUs."""
    (folder / "tree").mkdir(parents=True)
    shutil.copy(MINIATURE, folder / "tree/config.yaml")
    tree = SlurmTree(folder / "tree", folder / "store")
    ask_for_gpus(tree, dict.fromkeys(yaml.safe_load(MINIATURE.read_text())["models"], 1))
    return tree


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> SlurmTree:
    """The same run on this machine, without SLURM."""
    tree = new_default_tree(tmp_path_factory.mktemp("alone"))
    tree.plan = tree.planned()
    tree.snakemake("--cores", "2", timeout=HOURS)
    return tree


@pytest.fixture(scope="module")
def whole(cluster, alone, tmp_path_factory) -> SlurmTree:
    tree = new_default_tree(tmp_path_factory.mktemp("whole"))
    tree.submit(timeout=HOURS)
    tree.records = jobs_of(cluster, tree)
    return tree


def rule_of(job) -> str:
    return job["Comment"].removeprefix("rule_").partition("_wildcards")[0]


def test_every_table_is_that_of_a_local_run_byte_by_byte(whole, alone):
    tables = sorted(path.relative_to(alone.folder) for path in alone.folder.glob("results/**/*.csv"))
    assert len(tables) > 30
    for table in tables:
        assert (whole.folder / table).read_bytes() == (alone.folder / table).read_bytes(), table


def test_every_job_ran_once_to_its_end_and_both_nodes_worked(whole, alone):
    assert {job["JobState"] for job in whole.records} == {"COMPLETED"}
    jobs = Counter(map(rule_of, whole.records))
    assert {rule: jobs[rule] for rule in ASKED} == {rule: alone.plan[rule] for rule in ASKED}
    assert set(jobs) <= set(ASKED) | GROUPED
    nodes = Counter(job["NodeList"] for job in whole.records)
    assert set(nodes) == {"node1", "node2"}
    assert min(nodes.values()) > 10


def test_jobs_ran_where_and_with_what_their_rules_ask_for(whole):
    for job in whole.records:
        if (rule := rule_of(job)) in ASKED:
            assert (job["Partition"], job.get("TresPerJob"), job["NumCPUs"]) == ASKED[rule], job["Comment"]
        if rule in MEMORY:
            assert job["MinMemoryNode"] == f"{MEMORY[rule]}M", job["Comment"]
    assert {job["Requeue"] for job in whole.records} == {"1"}
