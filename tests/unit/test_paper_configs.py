"""The configs of the paper's experiments: complete, and planned without torch."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared" / "data"


def read(name):
    return yaml.safe_load((REPOSITORY / "config" / name).read_text())


@pytest.mark.parametrize(("name", "pairs", "alphas"), [("paper.yaml", 12, 75), ("combinations.yaml", 4, 28)])
def test_a_dry_run_plans_everything_and_imports_no_torch(tmp_path, name, pairs, alphas):
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise ImportError('torch was imported')")
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--snakefile", str(REPOSITORY / "Snakefile")]
    command += ["--configfile", str(REPOSITORY / "config" / name), "--directory", str(tmp_path)]
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(tmp_path)}, text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout.partition("Job stats:")[2], re.MULTILINE))
    assert (int(jobs["preflight"]), int(jobs["generate"]), int(jobs["score"])) == (pairs, alphas, alphas)
    assert int(jobs["download"]) == len(read(name)["models"])


@pytest.mark.skipif(not DATA.is_dir(), reason="the paper's figures are not beside the repository")
@pytest.mark.parametrize("name", ["paper.yaml", "combinations.yaml"])
def test_models_are_those_of_appendix_b(name):
    with open(DATA / "paper_appendix_b_models.csv", newline="") as file:
        listed = {row["hub_id"] for row in csv.DictReader(file)}
    assert {model["hub"] for model in read(name)["models"].values()} <= listed


@pytest.mark.skipif(not DATA.is_dir(), reason="the paper's figures are not beside the repository")
def test_pairs_and_alphas_are_those_of_appendix_e():
    with open(DATA / "paper_appendix_e_alphas.csv", newline="") as file:
        rows = [
            row for row in csv.DictReader(file) if not row["aligned"].startswith(("DPO", "zephyr-7b-dpo"))
        ]
    pairs = read("paper.yaml")["pairs"]
    assert [*pairs] == [row["aligned"] for row in rows]
    for row in rows:
        pair = pairs[row["aligned"]]
        assert (pair["sft"], pair["aligned"]) == (row["sft"], row["aligned"])
        assert pair["alphas"] == [float(alpha) for alpha in row["alphas"].split()]
