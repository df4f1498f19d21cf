"""What a change recomputes: exact job counts from dry runs after a finished run."""

import csv
import json
import re
from pathlib import Path

import pytest
from edits import change_code

pytestmark = pytest.mark.workflow
JOINT = {"tables": 1, "benchmark_table": 1, "appendices": 1, "figure": 3, "report": 1}
AFTER_SELECT = {"export": 1, "benchmark_reward": 1, "compare": 1, "certify": 1, "answers_page": 1} | JOINT


def test_nothing_to_do_after_a_finished_run(finished):
    assert finished.planned() == {}


def test_one_more_alpha(finished):
    finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(2))
    new = {"extrapolate": 1, "generate": 1, "score": 1, "select": 1, "answers": 1}
    assert finished.planned() == new | AFTER_SELECT


def test_another_spelling_of_an_alpha_is_the_same_node(finished):
    finished.edit(lambda config: config["pairs"]["tiny"].update(alphas=[1.0, 60.0, -1]))
    assert finished.planned() == {}


def work_kept(tree):
    """When each file of the store was written, but for the speed that every run leaves there."""
    files = (path for path in tree.store.rglob("*") if path.is_file() and path.name != "speeds.jsonl")
    return {path: path.stat().st_mtime_ns for path in files}


def test_a_new_alpha_that_loses_generates_no_token_and_writes_no_weight_after_select(finished):
    weights = finished.folder / "results/pairs/tiny/expo/model.safetensors"
    before = weights.stat()
    kept = work_kept(finished)
    finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(200))
    chosen = re.search(r'"alpha": "(.*)"', finished.read("pairs/tiny/best.json").decode())[1]
    output = finished.snakemake("--cores", "1")
    assert f'"alpha": "{chosen}"' in finished.read("pairs/tiny/best.json").decode()
    assert f"tiny: alpha {chosen} is already in results/pairs/tiny/expo" in output
    assert "tiny: expo: reward: 300 responses are kept from before" in output
    assert weights.stat().st_mtime_ns == before.st_mtime_ns
    assert weights.stat().st_ino == before.st_ino
    assert work_kept(finished) == kept
    assert finished.planned() == {}
    found = json.loads(finished.read("pairs/tiny/certificate.json"))
    (compared,) = (
        row
        for row in csv.DictReader(finished.read("benchmarks.csv").decode().splitlines())
        if (row["variant"], row["metric"]) == ("expo-aligned", "reward")
    )
    assert float(compared["value"]) == pytest.approx(found["gain"], rel=1e-5)
    assert (found["alpha"], found["prompts"], found["looks"]) == (chosen, int(compared["n"]), 1)


def test_another_choice_is_another_look(finished):
    alphas = ["1", "60"]
    chosen = json.loads(finished.read("pairs/tiny/best.json"))["alpha"]
    alphas.remove(chosen)
    finished.edit(lambda config: config["pairs"]["tiny"].update(alphas=[float(alphas[0])]))
    finished.snakemake("--cores", "1")
    found = json.loads(finished.read("pairs/tiny/certificate.json"))
    assert (found["alpha"] in ("0", *alphas), found["looks"]) == (True, 2)
    if found["alpha"] != "0":
        assert "(these prompts were looked at 2 times)" in finished.read("report.html").decode()


def test_without_test_prompts_a_part_of_the_others_may_judge(finished):
    def split(config):
        del config["benchmarks"]
        config["select"]["judge"] = 0.5

    finished.edit(split)
    joint = JOINT | {"figure": 2}  # no histograms
    own = {"select": 1, "export": 1, "certify": 1, "answers_page": 1}
    assert finished.planned() == own | joint
    finished.snakemake("--cores", "1")
    found = json.loads(finished.read("pairs/tiny/certificate.json"))
    assert (found["held_out"], found["chosen_on"], found["judged_on"]) == (True, "dev", "dev")
    assert found["looks"] == 2  # these prompts have chosen alpha before
    assert json.loads(finished.read("pairs/tiny/best.json"))["prompts"] == found["prompts"] == 12
    finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(2))
    del joint["benchmark_table"]  # which no benchmark changes
    assert finished.planned() == {"extrapolate": 1, "generate": 1, "score": 1, "answers": 1} | own | joint
    finished.edit(lambda config: config["select"].pop("judge"))
    finished.edit(lambda config: config["pairs"]["tiny"]["alphas"].pop())
    output = finished.snakemake("--cores", "1")
    assert "  alpha was chosen and judged on the same prompts\n" in output
    assert json.loads(finished.read("pairs/tiny/certificate.json"))["held_out"] is False


def test_another_way_to_choose(finished):
    finished.edit(lambda config: config["select"].update(compare=["nll"]))
    assert finished.planned() == {"likelihood": 4, "select": 1} | AFTER_SELECT
    finished.snakemake("--cores", "1")
    header, *rows = finished.read("alphas.csv").decode().splitlines()
    assert all(row.split(",")[header.split(",").index("nll")] for row in rows)
    other = json.loads(finished.read("pairs/tiny/best.json"))["others"]["nll"]
    assert f"On the same responses: by nll alpha {other}." in finished.read("report.html").decode()
    finished.edit(lambda config: config["select"].update(by="nll", compare=None))
    assert finished.planned() == {"select": 1} | AFTER_SELECT
    finished.edit(lambda config: config["select"].update(by="implicit"))
    assert finished.planned() == {"likelihood": 4, "select": 1} | AFTER_SELECT


def test_an_emptied_store_invalidates_nothing(finished):
    for path in finished.store.rglob("*"):
        if path.is_file():
            path.unlink()
    assert finished.planned() == {}


def test_one_more_pair(finished):
    def add(config):
        config["models"]["dpo2"] = config["models"]["dpo"] | {}
        config["models"]["dpo2"] = {"train": {**config["models"]["dpo"]["train"], "fraction": 0.5}}
        config["pairs"]["tiny2"] = {"sft": "sft", "aligned": "dpo2", "alphas": [1]}

    finished.edit(add)
    own = {"train": 1, "preflight": 1, "extrapolate": 3, "generate": 3, "score": 3, "select": 1, "export": 1}
    judged = {"benchmark_reward": 3, "compare": 1, "certify": 1}
    assert (
        finished.planned() == own | judged | {"answers": 1, "answers_page": 1} | JOINT
    )  # no page of the other pair


def test_sampling_changes_generations_and_what_comes_after(finished):
    finished.edit(lambda config: config["generate"].update(temperature=0.9))
    assert finished.planned() == {"generate": 4, "score": 4, "select": 1, "answers": 1} | AFTER_SELECT | {
        "benchmark_reward": 3
    }


def test_another_confidence_changes_the_choice_and_what_comes_after(finished):
    finished.edit(lambda config: config["select"].update(confidence=0.9))
    assert finished.planned() == {"select": 1} | AFTER_SELECT


def test_a_deleted_rewards_file(finished):
    (finished.folder / "results/pairs/tiny/alpha=1/dev.rewards.csv").unlink()
    assert finished.planned() == {"score": 1, "select": 1, "answers": 1} | AFTER_SELECT


def test_an_edited_prompt_file(finished):
    path = finished.folder / "dev.jsonl"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    new = {"prompts": 1, "generate": 4, "score": 4, "select": 1, "answers": 1}
    assert finished.planned() == new | AFTER_SELECT


def test_a_fresh_clone_over_finished_results(finished, clone):
    finished.workflow = clone
    assert finished.planned() == {}


def test_a_run_whose_jobs_would_import_another_library_is_refused(finished, clone):
    (finished.folder / "results/report.html").unlink()
    finished.workflow = clone
    output = finished.snakemake("--cores", "1", check=False, jobless=True)
    assert f"not its own; run: pip install -e {clone}" in output
    assert not (finished.folder / "results/report.html").exists()


def test_results_are_kept_across_an_upgrade_where_asked(finished, clone):
    change_code(clone / "workflow/scripts/expoflow/selection/select.py")
    finished.workflow = clone
    assert finished.planned()["select"] == 1
    finished.snakemake("--touch", "--cores", "1")
    assert finished.planned() == {}


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text() + text)


def test_comments_docstrings_and_formatting_change_nothing(finished, clone):
    library = clone / "workflow/scripts/expoflow"
    for module in (
        *("extrapolation/extrapolate.py", "engines/transformers.py"),
        *("miniature/world.py", "selection/select.py"),
    ):
        path = library / module
        path.write_text('"""Another docstring."""\n# a comment\n' + path.read_text().partition('"""\n')[2])
    append(clone / "workflow/scripts/generate.py", "\n# a comment\n")
    finished.workflow = clone
    assert finished.planned() == {}


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("reporting/figures/sweeps.py", {"figure": 3, "report": 1}),
        ("reporting/appendices.py", {"appendices": 1, "report": 1}),
        ("reporting/pages/report.py", {"report": 1}),
        ("reporting/pages/answers.py", {"answers_page": 1}),
        ("scoring/answers.py", {"answers": 1, "answers_page": 1}),
        ("selection/statistics.py", {"select": 1} | AFTER_SELECT | {"benchmark_reward": 3}),
        ("training/loop/dpo.py", None),
    ],
)
def test_an_edit_of_code_changes_what_depends_on_it(finished, clone, module, expected):
    change_code(clone / "workflow/scripts/expoflow" / module)
    finished.workflow = clone
    planned = finished.planned()
    if expected is None:
        assert planned["train"] == 1  # neither sft nor the reward model
    else:
        assert planned == expected


def test_an_edit_of_the_words_of_a_page_makes_pages_alone(finished, clone):
    page = clone / "workflow/scripts/expoflow/reporting/pages/assets/answers.html"
    page.write_text(page.read_text().replace("Which response is better?", "Which is better?"))
    finished.workflow = clone
    assert finished.planned() == {"answers_page": 1, "report": 1}
