"""A SLURM of two nodes, a run of the micro configuration through it, and the same run without it."""

from collections.abc import Iterator

import pytest
from cluster import Cluster, started
from slurm_tree import SlurmTree, new_slurm_tree
from workflow.tree import Tree


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with started() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def local(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """A finished run of the same configuration on this machine alone."""
    folder = tmp_path_factory.mktemp("local")
    tree = new_slurm_tree(folder / "tree", folder / "store")
    tree.snakemake("--cores", "2")
    return tree


@pytest.fixture(scope="session")
def finished(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> SlurmTree:
    """A finished run on the cluster; `records` are SLURM's of its jobs, which forgets them after a time."""
    folder = tmp_path_factory.mktemp("slurm")
    tree = new_slurm_tree(folder / "tree", folder / "store")
    tree.submit()
    tree.records = [job for job in cluster.jobs() if job["WorkDir"] == str(tree.folder)]
    return tree
