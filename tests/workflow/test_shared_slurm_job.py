"""The sweep of a pair in one SLURM job, as its executor runs it on a node: one engine, one reward model, nothing done twice."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from expoflow.system.kept import FOLDER
from fake_gpus import Gpu, fake_gpus

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="hosts need Linux"),
]
ALPHAS = ("-1", "0", "1", "60")
FILES = [
    f"pairs/tiny/alpha={alpha}/dev.{kind}"
    for alpha in ALPHAS
    for kind in ("generations.jsonl", "rewards.csv")
]


@pytest.fixture
def node(tmp_path) -> dict[str, str]:
    """The environment of a SLURM job that was given two GPUs of a node."""
    seen = fake_gpus(tmp_path / "gpus", Gpu(), Gpu())
    srun = tmp_path / "gpus/srun"
    srun.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("fake_srun.py")} "$@"\n')
    srun.chmod(0o755)
    given = {"CUDA_VISIBLE_DEVICES": "0,1", "SLURM_JOB_ID": "77", "SLURM_GPUS": "2"}
    return os.environ | seen | given | {"EXPOFLOW_STORE": str(tmp_path / "another store")}


def begin(tree, node) -> subprocess.Popen:
    """What sbatch is given by Snakemake's executor."""
    targets = [
        f"{rule}:pair=tiny,alpha={alpha},prompts=dev" for rule in ("generate", "score") for alpha in ALPHAS
    ]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(tree.workflow / "Snakefile")]
    command += ["--target-jobs", *targets, "--allowed-rules", "generate", "score", "--local-groupid", "group"]
    command += [
        "--cores",
        "all",
        "--force",
        "--no-hooks",
        "--nolock",
        "--ignore-incomplete",
        "--mode",
        "remote",
    ]
    command += ["--executor", "slurm-jobstep", "--jobs", "1", "--directory", str(tree.folder)]
    command += ["--configfiles", str(tree.folder / "config.yaml")]
    with open(tree.folder / "slurm.out", "a") as output:
        return subprocess.Popen(
            command, cwd=tree.folder, env=node, stdout=output, stderr=output, start_new_session=True
        )


def hosts(tree) -> list[str]:
    """A line for every host that was started, with its slot and the process that it served."""
    logs = sorted((tree.folder / "results/logs/hosts/77").glob("slot-*.log"))
    lines = [line for log in logs for line in log.read_text().splitlines() if " serves process " in line]
    return [line.partition(" of ")[2] for line in lines]


def test_a_sweep_is_one_engine_and_one_reward_model_and_goes_on_where_it_was_killed(
    finished, finished_once, node
):
    finished.edit(
        lambda config: [config["models"][name].update(resources={"gpus": 1}) for name in ("sft", "dpo", "rm")]
    )
    job = begin(finished, node)
    while len([*(finished.folder / FOLDER).glob("*/output")]) < 2 and job.poll() is None:
        time.sleep(0.05)
    os.killpg(job.pid, signal.SIGKILL)
    job.wait()
    kept = [*(finished.folder / FOLDER).glob("*/output")]
    assert 2 <= len(kept) < len(FILES)
    for name in FILES:  # as Snakemake does where a SLURM job fails
        (finished.folder / "results" / name).unlink(missing_ok=True)
    assert hosts(finished) == [f"slot 0 serves process {job.pid}"]
    shutil.rmtree(finished.folder / "results/logs/hosts")

    job = begin(finished, node)
    assert job.wait() == 0, (finished.folder / "slurm.out").read_text()
    assert hosts(finished) == [f"slot {number} serves process {job.pid}" for number in (0, 1)]
    for name in FILES:
        assert finished.read(name) == finished_once.read(name)
    logs = [
        (finished.folder / f"results/logs/{rule}/tiny/alpha={alpha}.dev.log").read_text()
        for rule in ("generate", "score")
        for alpha in ALPHAS
    ]
    assert sum("had finished before its SLURM job was cut off" in log for log in logs) == len(kept)
