"""The Open LLM Leaderboard through lm-eval: official definitions, offline, resumed, compared."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'expoflow[bench]'")

import leaderboard_data as data
from completions_server import serving
from expoflow.benchmarks.lm_eval import harness
from expoflow.benchmarks.lm_eval.answers import graded
from expoflow.benchmarks.lm_eval.data import TaskData, definitions
from expoflow.benchmarks.open_llm import benchmark as open_llm
from expoflow.benchmarks.open_llm.files import gather, local_files
from expoflow.benchmarks.open_llm.tasks import LEADERBOARD, OFFICIAL, TASKS, Answered, asked, normalised
from expoflow.checkpoints import manifests
from expoflow.checks import parse
from expoflow.checks.machine import check_sources
from expoflow.config.benchmarks import OpenLlmBenchmark
from expoflow.config.sources import ModelConfig
from expoflow.config.stages import SelectConfig
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError, ConfigError, DataError
from expoflow.files.records import read_json, read_jsonl, write_json
from expoflow.miniature import open_llm as miniature_files
from expoflow.miniature import world
from expoflow.results import BenchmarkResult
from expoflow.system import gpus, progress
from expoflow.training.loop import sft
from loops import run_loop

SHOTS = {"arc_challenge": 25, "hellaswag": 10, "gsm8k": 5, "winogrande": 5, "truthfulqa_mc2": 0}


@pytest.fixture(scope="module", autouse=True)
def offline(tmp_path_factory):
    """Only this machine can be reached; converted datasets go to a folder of the tests."""
    import datasets

    connect = socket.socket.connect

    def local(self, address):
        if self.family == socket.AF_UNIX or address[0].startswith("127."):
            return connect(self, address)
        raise AssertionError(f"a test asked {address}")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", local)
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path_factory.mktemp("converted")))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("leaderboard")
    data.write_all(path / "data")
    data.write_model(path / "model")
    gather(OpenLlmBenchmark(data=str(path / "data")), 0, path / "data.json")
    return path


def evaluate(folder: Path, config: OpenLlmBenchmark) -> dict:
    datasets = read_json(folder / "data.json", TaskData).datasets
    folders = {name: each.folder for name, each in datasets.items()}
    task = asked(Model(folder=folder / "model"), config, folders)
    loaded = harness.language_model(task.model, config)
    model = harness.Resuming(loaded, Chat.of(loaded.tokenizer, task.model), [], lambda kept: None)
    return harness.evaluate(model, task)


def rows_of(results: dict, tasks: Sequence[str]) -> list[Answered]:
    return normalised(graded(results), tasks)


@pytest.fixture(scope="module")
def results(folder):
    return evaluate(folder, OpenLlmBenchmark())


@pytest.fixture(scope="module")
def rows(results):
    return rows_of(results, LEADERBOARD)


def test_the_official_definitions_have_the_leaderboards_shots(results):
    shots = {name: n for name, n in results["n-shot"].items() if not name.startswith("mmlu")}
    assert shots == SHOTS
    subjects = {
        name: n for name, n in results["n-shot"].items() if name.removeprefix("mmlu_") in data.SUBJECTS
    }
    assert (len(subjects), set(subjects.values())) == (57, {5})
    assert results["versions"]["gsm8k"] == 3.0
    prompts = {name: samples[0]["arguments"][0][0] for name, samples in results["samples"].items()}
    assert prompts["arc_challenge"].count("Question:") == 26
    assert prompts["hellaswag"].count("Cooking:") == 11
    assert prompts["gsm8k"].count("Question:") == 6
    assert prompts["mmlu_anatomy"].count("Answer:") == 6
    assert prompts["mmlu_anatomy"].startswith("The following are multiple choice questions (with answers)")
    assert prompts["winogrande"].count("because") == 6
    assert prompts["truthfulqa_mc2"].count("Q:") == 7  # the six that are part of the prompt, at 0 shots


def test_what_counts_are_the_leaderboards_metrics(results, rows):
    counted = {metric.metric: metric for metric in open_llm.measure(rows)}
    official = results["results"]
    for task, key in (
        ("arc", "acc_norm,none"),
        ("hellaswag", "acc_norm,none"),
        ("gsm8k", "exact_match,strict-match"),
        ("winogrande", "acc,none"),
        ("truthfulqa", "acc,none"),
    ):
        assert counted[task].value == pytest.approx(official[TASKS[task].name][key], abs=1e-12)
        assert counted[task].n == data.SIZES[task]
    subjects = [official[f"mmlu_{subject}"]["acc,none"] for subject in data.SUBJECTS]
    assert counted["mmlu"].value == pytest.approx(np.mean(subjects), abs=1e-12)
    assert counted["mmlu"].value != pytest.approx(official["mmlu"]["acc,none"], abs=1e-4)  # weighted by size
    assert counted["mmlu"].n == 29 * 2 + 28 * 3
    assert counted["average"].value == pytest.approx(np.mean([counted[task].value for task in LEADERBOARD]))
    assert counted["average"].standard_error == pytest.approx(
        np.sqrt(sum(counted[task].standard_error ** 2 for task in LEADERBOARD)) / 6
    )
    values = [row.value for row in rows if row.task == "truthfulqa"]
    assert counted["truthfulqa"].standard_error == pytest.approx(np.std(values, ddof=1) / 2)


def test_the_tasks_are_lm_evals_own(results):
    folders = [definitions() / name for name in OFFICIAL]
    official = harness.TaskManager(include_defaults=False, include_path=folders).task_index
    for task in LEADERBOARD[:2] + LEADERBOARD[3:]:
        assert official[TASKS[task].name].cfg["dataset_path"] == TASKS[task].dataset
    assert official["mmlu_anatomy"].cfg["dataset_path"] == TASKS["mmlu"].dataset
    assert official["gsm8k"].cfg["generation_kwargs"]["until"] == ["Question:", "</s>", "<|im_end|>"]
    assert {each["filter"] for each in results["samples"]["gsm8k"]} == {"strict-match", "flexible-extract"}


def script(folder: Path, out: Path) -> list[str]:
    """A process that runs the benchmark's job on one variant."""
    code = f"""
import os
os.environ["HF_DATASETS_CACHE"] = {str(folder / "converted")!r}
from pathlib import Path
from expoflow.benchmarks.open_llm import benchmark as open_llm
from expoflow.benchmarks.job import Job
from expoflow.checks import parse
from expoflow.checks.machine import check_sources
import json
out = Path({str(out)!r})
config = parse(json.loads((out / "config.json").read_text()))
open_llm.run(Job(
    pair="pair", variant="aligned", benchmark="open_llm", config=config,
    inputs={{"model": out / "model.json", "data": Path({str(folder / "data.json")!r})}},
    usage=config.models["aligned"].usage(config.date), code="1", result=out / "open_llm.json",
    rows=out / "open_llm.generations.jsonl",
))
"""
    return [sys.executable, "-c", code]


def output(command: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def config(folder: Path, **settings) -> dict:
    model = {"path": str(folder / "model")}
    return {
        "models": {"sft": model, "aligned": model, "rm": {"path": "rm"}},
        "pairs": {"pair": {"sft": "sft", "aligned": "aligned", "alphas": [1]}},
        "prompts": {"dev": {"miniature": "dev"}},
        "reward_model": "rm",
        "benchmarks": {"open_llm": {"data": str(folder / "data"), "batch_size": 1, **settings}},
    }


@pytest.mark.long
def test_a_killed_run_goes_on_and_a_rerun_asks_nothing(folder, tmp_path):
    tasks = ["arc", "hellaswag", "gsm8k", "truthfulqa"]
    # one request at a time, as `config` asks: on some processors the last bits depend on the batch
    rows = rows_of(evaluate(folder, OpenLlmBenchmark(tasks=tasks, batch_size=1)), tasks)
    (tmp_path / "config.json").write_text(json.dumps(config(folder, tasks=tasks)))
    source = ModelConfig(path=str(folder / "model"))
    write_json(tmp_path / "model.json", manifests.manifest("aligned", source, folder / "model"))
    command = script(folder, tmp_path)
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    part = tmp_path / ".open_llm.generations.jsonl.answers.part"

    with open(tmp_path / "first.log", "w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        deadline = time.monotonic() + 120
        while not (part.exists() and part.read_bytes().count(b"\n") > 10):
            assert process.poll() is None, (tmp_path / "first.log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = part.read_bytes().count(b"\n") - 1  # the first line is the key
    assert not (tmp_path / "open_llm.json").exists()

    log = output(command, environment)
    assert f"{kept} answers are there already, from a run that was cut off" in log
    done = [
        tuple(map(int, each)) for each in re.findall(r": (\d+) requests, (\d+) are already answered", log)
    ]
    assert [total for total, _ in done] == [5 * 4 + 4 * 4 + 4 * 5, 3]
    assert sum(answered for _, answered in done) >= kept >= 10  # equal requests share an answer
    assert not part.exists()
    again = read_jsonl(tmp_path / "open_llm.generations.jsonl", Answered)
    assert [(row.part, row.doc, row.value) for row in again] == [
        (row.part, row.doc, row.value) for task in tasks for row in rows if row.task == task
    ]
    result = read_json(tmp_path / "open_llm.json", BenchmarkResult)
    assert [m.metric for m in result.metrics] == tasks
    assert result.provenance["lm_eval"] == "0.4.13"

    (tmp_path / "open_llm.json").unlink()
    log = output(command, environment)
    assert "16 answers are kept from before" in log
    assert "requests" not in log
    assert read_json(tmp_path / "open_llm.json", BenchmarkResult).metrics == result.metrics


def test_a_server_gives_what_hf_gives(folder, rows, tmp_path):
    tasks = ["arc", "gsm8k", "winogrande"]
    with serving(folder / "model") as (url, asked):
        settings = OpenLlmBenchmark(tasks=tasks, backend="completions", base_url=url, concurrency=2)
        served = rows_of(evaluate(folder, settings), tasks)
        assert all(body["model"] == str(folder / "model") for body in asked)
        assert {body["prompt"][0][0] for body in asked} == {0}  # BOS, as hf has it
    here = [row for row in rows if row.task in tasks]
    assert [(r.task, r.doc, r.value, r.prompt_hash) for r in served] == [
        (r.task, r.doc, r.value, r.prompt_hash) for r in here
    ]
    for one, other in zip(served, here, strict=True):
        assert one.answer == (
            other.answer if isinstance(other.answer, str) else pytest.approx(other.answer, abs=1e-3)
        )


def test_another_models_server_is_refused(folder):
    with serving(folder / "model", name="other") as (url, _):
        settings = OpenLlmBenchmark(backend="completions", base_url=url)
        with pytest.raises(CheckpointError, match=r"serves other, not .*start it: vllm serve"):
            harness.language_model(Model(folder=folder / "model"), settings)
    with pytest.raises(CheckpointError, match="no OpenAI-compatible server answers"):
        harness.language_model(Model(folder=folder / "model"), settings)


def test_a_system_message_that_the_template_refuses_is_left_out_only_if_the_config_says_so(folder):
    """lm-eval itself leaves it out in silence."""
    loaded = harness.language_model(Model(folder=folder / "model"), OpenLlmBenchmark())
    loaded.tokenizer.chat_template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}"
    )
    history = [{"role": "system", "content": "Choose."}, {"role": "user", "content": "a or b?"}]
    begun = [*history, {"role": "assistant", "content": "It is"}]
    assert loaded.apply_chat_template(history) == "user: a or b? assistant:"

    def written(system: str, history: list, ask: bool = True) -> str:
        chat = Chat(loaded.tokenizer, "mine", system)
        return harness.Resuming(loaded, chat, [], lambda kept: None).apply_chat_template(history, ask)

    with pytest.raises(DataError, match=r"'mine'.*refuses it \(no system\); set `system: merge`"):
        written("keep", history)
    assert written("drop", history) == "user: a or b? assistant:"
    assert written("merge", history) == "user: Choose.\n\na or b? assistant:"
    assert written("drop", begun, False) == "user: a or b? assistant: It is"


def test_vllm_spreads_the_model_over_the_gpus_that_the_job_was_given(folder, monkeypatch):
    asked = {}
    monkeypatch.setattr(
        harness, "get_model", lambda name: lambda **settings: asked.update(settings, name=name)
    )
    monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    harness.language_model(Model(folder=folder / "model"), OpenLlmBenchmark(backend="vllm"))
    assert (asked["name"], asked["tensor_parallel_size"]) == ("vllm", 2)


def test_the_batch_fits_into_memory(monkeypatch):
    class Settings:
        vocab_size, hidden_size, num_hidden_layers = 32000, 4096, 32

    size = harness.batch_size(OpenLlmBenchmark(), Settings, 4096, "cpu")
    free = harness.free_memory()
    assert size == 1 or size * 4096 * 4 * (3 * 32000 + 16 * 4096 * 32) <= free / 4
    assert harness.batch_size(OpenLlmBenchmark(), Settings, 4096, "cuda") == "auto"
    assert harness.batch_size(OpenLlmBenchmark(batch_size=7), Settings, 4096, "cuda") == 7


def answered(task: str, part: str, values: list[float]) -> list[Answered]:
    return [
        Answered(task=task, part=part, doc=i, doc_hash=str(i), prompt_hash="p", value=value, answer="")
        for i, value in enumerate(values)
    ]


def test_differences_are_paired_and_subjects_count_alike():
    aligned = [*answered("mmlu", "a", [0, 0, 1, 1]), *answered("mmlu", "b", [0, 1])]
    expo = [*answered("mmlu", "a", [1, 0, 1, 1]), *answered("mmlu", "b", [1, 0])]
    (metric,) = open_llm.compare(expo, aligned, SelectConfig(resamples=500))
    assert (metric.metric, metric.n) == ("mmlu", 6)
    assert metric.value == pytest.approx((0.25 + 0) / 2)
    error = np.sqrt((0.5 / 2) ** 2 + (np.sqrt(2) / np.sqrt(2)) ** 2) / 2
    assert metric.standard_error == pytest.approx(error)
    assert (metric.low, metric.high) == pytest.approx((0.125 - 1.959964 * error, 0.125 + 1.959964 * error))
    assert metric.p_value == 1.0
    with pytest.raises(DataError, match="answered different documents"):
        open_llm.compare(expo[:-1], aligned, SelectConfig())


def test_an_incomplete_mmlu_is_refused(results):
    cut = results | {"group_subtasks": results["group_subtasks"] | {"mmlu_stem": ["mmlu_anatomy"]}}
    with pytest.raises(DataError, match="subjects instead of 57"):
        rows_of(cut, ["mmlu"])


def test_a_missing_dataset_is_named_with_the_command_that_gets_it(tmp_path):
    settings = OpenLlmBenchmark(tasks=["mmlu"], data=str(tmp_path))
    with pytest.raises(DataError, match="hf download --repo-type dataset cais/mmlu --local-dir"):
        gather(settings, 0, tmp_path / "data.json")
    (tmp_path / "mmlu").mkdir()
    with pytest.raises(DataError, match="has no data"):
        gather(settings, 0, tmp_path / "data.json")
    (tmp_path / "mmlu" / "anatomy").mkdir()
    (tmp_path / "mmlu" / "anatomy" / "test.jsonl").write_text("{}")
    (tmp_path / "mmlu" / ".cache").mkdir()
    (tmp_path / "mmlu" / ".cache" / "x.json").write_text("{}")
    assert local_files(settings) == [str(tmp_path / "mmlu" / "anatomy" / "test.jsonl")]


def test_missing_data_are_told_before_any_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = config(Path("nowhere"), tasks=["arc", "mmlu"], backend="vllm")
    wrong["reward_check"] = {"file": "none.jsonl"}
    with pytest.raises(ConfigError) as error:
        check_sources(parse(wrong))
    lines = [line for line in error.value.problems if not line.startswith("models.")]
    assert [line.partition(": ")[0] for line in lines] == [
        "benchmarks.open_llm.data",
        "benchmarks.open_llm.data",
        "benchmarks.open_llm.backend",
        "reward_check.file",
    ]
    assert "hf download --repo-type dataset allenai/ai2_arc" in lines[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tasks": ["arc", "arc"]}, "occurs twice"),
        ({"tasks": ["arcs"]}, "must be 'arc'"),
        ({"backend": "completions"}, "belong together"),
        ({"tasks": ["miniature_choice"]}, "need data: miniature"),
        ({"data": "miniature"}, "has only the miniature_ tasks"),
        ({"limit": 1}, "greater than or equal to 2"),
    ],
)
def test_bad_settings_are_named(settings, message):
    wrong = config(Path("x"))
    wrong["benchmarks"]["open_llm"] = settings
    with pytest.raises(ConfigError, match=message):
        parse(wrong)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    path = tmp_path_factory.mktemp("miniature")
    run_loop(sft, path / "model", seed=3, examples=600, epochs=3, progress=lambda line: None)
    settings = OpenLlmBenchmark(tasks=["miniature_choice", "miniature_answer"], data="miniature")
    gather(settings, 3, path / "data.json")
    return path


def test_the_miniatures_tasks_are_true_to_its_world(miniature, tmp_path):
    names = ["miniature_choice", "miniature_answer"]
    settings = OpenLlmBenchmark(tasks=names, data="miniature", chat_template=True)
    answers = rows_of(evaluate(miniature, settings), names)
    asked = [p for p in world.prompts("test", 3) if p.meta["task"] != "list"]
    assert len(answers) == 2 * len(asked)
    for prompt, row in zip(asked, answers[len(asked) :], strict=True):
        truth = world.truth(prompt.meta, row.answer.replace("<eos>", ""))
        assert row.value == truth.correct, row.answer
    assert 0 < sum(row.value for row in answers[len(asked) :]) < len(asked)

    documents = [
        json.loads(line) for line in (miniature / "data/miniature/choice/test.jsonl").read_text().splitlines()
    ]
    for prompt, document, row in zip(asked, documents, answers[: len(asked)], strict=True):
        assert document["choices"][document["label"]] == prompt.meta["core"]
        assert len(set(document["choices"])) == 4
        assert row.value == (int(np.argmax(row.answer)) == document["label"])
    ids, text = _tokens(miniature, asked[0], documents[0]["choices"][0])
    assert _log_likelihood(miniature, ids, text) == pytest.approx(answers[0].answer[0], abs=1e-3)


def _tokens(miniature, prompt, choice):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(miniature / "model")
    ids = Chat(tokenizer).token_ids(prompt.messages)
    return ids, tokenizer(choice, add_special_tokens=False).input_ids


def _log_likelihood(miniature, ids, text) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(miniature / "model")
    with torch.inference_mode():
        logits = model(torch.tensor([ids + text])).logits[0].log_softmax(-1)
    return sum(logits[len(ids) - 1 + i, token].item() for i, token in enumerate(text))


def test_the_miniatures_data_depend_on_the_seed_alone(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        miniature_files.write(tmp_path / name, seed)
    a, b, c = ((tmp_path / n / "miniature/choice/test.jsonl").read_text() for n in "abc")
    assert a == b != c


def test_a_task_that_is_given_up_ends_at_its_next_answer(folder):
    """A host closes a task whose job has gone: nothing goes on behind its back."""
    import threading

    from expoflow.benchmarks.lm_eval import backend
    from expoflow.hosts.task import Held

    datasets = read_json(folder / "data.json", TaskData).datasets
    settings = OpenLlmBenchmark(tasks=["arc", "hellaswag"], batch_size=1)
    task = asked(Model(folder=folder / "model"), settings, {n: d.folder for n, d in datasets.items()})
    held, before, heard = Held(), threading.active_count(), []
    work = backend.answer(held, task.model_dump(mode="json"))
    with progress.heard_by(lambda *said: heard.append(said)):
        first = [next(work)[0]["kept"]["request"] for _ in range(3)]
    assert len(set(first)) == 3
    choices = 4 * (data.SIZES["arc"] + data.SIZES["hellaswag"])
    assert heard == [(0, choices, "answers", "", 0)]
    work.close()
    assert threading.active_count() == before

    # the same model is still loaded, and what was told is not asked again
    loaded = held.get("lm_eval", task.key(), lambda: pytest.fail("loaded twice"))
    steps = list(backend.answer(held, task.model_dump(mode="json")))
    assert len(steps[-1]) == data.SIZES["arc"] + data.SIZES["hellaswag"]
    held.clear()
    assert not hasattr(loaded, "lm")
