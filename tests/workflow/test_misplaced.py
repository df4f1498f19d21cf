"""Results put in another's place, or emptied, by hand: the job that reads them names the file; nothing is made of them."""

import shutil

import pytest

pytestmark = pytest.mark.workflow
PAIR = "results/pairs/tiny"


@pytest.mark.parametrize(
    ("source", "place", "until", "problem"),
    [
        ("alpha=60/dev.rewards.csv", "alpha=1/dev.rewards.csv", "select", "is of alpha 60, not 1"),
        ("alpha=60/model/recipe.json", "alpha=1/model/recipe.json", "select", "is of alpha 60.0, not 1.0"),
        (
            "benchmarks/aligned/reward.json",
            "benchmarks/expo/reward.json",
            "benchmark_table",
            "is of variant aligned, not expo",
        ),
        (None, "alpha=1/dev.generations.jsonl", "score", "has no response"),
    ],
)
def test_a_result_in_anothers_place(finished, source, place, until, problem):
    path = finished.folder / PAIR / place
    shutil.copy(finished.folder / PAIR / source if source else "/dev/null", path)
    said = finished.snakemake("--cores", "2", "--until", until, check=False)
    assert f"{PAIR}/{place}: {problem}; delete it and run snakemake again" in said
    assert "Traceback" not in said


def test_a_choice_that_was_edited(finished):
    path = finished.folder / PAIR / "best.json"
    path.write_text(path.read_text().replace('"alpha": "', '"alpha": "7'))
    said = finished.snakemake("--cores", "2", "--until", "tables", check=False)
    assert "was not tried, says results/pairs/tiny/alphas.csv; delete both and run snakemake again" in said


def test_a_pair_of_one_model(finished):
    folder = str(finished.folder / "results/models/sft")
    finished.edit(lambda config: config["models"].update(dpo={"path": folder}))
    said = finished.snakemake("--cores", "2", "--until", "extrapolate", check=False)
    assert (
        f"the models sft (results/models/sft) and dpo ({folder}) have the same weights: there is nothing to"
        in said
    )
