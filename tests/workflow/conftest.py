"""A finished run of the micro configuration, made once; every test works on a copy of its own."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from tree import REPOSITORY, Tree, new_tree


@pytest.fixture(scope="session")
def finished_once(made_once: Callable[[str, Callable[[Path], None]], Path]) -> Tree:
    """Read by tests in every process of pytest-xdist; what they change is a copy."""

    def make(folder: Path) -> None:
        output = new_tree(folder / "tree", folder / "store").snakemake("--cores", "2")
        (folder / "output").write_text(output)

    folder = made_once("finished", make)
    tree = Tree(folder / "tree", folder / "store")
    tree.output = (folder / "output").read_text()
    return tree


@pytest.fixture
def finished(finished_once: Tree, tmp_path: Path) -> Tree:
    """A copy of the finished tree, time stamps and Snakemake's records included."""
    shutil.copytree(finished_once.folder, tmp_path / "tree", symlinks=True)
    shutil.copytree(finished_once.store, tmp_path / "kept")
    return Tree(tmp_path / "tree", tmp_path / "kept")


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the repository's files with time stamps of now, as `git clone` gives."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        target = tmp_path / "clone" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(REPOSITORY / name, target)
    return tmp_path / "clone"
