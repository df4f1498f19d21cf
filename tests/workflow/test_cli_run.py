"""`expoflow run` on a pair of one's own in an empty folder, from the checkout and from the wheel."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from expoflow import __version__
from expoflow.miniature.world import prompts
from tree import REPOSITORY
from wheel_environment import build, install

pytestmark = pytest.mark.workflow


@pytest.fixture
def own(finished_once, tmp_path):
    """An empty folder of the user's but for two checkpoints, a reward model and prompts; expoflow in it."""
    for name in ("sft", "dpo", "rm"):
        shutil.copytree(finished_once.folder / "results/models" / name, tmp_path / "own" / name)
    for name in ("dev", "test"):
        asked = [json.dumps({"prompt": prompt.messages[0].content}) for prompt in prompts(name, 7)[:12]]
        (tmp_path / "own" / f"{name}.jsonl").write_text("\n".join(asked))

    def expoflow(*arguments, **environment):
        return subprocess.run(
            [sys.executable, "-m", "expoflow.cli", *arguments],
            cwd=tmp_path / "own",
            env=os.environ | environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=600,
        )

    expoflow.folder = tmp_path / "own"
    return expoflow


PAIR = ["--sft", "sft", "--aligned", "dpo", "--reward-model", "rm", "--prompts", "dev.jsonl", "--alphas", "1"]


@pytest.mark.long
def test_a_pair_from_the_command_line_of_the_wheel(own, tmp_path):
    programs = install(build(REPOSITORY, tmp_path / "dist"), tmp_path / "environment")
    place = os.environ | {"PATH": str(programs)}
    place.pop("PYTHONPATH", None)

    def expoflow(*arguments):
        done = subprocess.run(
            [programs / "expoflow", *arguments], cwd=own.folder, env=place, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    assert expoflow("--version") == (0, f"expoflow {__version__}\n")
    assert "_workflow, Python 3" in expoflow("doctor", "--offline")[1]
    status, said = expoflow("run", *PAIR, "--out", "mine", "--", "--cores", "1")
    assert status == 0, said
    assert (own.folder / "mine/results/report.html").is_file()
    assert len(said.splitlines()) <= 40
    log = (own.folder / "mine/results/logs/snakemake.log").read_text()
    assert str(tmp_path / "environment/lib") in log
    assert expoflow("init", "other")[0] == 0


def test_a_rehearsal_is_told_from_a_run_in_every_result(own):
    asked = [
        "run",
        *PAIR,
        "--test-prompts",
        "test.jsonl",
        "--field",
        "prompt",
        "--out",
        "mine",
        "--limit",
        "4",
    ]
    done = own(*asked, "--", "--cores", "1")
    assert done.returncode == 0, done.stdout
    mark = "A REHEARSAL on the first 4 prompts of every set: no result"
    assert mark in done.stdout
    assert os.listdir(own.folder / "mine") == ["rehearsal"]
    results = own.folder / "mine/rehearsal/results"
    for name in ("dev", "test"):
        assert len((results / f"prompts/{name}.jsonl").read_text().splitlines()) == 4
        assert len((results / f"whole/prompts/{name}.jsonl").read_text().splitlines()) == 12
    certificate = json.loads((results / "pairs/dpo/certificate.json").read_text())
    assert (certificate["rehearsal"], certificate["certified"], certificate["prompts"]) == (4, False, 4)
    assert mark in (results / "report.html").read_text()
    tables = [*results.glob("*.csv"), *results.glob("tables/*.csv")]
    assert len(tables) >= 5
    for table in tables:
        header, *rows = table.read_text().splitlines()
        assert [line.split(",")[-1] for line in (header, *rows)] == ["rehearsal", *["4"] * len(rows)], table
    texts = [
        *results.glob("tables/*.md"),
        *results.glob("tables/*.tex"),
        *results.glob("figures/*.svg"),
        *results.glob("pairs/*/expo/README.md"),
    ]
    for text in (*texts, *results.glob("pairs/*/expo/recipe.json")):
        assert mark in text.read_text(), text
    (best,) = results.glob("pairs/*/best.json")
    refused = own("publish", "mine/rehearsal", "--repo", "org/name", "--dry-run")
    assert refused.returncode == 2
    if json.loads(best.read_text())["alpha"] != "0":
        assert f"{mark}; publish the model of the run itself" in refused.stdout
    assert "Nothing to be done" in own(*asked).stdout
    cleaned = own("clean", "mine", "--yes")
    assert "mine/rehearsal" in cleaned.stdout
    assert not (own.folder / "mine/rehearsal").exists()
