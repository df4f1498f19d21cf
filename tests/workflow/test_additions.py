"""What an addition touches: in a copy of the repository, the files that docs/contributing.md names and no other."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tree import REPOSITORY

pytestmark = [pytest.mark.workflow, pytest.mark.xdist_group("finished")]
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


@pytest.fixture
def copy(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the repository whose library jobs import."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path/expoflow").symlink_to(clone / LIBRARY)  # alone: beside it lies a select.py
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    return clone


def insert(path: Path, before: str, text: str) -> None:
    """Put `text` before the only place where `before` stands."""
    old = path.read_text()
    assert old.count(before) == 1, f"{path}: {before!r}"
    path.write_text(old.replace(before, text + before))


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


def test_a_criterion_is_its_name_and_its_entry(finished, copy):
    library = copy / LIBRARY
    insert(library / "config/stages.py", "]\n# What alpha is chosen by if", ', "brief"')
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
    assert all(float(row["brief_change_low"]) <= float(row["brief_change_high"]) for row in rows)
    assert f"tiny: best alpha {best['alpha']}" in output
    assert finished.planned(wanted) == {}

    def forget_rewards(config):
        del config["reward_model"], config["models"]["rm"], config["select"]["compare"]

    finished.edit(forget_rewards)
    assert finished.planned(wanted, "results/figures/sweep.svg") == {"score": 4, "select": 1, "figure": 1}
    finished.snakemake("--cores", "2", wanted, "results/figures/sweep.svg")
    assert json.loads(finished.read("pairs/tiny/best.json"))["alpha"] == best["alpha"]
    assert b"mean length (tokens)" in finished.read("figures/sweep.svg")


def test_a_kind_of_figure_is_its_entry_and_its_function(finished, copy):
    kinds = copy / LIBRARY / "config/figures.py"
    insert(kinds, "]\n\n\n@dataclass(frozen=True)\nclass Kind:", ', "lengths"')
    insert(kinds, "}\n# Metrics of benchmarks that a reward model gives.", LENGTHS_KIND)
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
