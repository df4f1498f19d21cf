"""A new benchmark is three files: its config section, its module and its rule, as docs/contributing.md says."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tree import REPOSITORY, Tree

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("finished")]
CONFIG = Path("workflow/scripts/expoflow/config/benchmarks.py")
MODULE = Path("workflow/scripts/expoflow/benchmarks/word_count.py")
RULES = Path("rules/benchmark.smk")

SECTION = '''class WordCountBenchmark(OnPrompts):
    """Words of responses to a prompt set of its own."""

    least: int = Field(1, ge=0)
    """A response of fewer words counts as none."""


'''
FIELD = "    word_count: WordCountBenchmark | None = None\n"
PYTHON = '''"""Words of responses: how many, on prompts that took no part in choosing alpha."""

import numpy as np

from expoflow.benchmarks.metrics import difference, mean
from expoflow.files.records import read_jsonl
from expoflow.results import Generation, Prompt


def run(job):
    """Generate responses and count their words."""
    prompts = read_jsonl(job.inputs["prompts"], Prompt)
    rows = job.generate(prompts, job.config.section(job.pair, "generate"))
    job.write(rows, [mean("words", words(rows, job.settings.least))], job.inputs["prompts"].stem)


def run_comparison(comparison):
    """The paired difference over responses."""
    after, before = (
        words(comparison.rows(variant, Generation), comparison.settings.least) for variant in ("expo", "aligned")
    )
    metric = difference("words", after - before, comparison.select)
    comparison.write([metric], comparison.inputs["prompts"].stem)


def words(rows, least):
    """Words of every response."""
    counts = np.array([len(row.response.split()) for row in rows], float)
    return np.where(counts < least, 0, counts)
'''
RULE = """

use rule benchmark_reward as benchmark_word_count with:
    input:
        unpack(files_of("word_count")),
        model=variant_model,
        base=variant_base,
    output:
        result="results/pairs/{pair}/benchmarks/{variant}/word_count.json",
        rows="results/pairs/{pair}/benchmarks/{variant}/word_count.generations.jsonl",
    log:
        "results/logs/benchmark/{pair}/{variant}.word_count.log",
    benchmark:
        "results/logs/benchmark/{pair}/{variant}.word_count.tsv"
    params:
        usage=usage(of_variant),
        config=settings_of("word_count"),
        generate=section("generate", exclude={"prompts"}),
        code=code.benchmark("word_count"),
        responses=code.responses("word_count"),
    message:
        "{wildcards.pair}: benchmark word count of {wildcards.variant}"
"""


@pytest.fixture
def extended(clone, tmp_path, monkeypatch) -> Path:
    """A copy of the repository with the benchmark, whose library is the one that every process imports."""
    text = (clone / CONFIG).read_text()
    field = "    open_llm: OpenLlmBenchmark | None = None\n"
    assert text.count("class RewardCheck(") == text.count(field) == 1
    text = text.replace("class RewardCheck(", f"{SECTION}class RewardCheck(").replace(field, field + FIELD)
    (clone / CONFIG).write_text(text)
    (clone / MODULE).write_text(PYTHON)
    with open(clone / RULES, "a") as rules:
        rules.write(RULE)
    # the folder of the scripts has a select.py, which must not stand before Python's own
    (tmp_path / "library").mkdir()
    (tmp_path / "library/expoflow").symlink_to(clone / "workflow/scripts/expoflow")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "library"))
    return clone


def changed(clone: Path) -> set[Path]:
    """The files of a copy that the repository has not, or has with other bytes."""
    files = {path.relative_to(clone) for path in clone.rglob("*") if path.is_file()}
    return {
        path
        for path in files
        if "__pycache__" not in path.parts
        and (
            not (REPOSITORY / path).is_file()
            or (REPOSITORY / path).read_bytes() != (clone / path).read_bytes()
        )
    }


def expoflow(tree: Tree, *arguments: str) -> str:
    """What a command of expoflow's prints in the tree."""
    command = [sys.executable, "-m", "expoflow.cli", *arguments]
    return subprocess.run(command, cwd=tree.folder, check=True, capture_output=True, text=True).stdout


def test_three_files_make_a_benchmark(finished, extended):
    tree = Tree(finished.folder, finished.store, extended)
    tree.edit(lambda config: config["benchmarks"].update(word_count={"prompts": "tset"}))
    assert "tiny.benchmarks.word_count.prompts: no prompt set 'tset'; did you mean 'test'?" in tree.snakemake(
        "--dry-run", check=False
    )
    tree.edit(lambda config: config["benchmarks"].update(word_count={"prompts": "test", "least": 2}))
    joint = {"benchmark_table": 1, "report": 1}
    assert tree.planned() == {"benchmark_word_count": 3, "compare": 1} | joint
    # 24 prompts of 4 alphas, and 300 of three variants for either benchmark
    plan = expoflow(tree, "plan", "--offline", "--configfile", "config.yaml")
    assert f"responses: {4 * 24 + 2 * 3 * 300:,}, of" in plan
    tree.snakemake("--cores", "2")
    assert changed(extended) == {CONFIG, MODULE, RULES}
    assert tree.planned() == {}

    folder = tree.folder / "results/pairs/tiny/benchmarks"
    values = {}
    for variant in ("sft", "aligned", "expo"):
        lines = (folder / variant / "word_count.generations.jsonl").read_text().splitlines()
        counts = [len(json.loads(line)["response"].split()) for line in lines]
        counts = [count if count >= 2 else 0 for count in counts]
        values[variant] = sum(counts) / len(counts)
        result = json.loads((folder / variant / "word_count.json").read_text())
        assert (result["benchmark"], result["prompts"], len(lines)) == ("word_count", "test", 300)
        assert result["metrics"][0]["value"] == pytest.approx(values[variant])
    values["expo-aligned"] = values["expo"] - values["aligned"]
    (difference,) = json.loads((folder / "expo-aligned/word_count.json").read_text())["metrics"]
    assert difference["low"] <= difference["value"] <= difference["high"]

    rows = csv.DictReader(tree.read("benchmarks.csv").decode().splitlines())
    found = {row["variant"]: row for row in rows if row["benchmark"] == "word_count"}
    assert {variant: row["metric"] for variant, row in found.items()} == dict.fromkeys(values, "words")
    assert {variant: float(row["value"]) for variant, row in found.items()} == pytest.approx(values, rel=1e-5)
    assert "<td>word_count</td><td>words</td>" in tree.read("report.html").decode()
