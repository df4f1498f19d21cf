"""What TRL is trained on: datasets of the config, their columns, and recipes that name them."""

import json
from pathlib import Path

import pyarrow
import pytest
import yaml
from expoflow import checks
from expoflow.checkpoints import manifests
from expoflow.checks import machine
from expoflow.config import recipes
from expoflow.config.sources import DataConfig, ModelConfig
from expoflow.dag.launcher import read_launcher
from expoflow.dag.resources import Needs
from expoflow.errors import ConfigError, DataError
from expoflow.miniature import world
from expoflow.system import installed
from expoflow.training.loop.steps import messages
from expoflow.training.trl import miniature, rows
from expoflow.training.trl.recipe import Files
from loops import preference_pairs
from pyarrow import parquet

USER, SAID, OTHER = (
    {"role": "user", "content": "why?"},
    {"role": "assistant", "content": "because"},
    {"role": "assistant", "content": "no idea"},
)
ROW = {"prompt": "why?", "chosen": [USER, SAID], "rejected": [USER, OTHER]}  # as UltraFeedback binarized


def project(**train: object) -> dict:
    recipe = {"recipe": "dpo", "data": "feedback", "from": "sft"} | train
    return {
        "models": {
            "sft": {"path": "sft"},
            "dpo": {"train": recipe},
            "rm": {"path": "rm"},
        },
        "datasets": {"feedback": {"file": "feedback.jsonl"}},
        "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [0.3]}},
        "prompts": {"dev": {"miniature": "dev"}},
        "reward_model": "rm",
    }


def test_the_defaults_are_the_papers():
    recipe = checks.parse(project()).models["dpo"].train
    assert (recipe.batch_size, recipe.per_device, recipe.learning_rate) == (128, 8, 5e-7)
    assert (recipe.epochs, recipe.warmup, recipe.beta) == (1, 0.1, 0.01)
    assert recipe.gradient_checkpointing
    settings = (installed.workflow_folder() / "config/accelerate/zero3-offload.yaml").read_text()
    for line in (
        "num_processes: 4",
        "zero_stage: 3",
        "offload_optimizer_device: cpu",
        "offload_param_device: cpu",
    ):
        assert line in settings
    assert installed.accelerate_config(recipe).name == "zero3-offload.yaml"


def test_how_a_training_is_run_is_no_part_of_what_it_gives():
    one, other = (
        checks.parse(project(**launch)).models["dpo"].result()
        for launch in ({}, {"per_device": 1, "accelerate": "single"})
    )
    assert one == other
    assert checks.parse(project(beta=0.1)).models["dpo"].result() != one


@pytest.mark.parametrize(
    ("train", "problem"),
    [
        ({"data": "feedbak"}, "models.dpo.train.data: no dataset 'feedbak'; did you mean 'feedback'?"),
        (
            {"length_bias": 0},
            "models.dpo.train.length_bias: unknown key 'length_bias'; did you mean 'max_length'?",
        ),
        ({"lora": {"rang": 8}}, "models.dpo.train.lora.rang: unknown key 'rang'; did you mean 'rank'?"),
        (
            {"batch_size": 100},
            "models.dpo.train: batch_size 100 is not a multiple of per_device 8; change one",
        ),
        ({"trainer": "loop"}, "models.dpo.train.trainer: 'loop' is not accepted: must be 'trl'"),
    ],
)
def test_problems_of_a_recipe_are_told_at_their_place(train, problem):
    with pytest.raises(ConfigError) as error:
        checks.parse(project(**train))
    assert error.value.problems == [problem]


def test_a_dataset_has_one_source_and_is_not_called_like_the_world():
    asked = project()
    asked["datasets"] |= {
        "both": {"file": "a.jsonl", "hub": "a/b", "split": "train"},
        "miniature": {"file": "a"},
    }
    with pytest.raises(ConfigError) as error:
        checks.parse(asked)
    assert error.value.problems == [
        "datasets.miniature: data: miniature is the built-in world; rename the dataset",
        "datasets.both: one source is needed, has file and hub; give one of file, hub",
    ]


def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **train: object) -> list[str]:
    monkeypatch.chdir(tmp_path)
    Path("feedback.jsonl").write_text("{}\n")
    for name in ("sft", "rm"):
        Path(name).mkdir(exist_ok=True)
        (Path(name) / "config.json").write_text("{}")
        (Path(name) / "model.safetensors").touch()
    try:
        machine.check_sources(checks.parse(project(**train)))
    except ConfigError as error:
        return error.problems
    return []


def test_what_trl_needs_is_told_before_any_job(tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "TRAIN_EXTRA", ())
    (problem,) = told(tmp_path, monkeypatch)
    assert problem.startswith("models.dpo.train.accelerate: zero3-offload.yaml needs DeepSpeed; pip install")
    (problem,) = told(tmp_path, monkeypatch, accelerate="mine.yaml")
    assert problem.startswith("models.dpo.train.accelerate: cannot read the launcher's settings")
    assert told(tmp_path, monkeypatch, accelerate="single") == []
    monkeypatch.setattr(machine, "TRAIN_EXTRA", ("a_package_that_nobody_has",))
    assert told(tmp_path, monkeypatch, accelerate="single") == [
        "models.dpo.train.trainer: trl is not installed; pip install 'expoflow[train]'"
    ]
    (tmp_path / "results/models").mkdir(parents=True)
    (tmp_path / "results/models/dpo.json").write_text("{}")
    assert told(tmp_path, monkeypatch) == []


FILES = [
    ("num_processes: null", ["num_processes: None, which must be a number from 1 on"]),
    ("num_processes: four", ["num_processes: 'four', which must be a number"]),
    ("num_processes: true", ["num_processes: True, which must be a number"]),
    (
        "num_processes: -2\nuse_cpu: 'false'",
        ["num_processes: -2, which", "use_cpu: 'false', which must be true or false, without quotes"],
    ),
    ("deepspeed_config: foo", ["deepspeed_config: 'foo', which must be a mapping"]),
    ("deepspeed_config: {deepspeed_config_file: none.json}", ["cannot read the launcher's settings"]),
    ("- num_processes", ["must be a mapping"]),
    ("word", ["must be a mapping"]),
    ("", ["must be a mapping"]),
    ("a: [", ["cannot read the launcher's settings"]),
    ("a: \0", ["cannot read the launcher's settings"]),
]


@pytest.mark.parametrize(("text", "words"), FILES)
def test_what_is_wrong_with_a_launchers_file_is_told_line_by_line(tmp_path, monkeypatch, text, words):
    """Jobs' resources, which a dry run and a plan ask too, are those of the settings that are right."""
    monkeypatch.setattr(machine, "TRAIN_EXTRA", ())
    path = tmp_path / "own.yaml"
    path.write_text(f"distributed_type: DEEPSPEED\n{text}" if ":" in text and "\0" not in text else text)
    monkeypatch.setattr(machine.importlib.util, "find_spec", lambda name: True)
    found = told(tmp_path, monkeypatch, accelerate=str(path))
    assert len(found) == len(words), found
    for line, said in zip(found, words, strict=True):
        assert line.startswith("models.dpo.train.accelerate: ")
        assert said in line
        assert "\n" not in line
    needs = Needs(checks.parse(project(accelerate=str(path))), lambda name: 10**9)
    assert needs.training_gpus("dpo") == 1
    assert (needs.training_memory("dpo", 1), needs.training_disk("dpo") > 0) == (9500, True)


@pytest.mark.parametrize(
    ("zero", "memory"),
    [({"offload_optimizer": {"device": "cpu"}}, 22_000), ({"cpu_offload": True}, 22_000),
     ({"offload_optimizer": {"device": "none"}}, 11_000), ({}, 11_000)],
)  # fmt: skip
def test_what_deepspeeds_own_file_offloads_is_asked_for(tmp_path, zero, memory):
    own = tmp_path / "ds.json"
    own.write_text(json.dumps({"zero_optimization": {"stage": 3, **zero}}))
    path = tmp_path / "own.yaml"
    path.write_text(
        f"distributed_type: DEEPSPEED\nnum_processes: 2\ndeepspeed_config: {{deepspeed_config_file: {own}}}\n"
    )
    assert not read_launcher(path).problems
    needs = Needs(checks.parse(project(accelerate=str(path))), lambda name: 10**9)
    assert needs.training_memory("dpo", 1) == memory


def jsonl(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_preferences_are_read_as_ultrafeedback_has_them(tmp_path):
    expected = {"prompt": [USER], "chosen": [SAID], "rejected": [OTHER]}
    parquet.write_table(pyarrow.Table.from_pylist([ROW] * 4), tmp_path / "rows.parquet")
    assert rows.read("dpo", [tmp_path / "rows.parquet"], 0.5) == [expected] * 2
    plain = {"prompt": "why?", "chosen": "because", "rejected": "no idea"}
    assert rows.read("reward", [jsonl(tmp_path / "plain.jsonl", plain)], 1.0) == [expected]
    answers = {"prompt": [USER], "chosen": [SAID], "rejected": [OTHER]}
    assert rows.read("dpo", [jsonl(tmp_path / "three.jsonl", answers)], 1.0) == [expected]


def test_sft_reads_messages_or_completions(tmp_path):
    file = jsonl(
        tmp_path / "a.jsonl", {"messages": [USER, SAID]}, {"prompt": "why?", "completion": "because"}
    )
    assert rows.read("sft", [file], 1.0) == [
        {"messages": [USER, SAID]},
        {"prompt": [USER], "completion": [SAID]},
    ]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            {"prompt": "why?", "chosen": "because"},
            "a.jsonl:1: no column 'rejected' .has: prompt, chosen.; rename",
        ),
        (
            {**ROW, "chosen": [USER]},
            "column 'chosen' must be a text, or messages that end with one of the assist",
        ),
        (
            {**ROW, "rejected": [USER, {"role": "bot", "content": "a"}]},
            "of 'rejected' has role 'bot'; write assistant",
        ),
        ({**ROW, "chosen": "a", "prompt": [USER, SAID]}, "column 'prompt' ends with an answer"),
        ({**ROW, "chosen": [USER, SAID | {"content": None}]}, "message 2 of 'chosen' has no content"),
        ({"chosen": "a", "rejected": "b"}, "no column 'prompt'"),
    ],
)
def test_a_row_that_lacks_something_is_named(tmp_path, row, problem):
    with pytest.raises(DataError, match=problem):
        rows.read("dpo", [jsonl(tmp_path / "a.jsonl", row)], 1.0)


def test_on_policy_recipes_take_every_prompt_once(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", ROW, ROW, {**ROW, "prompt": "how?"})
    recipe = {"recipe": "rlhf", "data": "feedback", "from": "sft", "reward_model": "rm"}
    source = ModelConfig.model_validate({"train": recipe}).train
    assert [row["prompt"][0]["content"] for row in Files(source, [file]).rows()] == [
        "why?",
        "how?",
    ]


def test_a_dataset_that_has_gone_says_how_to_get_it_back(tmp_path):
    file = jsonl(tmp_path / "a.jsonl", ROW)
    manifest = manifests.dataset("feedback", DataConfig(file=str(file)), None, [file])
    assert manifests.dataset_files(manifest) == [file]
    file.write_text("")
    with pytest.raises(DataError, match=r"run: snakemake --forcerun results/datasets/feedback.json"):
        manifests.dataset_files(manifest)


def test_the_miniature_gives_trl_what_its_loop_has():
    def source(**recipe: object) -> miniature.Miniature:
        parsed = ModelConfig.model_validate({"train": {"data": "miniature", "trainer": "trl", **recipe}})
        return miniature.Miniature(parsed.train, 3, 3)

    dpo = source(recipe="dpo", examples=100, fraction=0.5, length_bias=0, **{"from": "sft"})
    pairs = preference_pairs(50, 3, length_bias=0)
    assert [row["chosen"][0]["content"] for row in dpo.rows()] == [pair.chosen for pair in pairs]
    assert [row["prompt"] for row in dpo.rows()] == [messages(pair.prompt) for pair in pairs]
    assert (dpo.settings().learning_rate, dpo.settings().batch_size) == (dpo.recipe.learning_rate, 64)
    asked = source(recipe="iterative_dpo", reward_model="rm", **{"from": "sft"}).prompts()
    assert sorted(p.prompt_id for p in asked) == sorted(p.prompt_id for p in world.prompts("train", 3))


def test_how_a_training_is_launched_starts_nothing_again():
    assert {"per_device", "accelerate"} == recipes.LAUNCH


def test_the_configs_in_the_documentation_are_accepted():
    text = (installed.workflow_folder() / "docs/training.md").read_text()
    shown = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    shown |= {key: project()[key] for key in ("prompts",)}
    shown |= {"reward_model": "rm", "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [1]}}}
    assert {model.train.recipe for model in checks.parse(shown).models.values() if model.train} == set(
        recipes.RECIPES
    ) - {"reward"}
