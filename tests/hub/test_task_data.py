"""Datasets of lm-eval's tasks and preferences from the hub: pinned to a commit, without what nobody reads."""

import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from expoflow.benchmarks.lm_eval.data import TaskData
from expoflow.benchmarks.lm_eval.files import Plan
from expoflow.benchmarks.mt_bench import files as mt_bench_files
from expoflow.config.benchmarks import SECTIONS, MtBenchBenchmark, RewardCheck
from expoflow.data.preferences import Preference
from expoflow.files.records import read_json, read_jsonl
from expoflow.miniature import mt_bench

PROGRAM = """
import sys
from pathlib import Path
from expoflow import benchmarks
from expoflow.config.benchmarks import SECTIONS
from expoflow.errors import DataError
name, source, result = sys.argv[1:]
try:
    benchmarks.light(name, "gather")(SECTIONS[name].model_validate_json(source), 0, Path(result))
except DataError as error:
    sys.exit(f"error: {error}")
"""


def prepare(user, *tasks: str, benchmark: str = "open_llm") -> subprocess.CompletedProcess:
    config = SECTIONS[benchmark](tasks=list(tasks))
    command = [sys.executable, "-c", PROGRAM, benchmark, config.source(), str(user.folder / "data.json")]
    return subprocess.run(command, env=user.environment(), cwd=user.folder, capture_output=True, text=True)


@pytest.fixture
def commit(hub, tmp_path) -> str:
    folder = tmp_path / "dataset"
    for name in ("README.md", "anatomy/test.parquet", "auxiliary_train/train.parquet", "data.tar"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return hub.add("datasets/cais/mmlu", folder)


def test_a_dataset_comes_once_and_with_its_commit(user, hub, commit):
    run = prepare(user, "mmlu")
    assert run.returncode == 0, run.stderr
    data = read_json(user.folder / "data.json", TaskData)
    assert data.datasets["cais/mmlu"].revision == commit
    assert set(data.datasets["cais/mmlu"].files) == {"README.md", "anatomy/test.parquet"}
    assert hub.sent["anatomy/test.parquet"] == len("anatomy/test.parquet")
    assert not hub.sent["auxiliary_train/train.parquet"]
    assert not hub.sent["data.tar"]
    content = data.content()
    assert prepare(user, "mmlu").returncode == 0
    assert hub.sent["anatomy/test.parquet"] == len("anatomy/test.parquet")
    assert read_json(user.folder / "data.json", TaskData).content() == content


def test_wrong_bytes_of_a_dataset_are_refused_and_a_cut_connection_is_resumed(user, hub, commit):
    hub.fault("/large/.*test.parquet", times=2, change=True)
    run = prepare(user, "mmlu")
    assert run.returncode == 1
    assert "anatomy/test.parquet came with 20 bytes, sha256 " in run.stderr.strip().splitlines()[-1]
    assert not (user.folder / "data.json").exists()
    hub.fault("/large/.*test.parquet", cut=5)
    before = hub.sent["anatomy/test.parquet"]
    assert prepare(user, "mmlu").returncode == 0
    assert hub.sent["anatomy/test.parquet"] == before + len("anatomy/test.parquet")


def test_any_task_of_lm_eval_is_written_down_with_its_datas_commit(user, hub, tmp_path):
    pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install 'expoflow[bench]'")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "ifeval_input_data.jsonl").write_text("{}\n")
    (tmp_path / "set" / "picture.png").write_text("not read")
    commit = hub.add("datasets/google/IFEval", tmp_path / "set")
    run = prepare(user, "ifeval", benchmark="lm_eval")
    assert run.returncode == 0, run.stderr
    plan = read_json(user.folder / "data.json", Plan)
    assert plan.datasets["google/IFEval"].revision == commit
    assert set(plan.datasets["google/IFEval"].files) == {"ifeval_input_data.jsonl"}
    assert not hub.sent["picture.png"]
    (task,) = plan.tasks
    assert (task.task, plan.told[0].parts) == ("ifeval", ("ifeval",))
    assert task.settings == {"dataset_path": plan.datasets["google/IFEval"].folder}
    run = prepare(user, "mmlu_pro", benchmark="lm_eval")
    assert (
        run.stderr.strip()
        .splitlines()[-1]
        .startswith("error: dataset 'TIGER-Lab/MMLU-Pro': cannot be fetched from the hub")
    )


QUESTIONS = """
import sys
from pathlib import Path
from expoflow.benchmarks.mt_bench import files
from expoflow.config.benchmarks import MtBenchBenchmark
from expoflow.errors import DataError
from expoflow.files.records import write_json
try:
    write_json(Path("q.json"), files.questions(MtBenchBenchmark(hub=sys.argv[1]), 0))
except DataError as error:
    sys.exit(f"error: {error}")
"""


def test_mt_benchs_files_from_a_dataset_of_the_hub(user, hub, tmp_path):
    mt_bench.write(tmp_path / "set" / "data", 0)
    (tmp_path / "set" / "data" / "answers.jsonl").write_text("{}")
    hub.add("datasets/org/mt", tmp_path / "set")
    command = [sys.executable, "-c", QUESTIONS]
    settings = {"env": user.environment(), "cwd": user.folder, "capture_output": True, "text": True}
    run = subprocess.run([*command, "org/mt"], **settings)
    assert run.returncode == 0, run.stderr
    expected = mt_bench_files.questions(MtBenchBenchmark(data=str(tmp_path / "set")), 0)
    assert read_json(user.folder / "q.json", mt_bench_files.Questions) == expected
    assert not hub.sent["data/answers.jsonl"]
    run = subprocess.run([*command, "org/none"], **settings)
    assert (
        run.stderr.strip()
        .splitlines()[-1]
        .startswith("error: mt_bench: dataset 'org/none' cannot be fetched")
    )


def test_a_dataset_that_the_hub_lacks_is_named(user, commit):
    run = prepare(user, "mmlu", "gsm8k")
    assert run.returncode == 1
    assert (
        run.stderr.strip()
        .splitlines()[-1]
        .startswith("error: dataset 'openai/gsm8k': cannot be fetched from the hub")
    )
    assert "Traceback" not in run.stderr
    assert not (user.folder / "data.json").exists()


PREFERENCES = """
import sys
from pathlib import Path
from expoflow.data import preferences
from expoflow.config.benchmarks import RewardCheck
from expoflow.errors import DataError
from expoflow.files.records import write_jsonl
try:
    write_jsonl(Path(sys.argv[2]), preferences.gather(RewardCheck.model_validate_json(sys.argv[1]), 0))
except DataError as error:
    sys.exit(f"error: {error}")
"""
ROWS = [
    {"prompt": "a?", "chosen": "yes", "rejected": "no", "subset": "donotanswer", "id": 1},
    {"prompt": "b?", "chosen": "no", "rejected": "yes", "subset": "math-prm", "id": 2},
]


@pytest.fixture
def preferences(hub, tmp_path) -> str:
    """A dataset with the columns and splits of RewardBench's."""
    folder = tmp_path / "rewardbench"
    (folder / "data").mkdir(parents=True)
    for split in ("raw", "filtered"):
        table = pa.Table.from_pylist(ROWS if split == "filtered" else ROWS[:1])
        pq.write_table(table, folder / "data" / f"{split}-00000-of-00001.parquet")
    files = [{"split": split, "path": f"data/{split}-*"} for split in ("raw", "filtered")]
    head = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
    (folder / "README.md").write_text(f"---\n{head}---\n")
    return hub.add("datasets/allenai/reward-bench", folder)


def gather(user, **settings) -> subprocess.CompletedProcess:
    config = RewardCheck(hub="allenai/reward-bench", subset="subset", **settings)
    command = [sys.executable, "-c", PREFERENCES, config.canonical(), str(user.folder / "p.jsonl")]
    return subprocess.run(command, env=user.environment(), cwd=user.folder, capture_output=True, text=True)


def test_rewardbenchs_own_set(user, preferences):
    run = gather(user, split="filtered", revision=preferences)
    assert run.returncode == 0, run.stderr
    found = read_jsonl(user.folder / "p.jsonl", Preference)
    assert [(each.messages[0].content, each.chosen, each.subset) for each in found] == [
        ("a?", "yes", "donotanswer"),
        ("b?", "no", "math-prm"),
    ]


def test_a_split_that_is_not_there_is_named(user, preferences):
    run = gather(user, split="train")
    assert run.returncode == 1
    assert (
        run.stderr.strip()
        .splitlines()[-1]
        .startswith("error: dataset 'allenai/reward-bench': split 'train' cannot be read")
    )
    assert not (user.folder / "p.jsonl").exists()
