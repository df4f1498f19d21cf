"""A Snakemake directory with the micro configuration, and the workflow that is run in it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import quick_starts
import yaml
from expoflow.files.records import to_jsonl
from expoflow.miniature.world import prompts

REPOSITORY = Path(__file__).parents[2]
MICRO = Path(__file__).with_name("micro.yaml")


class Tree:
    """A Snakemake directory with a config of its own, and the workflow that is run in it."""

    def __init__(self, folder: Path, store: Path, workflow: Path = REPOSITORY):
        self.folder, self.store, self.workflow = folder, store, workflow

    def snakemake(
        self, *arguments: str, check: bool = True, timeout: int = 1800, jobless: bool = False
    ) -> str:
        """Run snakemake and return what it prints; with `check` it must succeed.

        A dry run, and what is refused before any job (`jobless`), starts without imports of its own.
        """
        words = ["--snakefile", str(self.workflow / "Snakefile"), "--directory", str(self.folder)]
        words += ["--configfile", str(self.folder / "config.yaml"), *arguments]
        environment = os.environ | {"EXPOFLOW_STORE": str(self.store)}
        if jobless or {"--dry-run", "-n"} & {*arguments}:
            run = quick_starts.snakemake(words, self.folder, environment, timeout)
        else:
            run = subprocess.run(
                [sys.executable, "-m", "snakemake", *words],
                cwd=self.folder,
                env=environment,
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout,
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

    def jobs(self, log: str | None = None) -> dict[int, str]:
        """The processes that run a rule's script, each with the log that it writes; with `log`, those that write that.

        What a job is about to start is no job of its own: until it has called exec it looks just like the job.
        """
        found, parents = {}, {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError):  # it has ended, is not ours, or writes no log of this tree
                if b".snakemake/scripts/" in (process / "cmdline").read_bytes():
                    pid, writes = int(process.name), (process / "fd/1").readlink().relative_to(self.folder)
                    parents[pid] = int((process / "stat").read_text().rpartition(")")[2].split()[1])
                    found[pid] = str(writes)
        return {
            pid: writes
            for pid, writes in found.items()
            if parents[pid] not in found and (writes == log if log else writes.startswith("results/logs/"))
        }

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
    write_prompts(folder / "dev.jsonl", "dev")
    return Tree(folder, store)


def write_prompts(path: Path, split: str) -> None:
    """24 prompts of the miniature as a user's file."""
    asked = [prompt.model_copy(update={"meta": None}) for prompt in prompts(split, 7)[:24]]
    path.write_text(to_jsonl(asked).replace('"messages":', '"prompt":'))
