"""Any task of lm-eval: what a name stands for, what is refused, and figures that are lm-eval's own."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'expoflow[bench]'")

import leaderboard_data
from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.lm_eval import benchmark
from expoflow.benchmarks.lm_eval.answers import Graded
from expoflow.benchmarks.lm_eval.definitions import Definitions, Figure
from expoflow.benchmarks.lm_eval.files import Plan, gather, local_files, problems
from expoflow.checkpoints import manifests
from expoflow.checks import parse
from expoflow.checks.machine import check_sources
from expoflow.config.benchmarks import LmEvalBenchmark
from expoflow.config.sources import ModelConfig
from expoflow.config.stages import SelectConfig
from expoflow.errors import ConfigError, DataError
from expoflow.files.records import read_json, read_jsonl, write_json
from expoflow.paths import RESULTS
from expoflow.results import BenchmarkResult

CHOICE = """
task: mine_choice
tag: mine_tag
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}/choice.jsonl, train: {data}/shots.jsonl}}}}
output_type: multiple_choice
test_split: test
fewshot_split: train
num_fewshot: 2
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{choices}}}}"
doc_to_target: "{{{{label}}}}"
metric_list:
  - {{metric: acc, aggregation: mean, higher_is_better: true}}
  - {{metric: acc_norm, aggregation: mean, higher_is_better: true}}
"""
# As IFEval: a grade an instruction, and documents have several. `seldom` is of some documents alone.
ANSWER = """
task: mine_answer
tag: [mine_tag]
dataset_path: mine/answers
output_type: generate_until
test_split: test
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs: {until: ["\\n"], do_sample: false, temperature: 0.0, max_gen_toks: 12}
filter_list:
  - name: first
    filter: [{function: take_first}]
  - name: short
    filter: [{function: regex, regex_pattern: "(..)"}, {function: take_first}]
process_results: !function grades.process
metric_list:
  - {metric: prompts, aggregation: mean, higher_is_better: true}
  - {metric: instructions, aggregation: !function grades.flat, higher_is_better: true}
  - {metric: largest, aggregation: !function grades.largest, higher_is_better: true}
  - {metric: seldom, aggregation: nanmean, higher_is_better: true}
"""
GRADES = """
def process(doc, results):
    grades = [sum(map(ord, results[0] + letter)) % 3 > 0 for letter in doc["letters"]]
    seldom = float("nan") if len(grades) == 1 else float(sum(grades))
    return {"prompts": all(grades), "instructions": grades, "largest": len(grades), "seldom": seldom}

def flat(items):
    items = [each for grades in items for each in grades]
    return sum(items) / len(items)

def largest(items):
    return max(items)
"""
GROUP = """
group: mine
task: [mine_choice, {task: mine_twin, num_fewshot: 1}]
aggregate_metric_list:
  - {metric: acc, aggregation: mean, weight_by_size: %s}
metadata: {version: 1.0}
"""
OTHER = """
group: other
num_fewshot: 5
task:
  - group: within
    task: [mine_choice]
"""


def write_tasks(folder: Path, by_size: str = "true") -> Path:
    """Definitions and data of a choice, its twin with more documents, an answer, and a group of the first two."""
    data, tasks = folder / "data", folder / "tasks"
    tasks.mkdir(parents=True)
    rng = np.random.default_rng(0)
    words = leaderboard_data.WORDS

    def write(name: str, rows: list[dict]) -> None:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    def choice(number: int) -> dict:
        chosen = rng.choice(words, 4, replace=False).tolist()
        return {"question": f"{number}: what is it?", "choices": chosen, "label": int(rng.integers(4))}

    write("choice.jsonl", [choice(number) for number in range(9)])
    write("twin.jsonl", [choice(number) for number in range(17)])
    write("shots.jsonl", [choice(number) for number in range(5)])
    letters = [list("etaoin"[: 1 + number % 4]) for number in range(8)]
    rows = [{"question": f"{i} and?", "answer": "x", "letters": each} for i, each in enumerate(letters)]
    write("sets/mine/answers/test.jsonl", rows)
    (tasks / "choice.yaml").write_text(CHOICE.format(data=data))
    twin = CHOICE.format(data=data).replace("mine_choice", "mine_twin").replace("choice.jsonl", "twin.jsonl")
    (tasks / "twin.yaml").write_text(twin.replace("tag: mine_tag\n", ""))
    (tasks / "answer.yaml").write_text(ANSWER)
    (tasks / "grades.py").write_text(GRADES)
    (tasks / "mine.yaml").write_text(GROUP % by_size)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = write_tasks(tmp_path_factory.mktemp("tasks"))
    for seed, name in enumerate(("aligned", "expo")):
        leaderboard_data.write_model(path / name, seed)
        template = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}assistant:"
        (path / name / "chat_template.jinja").write_text(template)
    return path


def section(folder: Path, **settings) -> dict:
    own = {"include": str(folder / "tasks"), "data": str(folder / "data/sets"), "batch_size": 1}
    return {"tasks": ["mine", "mine_answer"]} | own | settings


def run(folder: Path, out: Path, model: str, **settings) -> tuple[BenchmarkResult, list[Graded]]:
    """What the rule's job makes of one model."""
    source = {"path": str(folder / model)}
    config = parse(
        {
            "models": {"sft": source, "aligned": source, "rm": {"path": "rm"}},
            "pairs": {"pair": {"sft": "sft", "aligned": "aligned", "alphas": [1]}},
            "prompts": {"dev": {"miniature": "dev"}},
            "reward_model": "rm",
            "benchmarks": {"lm_eval": section(folder, **settings)},
        }
    )
    out.mkdir(exist_ok=True)
    gather(config.benchmarks.lm_eval, 0, out / "plan.json")
    write_json(
        out / "model.json", manifests.manifest("aligned", ModelConfig.model_validate(source), folder / model)
    )
    benchmark.run(
        Job(
            pair="pair",
            variant="aligned",
            benchmark="lm_eval",
            config=config,
            inputs={"model": out / "model.json", "data": out / "plan.json"},
            usage=config.models["aligned"].usage(config.date),
            code="1",
            result=out / f"{model}.json",
            rows=out / f"{model}.jsonl",
        )
    )
    return read_json(out / f"{model}.json", BenchmarkResult), read_jsonl(out / f"{model}.jsonl", Graded)


def of_lm_eval(folder: Path, model: str, tasks: list[str], data: Path, **settings) -> dict:
    """The results of lm-eval's own command: what `lm_eval run` calls."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    definition = (folder / "tasks/answer.yaml").read_text()
    local = definition.replace("dataset_path: mine/answers", f"dataset_path: {data / 'mine/answers'}")
    (folder / "tasks/answer.yaml").write_text(local)
    try:
        return lm_eval.simple_evaluate(
            "hf",
            {
                "pretrained": str(folder / model),
                "dtype": "float32",
                "add_bos_token": True,
                "max_length": 4096,
            },
            tasks=tasks,
            task_manager=TaskManager(include_defaults=False, include_path=str(folder / "tasks")),
            batch_size=1,
            device="cpu",
            bootstrap_iters=10,
            **settings,
        )["results"]
    finally:
        (folder / "tasks/answer.yaml").write_text(definition)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    import datasets

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPOFLOW_STORE", str(tmp_path_factory.mktemp("store")))
        # lm-eval's bootstrap would fork this process with all its threads: one was seen to wait forever
        patch.setenv("DISABLE_MULTIPROC", "1")
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("converted")))
        yield


@pytest.mark.parametrize("chat", [False, True], ids=["plain", "chat"])
def test_figures_are_those_of_lm_evals_own_command(folder, store, tmp_path, chat):
    result, rows = run(folder, tmp_path, "aligned", apply_chat_template=chat)
    found = {metric.metric: metric for metric in result.metrics}
    official = of_lm_eval(
        folder, "aligned", ["mine", "mine_answer"], folder / "data/sets", apply_chat_template=chat
    )
    expected = {
        "mine.acc": official["mine"]["acc,none"],
        **{
            f"mine_answer.{metric}.{way}": official["mine_answer"][f"{metric},{way}"]
            for metric in ("prompts", "instructions", "seldom")
            for way in ("first", "short")
        },
    }
    assert {name: metric.value for name, metric in found.items()} == pytest.approx(expected, abs=1e-12)
    assert 0 < found["mine.acc"].value < 1
    assert 0 < found["mine_answer.instructions.first"].value < 1
    assert official["mine_answer"]["prompts_stderr,first"] == pytest.approx(
        found["mine_answer.prompts.first"].standard_error
    )
    assert (found["mine.acc"].n, found["mine_answer.prompts.first"].n) == (26, 8)
    assert {(row.part, row.member) for row in rows} == {
        (name, name) for name in ("mine_choice", "mine_twin", "mine_answer")
    }
    again, _ = run(folder, tmp_path, "aligned", apply_chat_template=chat)
    assert again.metrics == result.metrics
    assert set(result.provenance["data"]) == {"mine_choice", "mine_twin", "mine/answers"}


def test_of_which_figures_more_is_better(folder, tmp_path):
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    for path in (folder / "tasks").glob("*.*"):
        (tasks / path.name).write_text(path.read_text())
    answer = (tasks / "answer.yaml").read_text()
    less = answer.replace("nanmean, higher_is_better: true", "nanmean, higher_is_better: false")
    (tasks / "answer.yaml").write_text(
        less.replace("grades.largest, higher_is_better: true", "grades.largest")
    )
    gather(LmEvalBenchmark(**section(folder, include=str(tasks))), 0, tmp_path / "plan.json")
    assert read_json(tmp_path / "plan.json", Plan).higher == {
        "mine.acc": True,
        **{f"mine_answer.{name}": True for name in ("prompts", "instructions")},
        **{"mine_answer.largest": None, "mine_answer.seldom": False},
    }
    known = Definitions()
    known.figures("crows_pairs_english_age")
    assert known.leaves["crows_pairs_english_age"].higher() == {
        "likelihood_diff": False,
        "pct_stereotype": False,
    }


def test_a_group_may_count_its_tasks_alike_and_shots_may_be_set(store, tmp_path):
    folder = write_tasks(tmp_path / "set", "false")
    leaderboard_data.write_model(folder / "aligned")
    result, rows = run(folder, tmp_path, "aligned", tasks=["mine"], num_fewshot=3, limit=7)
    official = of_lm_eval(folder, "aligned", ["mine"], folder / "data/sets", num_fewshot=3, limit=7)
    assert [metric.metric for metric in result.metrics] == ["mine.acc"]
    assert result.metrics[0].value == pytest.approx(official["mine"]["acc,none"])
    assert len(rows) == 14


def test_expo_is_compared_with_aligned_by_document(folder, store, tmp_path):
    values = {model: run(folder, tmp_path, model)[0].metrics for model in ("aligned", "expo")}
    config = SelectConfig(resamples=300)
    rows = {name: read_jsonl(tmp_path / f"{name}.jsonl", Graded) for name in values}
    told = read_json(tmp_path / "plan.json", Plan).told
    found = benchmark.compare(rows["expo"], rows["aligned"], told, config)
    assert [metric.metric for metric in found] == [metric.metric for metric in values["expo"]]
    for metric, after, before in zip(found, values["expo"], values["aligned"], strict=True):
        assert metric.value == pytest.approx(after.value - before.value, abs=1e-12)
        assert metric.low <= metric.value <= metric.high
    with pytest.raises(DataError, match="answered different documents"):
        benchmark.compare(rows["expo"][1:], rows["aligned"], told, config)
    comparison = Comparison("pair", "lm_eval", parse_any(folder), {"data": tmp_path / "plan.json", **{
        name: tmp_path / f"{name}.jsonl" for name in values}}, tmp_path / "difference.json")  # fmt: skip
    benchmark.run_comparison(comparison)
    written = read_json(tmp_path / "difference.json", BenchmarkResult)
    assert [m.value for m in written.metrics] == [metric.value for metric in found]


def parse_any(folder: Path, **settings):
    source = {"path": str(folder / "aligned")}
    return parse(
        {
            "models": {"sft": source, "aligned": source, "rm": {"path": "rm"}},
            "pairs": {"pair": {"sft": "sft", "aligned": "aligned", "alphas": [1]}},
            "prompts": {"dev": {"miniature": "dev"}},
            "reward_model": "rm",
            "select": {"resamples": 300},
            "benchmarks": {"lm_eval": section(folder, **settings)},
        }
    )


def test_of_a_single_document_nothing_is_proved():
    row = Graded(
        member="t", part="t", doc=0, doc_hash="d", prompt_hash="p", values={"acc,none": (1, 1)}, answer=""
    )
    (metric,) = benchmark.compare([row], [row], [Figure(name="t", parts=("t",))], SelectConfig(resamples=100))
    assert (metric.value, metric.standard_error, metric.low, metric.high, metric.p_value) == (
        0,
        None,
        None,
        None,
        None,
    )


def test_a_weighted_mean_has_the_spread_of_a_ratio():
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 4, 4000).astype(float)
    values = rng.random(4000) + weights
    linear = benchmark.linearised(values, weights)
    assert linear.mean() == pytest.approx(np.average(values, weights=weights))
    drawn = [
        np.average(values[i], weights=weights[i]) for i in (rng.integers(0, 4000, 4000) for _ in range(600))
    ]
    assert linear.std() / np.sqrt(4000) == pytest.approx(np.std(drawn), rel=0.1)
    assert benchmark.linearised(values, np.full(4000, 2.0)) is values


def test_what_lm_evals_own_names_stand_for():
    known = Definitions()
    assert known.figures("ifeval") == [Figure(name="ifeval", parts=("ifeval",))]
    (figure,) = known.figures("mmlu_pro")
    assert (figure.name, len(figure.parts), figure.metric) == ("mmlu_pro", 14, "exact_match")
    assert figure.filters == ("custom-extract",)
    leaf = known.leaves["mmlu_pro_law"]
    assert (leaf.dataset, leaf.problem()) == ("TIGER-Lab/MMLU-Pro", None)
    assert known.leaves["ifeval"].uses("nltk")
    assert {"langdetect", "immutabledict"}.issuperset(known.leaves["ifeval"].packages())
    for name, reason in (
        ("wikitext", "likelihood of whole texts"),
        ("humaneval", "runs the code"),
        ("squadv2", "a class of its own"),
        ("realtoxicityprompts", "over the network"),  # it sends what a model writes to a service of Google's
        ("gsm8k_cot_self_consistency", "several answers"),
    ):
        known.figures(name)
        assert reason in known.leaves[name].problem()


def test_a_group_of_tasks_without_names_is_refused():
    with pytest.raises(DataError, match="lm-eval's group 't0_eval' has a member without a name"):
        Definitions().figures("t0_eval")


def test_own_definitions(tmp_path):
    folder = write_tasks(tmp_path)
    (folder / "tasks/other.yaml").write_text(OTHER)
    known = Definitions(folder / "tasks")
    assert {f.name for f in known.figures("mine_tag")} == {"mine_choice", "mine_answer"}
    known.figures("mine_choice")
    twice = Definitions(folder / "tasks")
    assert [figure.name for figure in twice.figures("other")] == ["mine_choice"]
    assert twice.leaves["mine_choice"].overrides == {"num_fewshot": 5}
    with pytest.raises(DataError, match="'mine_choice' is asked for in two ways"):
        twice.figures("mine_choice")
    files = local_files(LmEvalBenchmark(**section(folder)))
    names = [str(Path(each).relative_to(folder)) for each in files]
    assert sorted(names) == sorted(
        [
            *(
                "data/choice.jsonl",
                "data/sets/mine/answers/test.jsonl",
                "data/shots.jsonl",
                "data/twin.jsonl",
            ),
            *(
                "tasks/answer.yaml",
                "tasks/choice.yaml",
                "tasks/grades.py",
                "tasks/mine.yaml",
                "tasks/twin.yaml",
            ),
            "tasks/other.yaml",
        ]
    )


def test_what_is_wrong_is_told_before_any_job(folder, tmp_path):
    (tmp_path / "one.yaml").write_text(
        CHOICE.format(data="nowhere").replace("mine_choice", "mine_one").replace("mean", "median")
    )
    (tmp_path / "two.yaml").write_text(CHOICE.format(data="nowhere").replace("mine_choice", "mine_two"))
    (tmp_path / "three.yaml").write_text(
        ANSWER.replace("mine_answer", "mine_three").replace("grades.", "code.")
    )
    (tmp_path / "code.py").write_text("import os\nimport no_such_package_1\n" + GRADES)

    def told(*tasks: str, **settings) -> list[str]:
        given = {"include": str(tmp_path), "data": str(folder / "data/sets")} | settings
        return list(problems(LmEvalBenchmark(tasks=list(tasks), **given)))

    where = "benchmarks.lm_eval.tasks: "
    assert told("mine_one") == [
        f"{where}lm-eval's task 'mine_one' has no metric that is a mean over documents; leave it out of tasks"
    ]
    assert told("mine_two") == [
        "benchmarks.lm_eval.data: task 'mine_two': no file 'nowhere/choice.jsonl'; correct its data_files"
    ]
    assert told("mine_three") == [
        f"{where}'mine_three' needs no-such-package-1; pip install no-such-package-1"
    ]
    (line,) = told("ifevall")
    assert line.startswith(f"{where}lm-eval has no task or group 'ifevall'; the nearest are: ifeval")
    (line,) = told("mine_answer", include=str(folder / "tasks"), data=str(tmp_path))
    assert "hf download --repo-type dataset mine/answers --local-dir" in line
    assert told("ifeval", include=str(tmp_path / "none")) == [
        f"benchmarks.lm_eval.include: no folder '{tmp_path / 'none'}'; correct the path"
    ]
    with pytest.raises(DataError, match="'humaneval' runs the code that a model writes"):
        gather(LmEvalBenchmark(tasks=["humaneval"]), 0, tmp_path / "plan.json")


def test_a_new_name_is_looked_up_beside_finished_results(folder, tmp_path, monkeypatch):
    """Snakemake would find nothing to do: it takes a rule whose inputs cannot be told for one that is not needed."""
    monkeypatch.chdir(tmp_path)
    config = parse_any(folder, tasks=["mine", "mine_answe"])
    for variant in ("sft", "aligned", "expo"):
        result = RESULTS.benchmark("pair", variant, "lm_eval")
        result.parent.mkdir(parents=True)
        result.write_text("{}")
    with pytest.raises(ConfigError, match="no task or group 'mine_answe'; the nearest are: mine_answer"):
        check_sources(config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["a", "a"]}, "occurs twice"),
        ({"tasks": []}, "at least 1"),
        ({"tasks": ["a"], "backend": "completions"}, "belong together"),
        ({"tasks": ["a"], "num_fewshot": -1}, "greater than or equal to 0"),
    ],
)
def test_bad_settings_are_named(folder, settings, message):
    with pytest.raises(ConfigError, match=message):
        parse(
            {
                "models": {"m": {"path": "m"}, "rm": {"path": "rm"}},
                "pairs": {"pair": {"sft": "m", "aligned": "m", "alphas": [1]}},
                "prompts": {"dev": {"miniature": "dev"}},
                "reward_model": "rm",
                "benchmarks": {"lm_eval": settings},
            }
        )
