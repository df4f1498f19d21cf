"""TRL and the miniature's own loop give the same picture: config/miniature-trl.yaml, run whole."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.trl, pytest.mark.whole]
REPOSITORY = Path(__file__).parents[2]


def test_trl_and_the_loop_give_the_same_picture(tmp_path):
    config = REPOSITORY / "config/miniature-trl.yaml"
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--directory", str(tmp_path), "--configfile", str(config), "--cores", "2"]
    run = subprocess.run(
        [*command, "results/alphas.csv", "results/summary.csv"],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=os.environ | {"EXPOFLOW_STORE": str(tmp_path / "store")},
    )
    assert run.returncode == 0, run.stdout
    alphas, summary = (read(tmp_path / f"results/{name}.csv") for name in ("alphas", "summary"))
    loop, trl = ([row for row in alphas if row["pair"] == pair] for pair in ("loop", "trl"))
    grid = [row["alpha"] for row in loop]
    assert grid == [row["alpha"] for row in trl]
    assert [row["certified"] for row in summary] == ["1", "1"]  # the gain's interval lies above 0
    best = [grid.index(row["best_alpha"]) for row in summary]
    assert abs(best[0] - best[1]) <= 2, summary
    for rows in (loop, trl):  # alignment helps, extrapolation helps more, too much of it does not
        reward = [float(row["reward"]) for row in rows]
        sft, aligned = reward[grid.index("-1")], reward[grid.index("0")]
        assert sft < aligned < max(reward) - 0.1
        assert reward[-1] < max(reward)


def read(path: Path) -> list[dict[str, str]]:
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
