"""The micro configuration with models that ask for GPUs, and `snakemake --profile slurm` run on it."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from workflow.tree import REPOSITORY, Tree, new_tree

GPUS = {"sft": 1, "dpo": 2, "rm": 1}
TABLES = ("alphas.csv", "rewards.csv", "benchmarks.csv", "summary.csv")
PARTITIONS = [f"{rule}:slurm_partition=gpu" for rule in ("generate", "score", "benchmark_reward")]


class SlurmTree(Tree):
    """A tree whose jobs can be submitted."""

    def command(self, *arguments: str) -> list[str]:
        """snakemake --profile slurm, as one types it in the repository's folder, but for a test's patience."""
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--directory", str(self.folder)]
        command += ["--configfile", str(self.folder / "config.yaml")]
        command += ["--set-resources", *PARTITIONS, "--slurm-init-seconds-before-status-checks", "8"]
        return [*command, *arguments]

    def start(self, *arguments: str) -> subprocess.Popen:
        """Begin to run the workflow on the cluster; its output goes to snakemake.out."""
        with open(self.folder / "snakemake.out", "w") as output:
            return subprocess.Popen(
                self.command(*arguments),
                cwd=REPOSITORY,
                env=os.environ | {"EXPOFLOW_STORE": str(self.store)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    def submit(self, *arguments: str, timeout: int = 1200) -> str:
        """Run the workflow on the cluster to its end, and return what it prints."""
        status = self.start(*arguments).wait(timeout)
        output = (self.folder / "snakemake.out").read_text()
        assert status == 0, output
        return output


def new_slurm_tree(folder: Path, store: Path) -> SlurmTree:
    new_tree(folder, store)
    tree = SlurmTree(folder, store)
    ask_for_gpus(tree, GPUS)
    return tree


def ask_for_gpus(tree: Tree, gpus: Mapping[str, int]) -> None:
    """Say in the tree's config how many GPUs jobs that run a model ask for; no result depends on it."""
    tree.edit(
        lambda config: [
            config["models"][name].update(resources={"gpus": each}) for name, each in gpus.items()
        ]
    )
