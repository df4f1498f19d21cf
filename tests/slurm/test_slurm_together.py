"""The sweep of a pair in one SLURM job: what it asked for, how often it loaded a model, and that it goes on after its end."""

import subprocess
import time

import pytest
from expoflow.system.kept import FOLDER
from fake_gpus import Gpu, fake_gpus
from slurm_tree import SWEEP, SlurmTree, jobs_of

pytestmark = [pytest.mark.slurm, pytest.mark.workflow]
ALPHAS = ("-1", "0", "1", "60")


@pytest.fixture
def sweep(tree: SlurmTree, tmp_path, monkeypatch) -> SlurmTree:
    """A tree before its sweep, whose jobs see as many GPUs as SLURM gives them."""
    for name, value in fake_gpus(tmp_path / "gpus", *[Gpu()] * 4).items():
        monkeypatch.setenv(name, value)
    tree.together = True
    return tree


def hosts(tree: SlurmTree, job: dict[str, str]) -> list[str]:
    """The slots for which a host was started in a SLURM job, in turn."""
    logs = (tree.folder / f"results/logs/hosts/{job['JobId']}").glob("slot-*.log")
    lines = sorted(
        line for log in logs for line in log.read_text().splitlines() if " serves process " in line
    )
    return [line.partition(" of ")[2].partition(" serves")[0] for line in lines]


def test_a_sweep_is_one_job_with_one_engine_and_one_reward_model(cluster, finished, sweep):
    sweep.submit(SWEEP)
    together, select = jobs_of(cluster, sweep)
    assert together["Comment"] == "rule_sweep-tiny_generate_score"
    assert select["Comment"].startswith("rule_select")
    asked = [together[name] for name in ("TresPerJob", "NumNodes", "NumCPUs", "MinMemoryNode", "Partition")]
    assert asked == ["gres:gpu:2", "1", "8", "8001M", "gpu"]
    assert together["TimeLimit"] == "04:08:00"  # eight jobs of 31 minutes
    assert len(hosts(sweep, together)) == 2  # an engine, and a reward model
    for alpha in ALPHAS:
        for kind in ("generations.jsonl", "rewards.csv"):
            name = f"pairs/tiny/alpha={alpha}/dev.{kind}"
            assert sweep.read(name) == finished.read(name)
    assert not (sweep.folder / FOLDER).exists()


def test_what_a_cancelled_job_had_finished_is_kept(cluster, finished, sweep):
    made = [f"pairs/tiny/alpha={alpha}/dev.rewards.csv" for alpha in ("0", "1")]
    head = sweep.start(*(f"results/{name}" for name in made))
    while not [*(sweep.folder / FOLDER).glob("*")]:
        assert head.poll() is None, (sweep.folder / "snakemake.out").read_text()
        time.sleep(0.1)
    (job,) = jobs_of(cluster, sweep)
    subprocess.run(["scancel", job["JobId"]], check=True)
    assert head.wait(timeout=600) == 0, (sweep.folder / "snakemake.out").read_text()
    first, second = jobs_of(cluster, sweep)
    assert [first["JobState"], second["JobState"]] == ["CANCELLED", "COMPLETED"]
    assert len(hosts(sweep, first)) == 1
    assert len(hosts(sweep, second)) <= 2
    logs = [sweep.folder / f"results/logs/generate/tiny/alpha={alpha}.dev.log" for alpha in ("0", "1")]
    assert any("had finished before its SLURM job was cut off" in log.read_text() for log in logs)
    for name in made:
        assert sweep.read(name) == finished.read(name)
