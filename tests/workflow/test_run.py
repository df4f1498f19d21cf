"""The micro configuration from nothing to its report: what a user finds in results/."""

import csv
import json
import math
import re
import shutil
import zipfile

import pytest
import torch
from expoflow.config.figures import KINDS
from expoflow.miniature.world import prompts
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from tree import REPOSITORY, Tree

pytestmark = pytest.mark.workflow
ALPHAS = ["-1", "0", "1", "60"]


def rows(tree, name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(tree.read(name).decode().splitlines()))


def test_alphas_csv_says_why_an_alpha_was_chosen(finished_once):
    table = rows(finished_once, "alphas.csv")
    assert [row["alpha"] for row in table] == ALPHAS
    chosen = [row for row in table if row["chosen"] == "1"]
    best = json.loads(finished_once.read("pairs/tiny/best.json"))
    assert [row["alpha"] for row in chosen] == [best["alpha"]]
    allowed = [row for row in table if float(row["alpha"]) >= 0]
    assert float(chosen[0]["reward"]) == max(float(row["reward"]) for row in allowed)
    assert sum(float(row["chosen_share"]) for row in allowed) == pytest.approx(1)
    assert [float(row["effective_alpha"]) for row in table] == pytest.approx([-1, 0, 1, 60], rel=1e-3)


def test_means_and_gains_follow_from_rewards_csv(finished_once):
    rewards = rows(finished_once, "rewards.csv")
    by_alpha = {alpha: [float(row["reward"]) for row in rewards if row["alpha"] == alpha] for alpha in ALPHAS}
    assert all(len(values) == 24 for values in by_alpha.values())
    for row in rows(finished_once, "alphas.csv"):
        values = by_alpha[row["alpha"]]
        gains = [value - aligned for value, aligned in zip(values, by_alpha["0"], strict=True)]
        assert float(row["reward"]) == pytest.approx(math.fsum(values) / 24, abs=1e-5)
        assert float(row["gain"]) == pytest.approx(math.fsum(gains) / 24, abs=1e-5)
        alone = [float(row[f"gain_pointwise_{end}"]) for end in ("low", "high")]
        assert alone[0] <= float(row["gain"]) <= alone[1]
        if row["alpha"] == "-1":  # among which nothing is chosen
            assert row["gain_low"] == row["gain_high"] == ""
        else:
            assert float(row["gain_low"]) <= alone[0] <= alone[1] <= float(row["gain_high"])


def test_the_exported_model_is_theta2_and_loads_with_plain_transformers(finished_once):
    results = finished_once.folder / "results"
    best = float(json.loads(finished_once.read("pairs/tiny/best.json"))["alpha"])
    folder = results / "pairs/tiny/expo"
    theta0, theta1 = (load_file(results / f"models/{name}/model.safetensors") for name in ("sft", "dpo"))
    theta2 = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    for name, tensor in theta1.items():
        expected = tensor.double() + best * (tensor.double() - theta0[name].double())
        torch.testing.assert_close(theta2[name], expected.float(), rtol=0, atol=2e-6)
    assert AutoTokenizer.from_pretrained(folder).chat_template
    assert "`results/pairs/tiny/certificate.json` of the run" in (folder / "README.md").read_text()
    recipe = json.loads((folder / "recipe.json").read_text())
    assert recipe["alpha"] == best
    manifest = json.loads(finished_once.read("models/dpo.json"))
    assert (
        recipe["aligned"]["weights"]["model.safetensors"] == manifest["files"]["model.safetensors"]["sha256"]
    )


def test_references_write_no_weights(finished_once):
    pair = finished_once.folder / "results/pairs/tiny"
    stored = {
        alpha: sorted(path.name for path in (pair / f"alpha={alpha}/model").glob("*.safetensors"))
        for alpha in ALPHAS
    }
    assert stored == {"-1": [], "0": [], "1": ["model.safetensors"], "60": ["model.safetensors"]}


def test_benchmarks_compare_all_variants_on_the_test_prompts(finished_once):
    table = rows(finished_once, "benchmarks.csv")
    assert {row["variant"] for row in table} == {"sft", "aligned", "expo", "expo-aligned"}
    value = {(row["variant"], row["metric"]): float(row["value"]) for row in table}
    for metric in ("reward", "quality", "accuracy", "accuracy_fact", "length"):
        difference = value["expo", metric] - value["aligned", metric]
        assert value["expo-aligned", metric] == pytest.approx(difference, abs=1e-4)
    assert 0 <= value["expo-aligned", "win_rate"] <= 1
    assert {row["n"] for row in table if row["metric"] == "reward"} == {"300"}


def test_figures_and_page_are_there(finished_once):
    figures = finished_once.folder / "results/figures"
    for name in ("sweep", "path", "histograms"):
        assert (figures / f"{name}.png").stat().st_size > 10_000
        assert "<svg" in (figures / f"{name}.svg").read_text()
    page = finished_once.read("report.html").decode()
    assert "tiny" in page
    assert all(f'href="figures/{name}.png"' in page for name in ("sweep", "path", "histograms"))
    assert page.count('<img src="data:image/') == 3


def test_snakemakes_own_report_carries_figures_with_captions(finished, tmp_path):
    finished.snakemake("--report", str(tmp_path / "report.zip"))
    with zipfile.ZipFile(tmp_path / "report.zip") as archive:
        names = archive.namelist()
        text = "".join(archive.read(name).decode() for name in names if name.endswith((".js", ".html")))
    for figure in ("sweep", "path", "histograms"):
        caption = KINDS[figure].caption
        assert any(name.endswith(f"{figure}.png") for name in names)
        assert caption.partition(".")[0].partition(",")[0] in text


def test_the_run_ends_with_what_it_found(finished_once):
    best = json.loads(finished_once.read("pairs/tiny/best.json"))
    last = finished_once.output[-3000:]
    assert f"tiny: best alpha {best['alpha']}, gain " in last
    assert "\n  responses: " in last
    assert "report: results/report.html" in last
    assert "model: results/pairs/tiny/expo/" in last
    assert "\ntook: " in last


def test_a_run_that_makes_a_part_says_nothing_of_the_whole(finished):
    (finished.folder / "results/pairs/tiny/best.json").unlink()
    said = finished.snakemake("--cores", "1", "--force", "results/pairs/tiny/alpha=1/dev.rewards.csv")
    assert "100%" in said
    assert "best alpha" not in said
    assert "report.html" not in said


def test_streamed_weights_give_the_same_responses_and_write_nothing(finished, finished_once):
    finished.edit(lambda config: config.update(extrapolate={"weights": "streamed"}))
    finished.snakemake("--cores", "1", "results/alphas.csv")
    pair = finished.folder / "results/pairs/tiny"
    assert list(pair.glob("alpha=*/model/*.safetensors")) == []
    for alpha in ("1", "60"):
        name = f"pairs/tiny/alpha={alpha}/dev.generations.jsonl"
        assert finished.read(name) == finished_once.read(name)
    assert finished.read("alphas.csv") == finished_once.read("alphas.csv")


def test_a_failing_job_shows_its_log_on_the_terminal(finished):
    rewards = finished.folder / "results/pairs/tiny/alpha=1/dev.rewards.csv"
    text = rewards.read_text()
    rewards.write_text(text[: len(text) // 2])
    output = finished.snakemake("--cores", "1", "--forcerun", "select", check=False)
    # whichever of the jobs that read the file comes first: select or answers
    words = r"alpha=1/dev\.rewards\.csv: not a complete (rewards )?table; delete it and run snakemake again"
    assert re.search(words, output)


def test_a_pair_of_one_model(finished):
    folder = str(finished.folder / "results/models/sft")
    finished.edit(lambda config: config["models"].update(dpo={"path": folder}))
    said = finished.snakemake("--cores", "1", "--until", "extrapolate", check=False)
    assert (
        f"the models sft (results/models/sft) and dpo ({folder}) have the same weights: there is nothing to"
        in said
    )


@pytest.mark.long
def test_a_pair_of_ones_own_by_the_starter_config(finished_once, tmp_path):
    """config/example.yaml as the README says, with its paths filled and a smaller grid and length."""
    models = finished_once.folder / "results/models"
    for name, target in (("sft", "sft"), ("dpo", "dpo"), ("rm", "reward-model")):
        shutil.copytree(models / name, tmp_path / "own/checkpoints" / target)
    (tmp_path / "own/prompts").mkdir()
    for name, split in (("dev", "dev"), ("test", "test")):
        asked = [json.dumps({"prompt": prompt.messages[0].content}) for prompt in prompts(split, 7)[:12]]
        (tmp_path / f"own/prompts/{name}.jsonl").write_text("\n".join(asked))
    tree = Tree(tmp_path / "own", tmp_path / "store")
    shutil.copy(REPOSITORY / "config/example.yaml", tree.folder / "config.yaml")
    tree.edit(lambda config: config["pairs"]["mine"].update(alphas=[1]))
    tree.edit(lambda config: config["generate"].update(max_tokens=12))
    tree.snakemake("--cores", "1")
    assert [path.parent.name for path in tree.folder.glob("results/**/*.safetensors")] == ["expo"]
    assert {row["alpha"]: row["quality"] for row in rows(tree, "alphas.csv")} == {"-1": "", "0": "", "1": ""}
    assert tree.planned() == {}


def test_an_alpha_whose_responses_became_degenerate_is_left_out(finished):
    finished.edit(lambda config: config["select"].pop("degenerate_rise"))
    output = finished.snakemake("--cores", "1", "results/pairs/tiny/best.json")
    best = json.loads(finished.read("pairs/tiny/best.json"))
    assert best["alpha"] != "60"
    said = "alpha 60 left out: 100% of its responses are degenerate (unfinished 100%), "
    assert [warning.startswith(said) for warning in best["warnings"]] == [True]
    assert said in best["reason"]
    assert said in output
    (row,) = (row for row in rows(finished, "pairs/tiny/alphas.csv") if row["alpha"] == "60")
    assert (row["degenerate"], row["unfinished"], row["empty"], row["chosen_share"]) == ("1", "1", "0", "0")
    assert {each["degenerate"] for each in rows(finished, "pairs/tiny/alpha=60/dev.rewards.csv")} == {
        "unfinished"
    }
