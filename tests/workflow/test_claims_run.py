"""The paper's claims at their smallest, from nothing to the page: one seed, few points."""

import csv
import json
import re
import shutil

import pytest
from expoflow.claims.statement import STATEMENTS
from expoflow.cli import main
from tree import REPOSITORY, Tree

pytestmark = [pytest.mark.workflow, pytest.mark.long, pytest.mark.whole]


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Tree:
    folder = tmp_path_factory.mktemp("claims")
    (folder / "seed=7").mkdir()
    shutil.copy(REPOSITORY / "tests" / "workflow" / "claims.yaml", folder / "seed=7" / "config.yaml")
    tree = Tree(folder / "seed=7", folder / "store")
    tree.snakemake("--cores", "2")
    return tree


def rows(tree: Tree, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(tree.read(name).decode().splitlines()))


def test_claims_are_measured_on_what_the_run_made(tree):
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows(tree, "claims.csv"):
        found.setdefault(row["statement"], []).append(row)
    alphas = {(row["pair"], row["alpha"]): row for row in rows(tree, "alphas.csv")}
    risen = {row["subject"]: row for row in found["alignment_rises"]}
    assert set(risen) == {"half", "full"}
    for pair, row in risen.items():
        rise = float(alphas[pair, "0"]["reward"]) - float(alphas[pair, "-1"]["reward"])
        assert float(row["value"]) == pytest.approx(rise, abs=1e-4)
        assert float(row["low"]) < rise < float(row["high"])
    theory = json.loads(tree.read("pairs/full/theory.json"))["first_order"]
    slopes = {(row["quantity"], row["subject"]): row for row in found["slope_is_positive"]}
    for objective, name in (("reward", "expected reward"), ("margin", "preference margin")):
        assert float(slopes[f"slope of the {name}", "full"]["value"]) == pytest.approx(
            theory[objective]["slope"], rel=1e-4
        )
    assert {"plane_top_is_nearer", "separate_gain_nothing", "tasks_keep", "nll_beats_none"} <= set(found)
    assert not {"harder_is_better", "beta_leaves_room", "dev_training_stays_below"} & set(found)


def test_regrets_are_those_of_the_alphas_that_were_compared(tree):
    found = {(row["pair"], row["by"]): row for row in rows(tree, "regrets.csv")}
    assert set(found) == {
        (pair, by) for pair in ("half", "full", "separate") for by in ("none", "reward", "nll")
    }
    for pair in ("half", "full", "separate"):
        best = json.loads(tree.read(f"pairs/{pair}/best.json"))
        assert found[pair, "reward"]["alpha"] == best["alpha"]
        assert found[pair, "nll"]["alpha"] == best["others"]["nll"]
        assert float(found[pair, "none"]["regret"]) >= 0


def test_the_page_shows_the_run(tree, tmp_path):
    out = tmp_path / "claims.md"
    assert main(["claims", str(tree.folder), "--out", str(out)]) == 0
    text = out.read_text().replace("\\|", "|")
    details = (tmp_path / "claims" / "details.md").read_text().replace("\\|", "|")
    measured = {row["statement"] for row in rows(tree, "claims.csv")}
    for name in measured:
        assert STATEMENTS[name].phrase in text
        assert STATEMENTS[name].how in " ".join(details.split())
    pictures = re.findall(r"!\[\w+\]\((.*\.png)\)", text)
    assert {"claims/data.png", "claims/regrets.png", "claims/path.png", "claims/plane.png"} <= set(pictures)
    assert all((tmp_path / picture).is_file() for picture in pictures)


def test_nothing_runs_again_and_a_claim_less_measures_alone(tree):
    assert tree.planned() == {}
    tree.edit(lambda config: config["claims"].pop("capability"))
    assert tree.planned() == {"claims": 1}
