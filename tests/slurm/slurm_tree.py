"""The micro configuration with models that ask for GPUs, and `snakemake --profile slurm` run on it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from cluster import Cluster
from workflow.tree import REPOSITORY, Tree, new_tree

GPUS = {"sft": 1, "dpo": 2, "rm": 1}
TABLES = ("alphas.csv", "rewards.csv", "benchmarks.csv", "summary.csv")
SWEEP = "results/pairs/tiny/alphas.csv"
ALONE = ("--groups", "select=select", "compare=compare", "figure=figure")  # each alpha in jobs of its own
PARTITIONS = [f"{rule}:slurm_partition=gpu" for rule in ("generate", "score", "benchmark_reward")]


class SlurmTree(Tree):
    """A tree whose jobs can be submitted; the alphas of a sweep in one job if `together`, as the profile says."""

    together = False

    def command(self, *arguments: str) -> list[str]:
        """snakemake --profile slurm, as one types it in the repository's folder, but for a test's patience."""
        command = [sys.executable, "-m", "snakemake", "--profile", "slurm", "--directory", str(self.folder)]
        command += ["--configfile", str(self.folder / "config.yaml")]
        command += ["--set-resources", *PARTITIONS, *(() if self.together else ALONE)]
        return [*command, "--slurm-init-seconds-before-status-checks", "8", *arguments]

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

    def resume(self) -> str:
        """Go on with a run whose head was killed, to its end; what it prints, and what Snakemake did."""
        run = subprocess.run(
            [sys.executable, "-m", "expoflow.cli", "resume", str(self.folder)],
            cwd="/",
            env=os.environ | {"EXPOFLOW_STORE": str(self.store)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=1200,
        )
        assert run.returncode == 0, run.stdout
        return run.stdout + (self.folder / "results/logs/snakemake.log").read_text()


def jobs_of(cluster: Cluster, tree: SlurmTree, *states: str) -> list[dict[str, str]]:
    """SLURM's records of the tree's jobs, of those in `states` if any are named."""
    return [
        job
        for job in cluster.jobs()
        if job["WorkDir"] == str(tree.folder) and (not states or job["JobState"] in states)
    ]


def kill_head_at_work(
    cluster: Cluster, tree: SlurmTree, *arguments: str, targets: Sequence[str] = (SWEEP,)
) -> list[dict[str, str]]:
    """Begin the sweep, or a part of it, and kill the head when two of its jobs run and two wait; returns these."""
    head = tree.start(*targets, *arguments)
    while len(jobs_of(cluster, tree, "RUNNING")) < 2 or len(jobs_of(cluster, tree)) < 4:
        assert head.poll() is None, (tree.folder / "snakemake.out").read_text()
        time.sleep(0.2)
    os.kill(head.pid, signal.SIGKILL)
    head.wait()
    left = jobs_of(cluster, tree, "RUNNING", "PENDING")
    assert {job["JobState"] for job in left} == {"RUNNING", "PENDING"}
    return left


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
