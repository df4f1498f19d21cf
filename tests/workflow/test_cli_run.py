"""`expoflow run` on a pair of one's own in an empty folder, from the checkout and from the wheel."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
from expoflow.miniature.world import prompts
from tree import REPOSITORY

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


def test_a_pair_from_the_command_line(own):
    asked = ["run", *PAIR, "--test-prompts", "test.jsonl"]
    first = own(*asked, "--", "--cores", "2")
    assert first.returncode == 0, first.stdout
    results = own.folder / "dpo-expo/results"
    assert (results / "report.html").is_file()
    assert [path.parent.name for path in results.glob("**/*.safetensors")] == ["expo"]
    assert "expo-aligned" in (results / "benchmarks.csv").read_text()
    for again in (asked, ["run", "--config", "dpo-expo/config.yaml"]):
        second = own(*again)
        assert second.returncode == 0, second.stdout
        assert "Nothing to be done" in second.stdout
    status = own("status", "dpo-expo").stdout
    assert "missing" not in status
    assert "not running" in status
    assert own("clean", "--yes").returncode == 0
    assert "Nothing to be done" in own(*asked).stdout
    failed = own(*asked, "--", "--no-such-option")
    assert failed.returncode == 2, failed.stdout  # snakemake's own


def test_a_pair_without_a_reward_model(own):
    asked = ["run", "--sft", "sft", "--aligned", "dpo", "--prompts", "dev.jsonl", "--alphas", "0.5,1"]
    done = own(*asked, "--", "--cores", "2")
    assert done.returncode == 0, done.stdout
    results = own.folder / "dpo-expo/results"
    best = json.loads((results / "pairs/dpo/best.json").read_text())
    assert "NLL under the aligned model" in best["reason"]
    assert f"dpo: best alpha {best['alpha']}: {best['reason']}" in done.stdout
    assert (results / "report.html").is_file()
    assert [path.parent.name for path in results.glob("**/*.safetensors")] == ["expo"]
    status = own("status", "dpo-expo").stdout
    assert re.search("dpo: likelihood +4 of 4\n", status)
    assert "missing" not in status
    plan = own("plan", "--configfile", "dpo-expo/config.yaml", "--offline")
    assert plan.returncode == 0, plan.stdout
    assert "reward model" not in plan.stdout
    assert "Nothing to be done" in own(*asked).stdout


def test_a_pair_from_the_command_line_of_the_wheel(own, tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, REPOSITORY]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    shutil.unpack_archive(wheel, tmp_path / "installed", "zip")
    installed = {"PYTHONPATH": str(tmp_path / "installed")}
    done = own("run", *PAIR, "--out", "mine", "--", "--cores", "2", **installed)
    assert done.returncode == 0, done.stdout
    assert (own.folder / "mine/results/report.html").is_file()
    log = (own.folder / "mine/results/logs/snakemake.log").read_text()
    assert str(tmp_path / "installed/expoflow/_workflow/profiles/default") in log
    assert len(done.stdout.splitlines()) <= 40
    assert own("init", "other", **installed).returncode == 0
