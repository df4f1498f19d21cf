"""A SLURM of two nodes, a run of the micro configuration through it, and the same run without it."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, started
from slurm_tree import SWEEP, SlurmTree, jobs_of, new_slurm_tree
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
    tree.records = jobs_of(cluster, tree)
    return tree


@pytest.fixture
def tree(finished: SlurmTree, tmp_path: Path) -> SlurmTree:
    """The finished tree as it was before its sweep, and nothing of it in the store."""
    shutil.copytree(finished.folder, tmp_path / "tree", symlinks=True)
    tree = SlurmTree(tmp_path / "tree", tmp_path / "store")
    pair = tree.folder / "results/pairs/tiny"
    for path in [*pair.glob("alpha=*/dev.*"), tree.folder / SWEEP, pair / "best.json"]:
        path.unlink()
    return tree
