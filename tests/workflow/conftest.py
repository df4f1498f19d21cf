"""A finished run of the micro configuration, made once; every test works on a copy of its own."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from expoflow.miniature.world import prompts
from expoflow.records import to_jsonl

REPOSITORY = Path(__file__).parents[2]
MICRO = Path(__file__).with_name("micro.yaml")


class Tree:
    """A Snakemake directory with a config of its own, and the workflow that is run in it."""

    def __init__(self, folder: Path, store: Path, workflow: Path = REPOSITORY):
        self.folder, self.store, self.workflow = folder, store, workflow

    def snakemake(self, *arguments: str, check: bool = True) -> str:
        """Run snakemake and return what it prints; with `check` it must succeed."""
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(self.workflow / "Snakefile")]
        command += ["--directory", str(self.folder), "--configfile", str(self.folder / "config.yaml")]
        run = subprocess.run(
            [*command, *arguments],
            cwd=self.folder,
            env=os.environ | {"EXPOFLOW_STORE": str(self.store)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )
        if check:
            assert run.returncode == 0, run.stdout
        else:
            assert run.returncode != 0, run.stdout
        return run.stdout

    def planned(self, *arguments: str) -> dict[str, int]:
        """Number of jobs by rule that a dry run plans, `all` left out."""
        text = self.snakemake("--dry-run", *arguments)
        table = text.partition("Job stats:")[2].partition("Reasons:")[0]
        jobs = {rule: int(count) for rule, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
        return {rule: count for rule, count in jobs.items() if rule not in ("all", "total")}

    def edit(self, change: Callable[[dict], None]) -> None:
        """Change the tree's config."""
        path = self.folder / "config.yaml"
        config = yaml.safe_load(path.read_text())
        change(config)
        path.write_text(yaml.safe_dump(config, sort_keys=False))

    def read(self, name: str) -> bytes:
        return (self.folder / "results" / name).read_bytes()


def new_tree(folder: Path, store: Path) -> Tree:
    folder.mkdir(parents=True)
    shutil.copy(MICRO, folder / "config.yaml")
    asked = [prompt.model_copy(update={"meta": None}) for prompt in prompts("dev", 7)[:24]]
    (folder / "dev.jsonl").write_text(to_jsonl(asked).replace('"messages":', '"prompt":'))
    return Tree(folder, store)


@pytest.fixture(scope="session")
def finished_once(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("finished")
    tree = new_tree(folder / "tree", folder / "store")
    tree.output = tree.snakemake("--cores", "2")
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
