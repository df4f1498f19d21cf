"""What an addition touches: in a copy of the repository, the files that docs/contributing.md names and no other."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tree import REPOSITORY, Tree

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]
LIBRARY = "workflow/scripts/expoflow"
BRIEF = """\
        Criterion(
            name="brief",
            words="mean length",
            short="mean length",
            label="mean length (tokens)",
            shown="Mean length (tokens)",
            value=lambda table: table["response_tokens"],
            maximum=False,
            change="change",
        ),
"""
SCHEMA = "config/schema.json"
LENGTHS_KIND = """\
    "lengths": Kind(module="lengths", caption="The length of the responses against alpha.", keys=("variants",)),
"""
LENGTHS = '''\
"""Length alone."""

import matplotlib.pyplot as plt
import pandas as pd


def lengths(plan):
    """The length of the responses against alpha."""
    figure, axis = plt.subplots()
    for pair, file in zip(plan.pairs, plan.inputs, strict=True):
        table = pd.read_csv(file)
        axis.plot(table["alpha"], table["length"], label=plan.label(pair))
    axis.set_ylabel("how long " + " and ".join(plan.config.variants) + " are")
    return figure
'''

WORD_COUNT_SECTION = '''class WordCountBenchmark(OnPrompts):
    """Words of responses to a prompt set of its own."""

    least: int = Field(1, ge=0)
    """A response of fewer words counts as none."""


'''
WORD_COUNT_FIELD = "    word_count: WordCountBenchmark | None = None\n"
WORD_COUNT = '''"""Words of responses: how many, on prompts that took no part in choosing alpha."""

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
WORD_COUNT_RULE = """

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
def copy(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository whose library jobs import."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path/expoflow").symlink_to(clone / LIBRARY)  # alone: beside it lies a select.py
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    return clone


def insert(path: Path, before: str, text: str, after: str = "") -> None:
    """Put `text` before the only `before`, or before the first one that follows the only `after`."""
    old = path.read_text()
    assert old.count(after or before) == 1, f"{path}: {after or before!r}"
    place = old.index(before, old.index(after) if after else 0)
    path.write_text(old[:place] + text + old[place:])


def write_schema(copy: Path) -> None:
    """What `make schema` does."""
    command = [sys.executable, "-m", "expoflow.config"]
    run = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ})
    (copy / SCHEMA).write_text(run.stdout)


def changed(copy: Path) -> set[str]:
    """The files of a copy that are not the repository's."""
    files = [path for path in copy.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    names = [path.relative_to(copy).as_posix() for path in files]
    return {
        name
        for name in names
        if not (REPOSITORY / name).is_file() or (copy / name).read_bytes() != (REPOSITORY / name).read_bytes()
    }


def expoflow(tree: Tree, *arguments: str) -> str:
    """What a command of expoflow's prints in the tree."""
    command = [sys.executable, "-m", "expoflow.cli", *arguments]
    return subprocess.run(command, cwd=tree.folder, check=True, capture_output=True, text=True).stdout


def test_a_criterion_is_its_name_and_its_entry(finished, copy):
    library = copy / LIBRARY
    insert(library / "config/stages.py", "]\n", ', "brief"', after="Criterion = Literal[")
    insert(library / "selection/criteria.py", "    )\n}\n\n\ndef scored_under", BRIEF)
    write_schema(copy)
    assert changed(copy) == {
        SCHEMA,
        f"{LIBRARY}/config/stages.py",
        f"{LIBRARY}/selection/criteria.py",
    }
    by_reward = json.loads(finished.read("pairs/tiny/best.json"))["alpha"]
    finished.workflow = copy
    finished.edit(lambda config: config["select"].update(by="brief", compare=["reward"]))
    wanted = "results/pairs/tiny/best.json"
    assert finished.planned(wanted) == {"select": 1}
    output = finished.snakemake("--cores", "1", wanted)

    rows = list(csv.DictReader(finished.read("pairs/tiny/alphas.csv").decode().splitlines()))
    lengths = {row["alpha"]: float(row["brief"]) for row in rows}
    assert lengths == {row["alpha"]: float(row["length"]) for row in rows}
    best = json.loads(finished.read("pairs/tiny/best.json"))
    shortest = [alpha for alpha in lengths if float(alpha) >= 0 and lengths[alpha] <= lengths["0"]]
    assert best["alpha"] == max(shortest, key=float)
    assert best["others"] == {"reward": by_reward}
    assert "mean length" in best["reason"]
    for row in rows:
        low, high = (row[f"brief_change_{end}"] for end in ("low", "high"))
        alone = [float(row[f"brief_change_pointwise_{end}"]) for end in ("low", "high")]
        assert alone[0] <= alone[1]
        # below alpha 0 nothing is chosen
        assert (
            low == high == "" if row["alpha"] == "-1" else float(low) <= alone[0] <= alone[1] <= float(high)
        )
    assert f"tiny: best alpha {best['alpha']}" in output
    assert finished.planned(wanted) == {}

    def forget_rewards(config):
        del config["reward_model"], config["models"]["rm"], config["select"]["compare"]

    finished.edit(forget_rewards)
    jobs = {"score": 4, "select": 1, "certify": 1, "figure": 1}  # the figure quotes the certificate
    assert finished.planned(wanted, "results/figures/sweep.svg") == jobs
    finished.snakemake("--cores", "1", wanted, "results/figures/sweep.svg")
    assert json.loads(finished.read("pairs/tiny/best.json"))["alpha"] == best["alpha"]
    assert b"mean length (tokens)" in finished.read("figures/sweep.svg")


def test_a_kind_of_figure_is_its_entry_and_its_function(finished, copy):
    kinds = copy / LIBRARY / "config/figures.py"
    insert(kinds, "]\n", ', "lengths"', after="FigureKind = Literal[")
    insert(kinds, "}\n", LENGTHS_KIND, after="\nKINDS")
    (copy / LIBRARY / "reporting/figures/lengths.py").write_text(LENGTHS)
    write_schema(copy)
    assert changed(copy) == {
        SCHEMA,
        f"{LIBRARY}/config/figures.py",
        f"{LIBRARY}/reporting/figures/lengths.py",
    }
    finished.workflow = copy
    mine = {"kind": "lengths", "variants": ["expo"]}
    finished.edit(lambda config: config.update(figures={"mine": mine}))
    wanted = ["results/figures/mine.svg", "results/figures/mine.png"]
    assert finished.planned(*wanted) == {"figure": 1}
    finished.snakemake("--cores", "1", *wanted)
    assert b"how long expo are" in finished.read("figures/mine.svg")
    assert finished.read("figures/mine.png").startswith(b"\x89PNG")
    assert finished.planned(*wanted) == {}

    path = copy / LIBRARY / "reporting/figures/lengths.py"
    path.write_text(path.read_text().replace("how long", "so long"))
    assert finished.planned(*wanted) == {"figure": 1}


def test_a_benchmark_is_its_section_its_module_and_its_rule(finished, copy):
    section, module, rules = (
        f"{LIBRARY}/config/benchmarks.py",
        f"{LIBRARY}/benchmarks/word_count.py",
        "rules/benchmark.smk",
    )
    insert(copy / section, "class RewardCheck(", WORD_COUNT_SECTION)
    insert(copy / section, "    open_llm: OpenLlmBenchmark | None = None\n", WORD_COUNT_FIELD)
    (copy / module).write_text(WORD_COUNT)
    (copy / rules).write_text((copy / rules).read_text() + WORD_COUNT_RULE)
    write_schema(copy)
    assert changed(copy) == {SCHEMA, section, module, rules}
    tree = Tree(finished.folder, finished.store, copy)
    tree.edit(lambda config: config["benchmarks"].update(word_count={"prompts": "tset"}))
    assert "tiny.benchmarks.word_count.prompts: no prompt set 'tset'; did you mean 'test'?" in tree.snakemake(
        "--dry-run", check=False
    )
    tree.edit(lambda config: config["benchmarks"].update(word_count={"prompts": "test", "least": 2}))
    joint = {"benchmark_table": 1, "report": 1}
    assert tree.planned() == {"benchmark_word_count": 3, "compare": 1} | joint
    # 24 prompts of 4 alphas, and 300 of three variants for either benchmark
    plan = expoflow(tree, "plan", "--offline", "--configfile", "config.yaml")
    assert f"responses: {4 * 24 + 2 * 3 * 300:,}, with" in plan
    tree.snakemake("--cores", "1")
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
    assert '<td class="text">word_count</td><td class="text">words</td>' in tree.read("report.html").decode()
