"""The section theory in the micro configuration, from nothing to its figures, beside the finished run's own."""

import csv
import json

import pytest
from expoflow.files.records import read_json
from expoflow.theory.result import Theory

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]
MEASURED = ("theory", "cosines", "plane")


def rows(tree, name):
    return list(csv.DictReader(tree.read(name).decode().splitlines()))


def measure(config):
    models = config["models"]
    models["half"] = {"train": {**models["dpo"]["train"], "until": 0.5}}
    config["pairs"]["half"] = {"sft": "sft", "aligned": "half", "alphas": [1, 60]}
    config["benchmarks"] = {}
    config["theory"] = {
        "examples": 30,
        "limit": 8,
        "samples": 2,
        "max_tokens": 12,
        "planes": {"around": {"pairs": ["tiny", "half"], "points": 2, "reach": 0.1}},
    }


def test_theory_is_measured_where_a_config_asks_for_it(finished):
    assert not {*MEASURED} & {*finished.planned("--forceall")}
    finished.edit(measure)
    planned = finished.planned()
    assert {rule: planned[rule] for rule in MEASURED} == {"theory": 2, "cosines": 1, "plane": 1}
    assert planned["generate"] == planned["score"] == 4  # those of the new pair alone
    finished.snakemake("--cores", "1")
    assert finished.planned() == {}

    theory = read_json(finished.folder / "results/pairs/tiny/theory.json", Theory)
    recipe = json.loads(finished.read("pairs/tiny/alpha=60/model/recipe.json"))
    overall = theory.smallness.overall
    assert overall.elements == recipe["elements"]
    assert overall.ratio == pytest.approx(recipe["delta_norm_ratio"], rel=0.05)
    assert theory.smallness.alphas["60"] == pytest.approx(recipe["alpha_delta_norm_ratio"], rel=0.05)
    assert set(theory.smallness.kinds) == set(recipe["kinds"])
    margin, reward = theory.first_order["margin"], theory.first_order["reward"]
    assert margin.slope == pytest.approx(margin.difference, rel=0.05)
    assert (margin.n, margin.samples, reward.n, reward.samples) == (30, 1, 8, 2)
    assert [point.alpha for point in reward.curve] == pytest.approx([6, 12, 24, 48, 60])

    halves = {row["kind"]: row for row in rows(finished, "cosines.csv")}
    assert 0.5 < float(halves["all"]["cosine"]) < 1  # half the way to where the other one goes
    assert float(halves["all"]["norm_a"]) == pytest.approx(overall.delta, rel=1e-4)
    assert float(halves["all"]["norm_b"]) < float(halves["all"]["norm_a"])

    around = rows(finished, "planes/around.csv")
    assert [(row["a"], row["b"]) for row in around[:3]] == [("0", "0"), ("1", "0"), ("0", "1")]
    assert (len(around), {row["n"] for row in around}) == (3 + 4, {"8"})
    scored = [row for row in rows(finished, "rewards.csv") if (row["pair"], row["alpha"]) == ("tiny", "0")]
    mean = sum(float(row["reward"]) for row in scored[:8]) / 8
    assert float(around[1]["reward"]) == pytest.approx(mean, abs=1e-4)  # theta1: the sweep's alpha 0
    page = finished.read("report.html").decode()
    for figure in ("first_order", "cosines", "around"):
        assert f'href="figures/{figure}.svg"' in page
        assert finished.read(f"figures/{figure}.png").startswith(b"\x89PNG")

    finished.edit(lambda config: config["theory"]["planes"]["around"].update(points=3))
    assert finished.planned() == {"plane": 1, "figure": 1, "report": 1}
