"""Figures and tables that a config names, in the finished run: what is made again, and what is then there."""

import csv
import json

import pytest

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]


def rows(tree, name):
    return list(csv.DictReader(tree.read(name).decode().splitlines()))


def name_a_figure(config):
    config["pairs"]["tiny"]["paper"] = "DPO (20% data)"
    config["figures"] = {
        "figure6": {"kind": "curves", "pairs": ["tiny"], "caption": "What I found."},
        "sweep": {"kind": "sweep"},
    }


def test_figures_and_the_papers_numbers_cost_their_own_jobs_alone(finished):
    finished.edit(name_a_figure)
    assert finished.planned() == {"figure": 2, "appendices": 1, "report": 1}
    finished.snakemake("--cores", "1")
    assert finished.planned() == {}
    page = finished.read("report.html").decode()
    assert "What I found. Hollow marks are the paper&#39;s." in page
    assert 'href="figures/figure6.svg"' in page
    assert 'href="figures/path.svg"' not in page
    assert 'href="tables/appendix_e.csv"' in page
    here = {(row["variant"], row["quantity"]): row for row in rows(finished, "tables/reproduction.csv")}
    best = json.loads(finished.read("pairs/tiny/best.json"))
    assert here["expo", "alpha"]["paper"] == "2.5"
    assert float(here["expo", "alpha"]["here"]) == float(best["alpha"])
    assert float(here["expo", "reward"]["here"]) == pytest.approx(best["reward"], abs=1e-4)
    assert here["expo", "reward"]["difference"] == ""  # another reward model's than the paper's
    assert r"expo & reward & 6.08 &" in finished.read("tables/reproduction.tex").decode()
    finished.edit(lambda config: config["figures"]["figure6"].update(labels={"tiny": "20% data"}))
    assert finished.planned() == {"figure": 1, "report": 1}  # which has it in it


def test_a_model_trained_further_on_the_dev_set_stands_in_appendix_f(finished):
    def add(config):
        train = config["models"]["dpo"]["train"]
        config["models"]["dev"] = {"train": {**train, "from": "dpo", "fraction": 0.25}}
        config["pairs"]["tiny-dev"] = {"sft": "sft", "aligned": "dev", "alphas": [0]}
        config["pairs"]["tiny"]["trained_on_dev"] = "tiny-dev"

    finished.edit(add)
    finished.snakemake("--cores", "1", "results/tables/appendix_f.csv", "results/tables/appendix_e.md")
    (row,) = rows(finished, "tables/appendix_f.csv")
    reward = {pair: rows(finished, f"pairs/{pair}/alphas.csv") for pair in ("tiny", "tiny-dev")}
    (chosen,) = (line for line in reward["tiny"] if line["chosen"] == "1")
    assert [line["alpha"] for line in reward["tiny-dev"]] == ["-1", "0"]
    assert row == {
        "pair": "tiny",
        "model": "dpo",
        "reward": reward["tiny"][1]["reward"],
        "reward_trained_on_dev": reward["tiny-dev"][1]["reward"],
        "reward_expo": chosen["reward"],
        "gain_low": chosen["gain_low"],
        "gain_high": chosen["gain_high"],
    }
    assert "| dpo | sft | [1, 60] |" in finished.read("tables/appendix_e.md").decode()


def test_a_pair_without_an_alpha_above_0_has_no_search_range(finished):
    finished.edit(lambda config: config["pairs"]["tiny"].update(alphas=[0]))
    assert "appendices" not in finished.planned()
