"""Time and disk of a run, told before its first job."""

import importlib.util
import os
import re
import shutil
from collections import namedtuple
from importlib import metadata

import pytest
from expoflow import checks
from expoflow.benchmarks import bill
from expoflow.errors import ExpoflowError
from expoflow.files.records import read_jsonl, write_jsonl
from expoflow.paths import Results
from expoflow.project import begin, disk, estimate, throughput
from expoflow.results import Generation
from expoflow.system import gpus
from fake_gpus import Gpu, fake_gpus

GB = 10**9
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def own_places(tmp_path, monkeypatch):
    monkeypatch.setenv("EXPOFLOW_STORE", str(tmp_path / "store"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)


def config(**given):
    models = {"sft": {"hub": "org/sft-7b"}, "dpo": {"hub": "org/dpo-7b"}}
    pair = {"sft": "sft", "aligned": "dpo", "alphas": [0.1, 0.2]}
    data = {"models": models, "pairs": {"p": pair}, "prompts": {"dev": {"miniature": "dev"}}}
    return checks.parse({**data, "generate": {"max_tokens": 1000}, **given})


def made(asked):
    return estimate.plan(asked, online=False)


def free(monkeypatch, size):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(size * 2, size, size))


def sparse(path, size):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.truncate(path, int(size))


def sums(asked):
    found = {}
    for part in disk.parts(asked, made(asked)):
        found[part.what] = found.get(part.what, 0) + part.size / GB
    return found


def test_what_is_to_come_is_summed_and_what_is_there_is_not(tmp_path):
    asked = config()
    assert sums(asked) == {"downloads": 28, "the sweep's models": 28, "exported models": 14}
    sparse(tmp_path / "hub/models--org--sft-7b/blobs/a", 10 * GB)
    sparse(tmp_path / "hub/models--org--sft-7b/blobs/b.incomplete", 2 * GB)
    Results().recipe("p", "0.2").parent.mkdir(parents=True)
    Results().recipe("p", "0.2").touch()
    assert sums(asked) == {"downloads": 16, "the sweep's models": 14, "exported models": 14}
    Results().exported_recipe("p").parent.mkdir(parents=True)
    Results().exported_recipe("p").touch()
    assert "exported models" not in sums(asked)
    assert sums(config(extrapolate={"weights": "streamed"}))["the sweep's models"] == 0


def test_checkpoints_of_a_training_count_less_those_that_are_there(tmp_path):
    models = {
        "base": {"hub": "org/base-7b"},
        "dpo": {"train": {"recipe": "dpo", "from": "base", "data": "rows"}},
    }
    rows = {"rows": {"hub": "org/rows", "split": "train"}}
    asked = config(
        models=models, datasets=rows, pairs={"p": {"sft": "base", "aligned": "dpo", "alphas": [0.1]}}
    )
    assert sums(asked)["checkpoints of a training"] == 14 * 15
    assert sums(asked)["trained models"] == 14
    sparse(tmp_path / "results/models/.dpo.training/checkpoint-1/model.bin", 100 * GB)
    assert sums(asked)["checkpoints of a training"] == 14 * 15 - 100


def test_what_surely_does_not_fit_is_refused(tmp_path, monkeypatch):
    for name in ("sft", "dpo"):
        sparse(tmp_path / name / "model.safetensors", 14 * GB)
        (tmp_path / name / "config.json").write_text("{}")
    asked = config(models={"sft": {"path": "sft"}, "dpo": {"path": "dpo"}})
    free(monkeypatch, 41 * GB)  # two of the sweep and the exported one: 42 GB
    with pytest.raises(ExpoflowError) as refused:
        disk.check(asked, made(asked), refuse=True)
    assert str(refused.value).startswith("nothing was done:\ndisk: 42.0 GB to come on the disk of ")
    assert (
        "(the sweep's models 28.0, exported models 14.0), 41.0 GB are free; free space, or write extrapolate"
        in str(refused.value)
    )
    (line,) = disk.check(asked, made(asked), refuse=False)
    assert line.startswith("WARNING: disk: ")
    free(monkeypatch, 45 * GB)
    (tight,) = disk.check(asked, made(asked), refuse=True)
    assert tight.startswith("WARNING: disk: 42.0 GB")
    free(monkeypatch, 50 * GB)
    (line,) = disk.check(asked, made(asked), refuse=True)
    assert line.startswith("disk: 42.0 GB")
    assert line.endswith("50.0 GB are free")


def test_a_guess_is_no_reason_to_refuse(monkeypatch):
    asked = config()
    free(monkeypatch, 10 * GB)
    (line,) = disk.check(asked, made(asked), refuse=True)
    assert line.startswith("WARNING: disk: 70.0 GB")
    assert ", some guessed by names)" in line


def test_the_miniature_has_nothing_to_say(tmp_path):
    train = {"sft": {"train": {"recipe": "sft", "data": "miniature"}}}
    train["dpo"] = {"train": {"recipe": "dpo", "from": "sft", "data": "miniature"}}
    assert begin.costs(config(models=train), local=True, online=False, refuse=True) == []


def test_a_size_that_nobody_knows_does_not_keep_a_run_from_beginning():
    asked = config(models={"sft": {"hub": "org/a"}, "dpo": {"hub": "org/b"}})
    (line,) = begin.costs(asked, local=True, online=False, refuse=True)
    assert line.startswith("time and disk are not known: ")


def test_gpu_hours_are_reckoned_by_the_cards_figures():
    asked = config(generate={"max_tokens": 1000, "samples": 100, "engine": "transformers"})
    (line,) = throughput.lines(asked, made(asked), local=False)
    prompts = made(asked).prompts["dev"][0]
    # 7B: 14 GB of weights, 131,072 bytes a token; (0.92 x 80 - 14 - 2) GB hold 217 responses of 2,024 tokens, and a token
    # of all of them reads 14 GB + 217 x 0.133 GB at half of 1,935 GB/s.
    batch = (0.92 * 80e9 - 16e9) / (131072 * 2024)
    rate = batch * 0.5 * 1.935e12 / (14e9 + batch * 131072 * 2024 / 2)
    hours = 4 * prompts * 100 * 1000 / rate / 3600  # alphas -1, 0, 0.1 and 0.2
    assert line.startswith(
        f"time: at most {hours:.1f} GPU hours of generation and scoring (reckoned for vLLM (transformers takes many times as long), as on A100s of 80 GB"
    )
    assert 2 < hours < 10


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this machine seem to have GPUs."""

    def make(*names):
        version = metadata.version
        monkeypatch.setattr(metadata, "version", lambda name: version(name).partition("+")[0])
        for name, value in fake_gpus(tmp_path / "gpus", *(Gpu(name=name) for name in names)).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        gpus._number.cache_clear()

    yield make
    gpus._number.cache_clear()


def test_the_gpus_of_this_machine_count(machine):
    machine("NVIDIA H200", "NVIDIA H200")
    asked = config()
    (line,) = throughput.lines(asked, made(asked), local=True)
    assert re.search(
        r"at most [.\d]+ GPU hours .*\(reckoned.*, NVIDIA H200\).*, [.\d]+ hours on the 2 GPUs here;", line
    )


def test_a_card_that_nobody_knows_is_not_reckoned_with(machine):
    machine("NVIDIA B999")
    asked = config()
    assert throughput.lines(asked, made(asked), local=True) == [
        "time: not known for NVIDIA B999; the first run here measures it"
    ]


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", "A100"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA L40S", "L40S"),
        ("NVIDIA A10G", "A10G"),
        ("NVIDIA RTX A4000", None),
    ],
)
def test_cards_are_known_by_their_names(said, name):
    found = throughput._card(said)
    assert (found and found.name) == name


def test_this_machines_own_runs_count_instead(tmp_path, monkeypatch):
    sizes = {"sft": 14 * GB, "dpo": 14 * GB}
    for name, size in sizes.items():
        sparse(tmp_path / name / "model.safetensors", size)
        (tmp_path / name / "config.json").write_text("{}")
    asked = config(models={name: {"path": name} for name in sizes})
    for alpha in ("-1", "0", "0.1", "0.2"):
        rows = [
            Generation(
                prompt_id="a",
                sample=at,
                seed=1,
                response="x",
                response_tokens=100,
                finish_reason="stop",
                engine="vllm",
            )
            for at in range(4)
        ]
        write_jsonl(Results().generations("p", alpha, "dev"), rows)
        log = Results().generation_times("p", alpha, "dev")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("s\th:m:s\tmax_rss\n20.5\t0:00:20\t9\n")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    throughput.remember(asked, since=2**40, local=True)  # nothing was made after that
    throughput.remember(asked, since=0, local=False)  # on a cluster's nodes
    assert not throughput.place().exists()
    throughput.remember(asked, since=0, local=True)
    (speed,) = read_jsonl(throughput.place(), throughput.Speed)
    assert (speed.tokens, speed.responses, speed.seconds, speed.weights) == (800, 8, 41.0, 14 * GB)
    again = config(
        models={name: {"path": name} for name in sizes},
        generate={"max_tokens": 1000, "seed": 1, "prompts": "other"},
        prompts={"other": {"miniature": "dev"}},
    )
    (line,) = throughput.lines(again, made(again), local=True)
    prompts = made(again).prompts["other"][0]
    hours = 4 * prompts * 1000 / (800 / 41) / 3600
    said = f"at most {throughput._hours(hours)} hours of generation and scoring (by earlier runs here, "
    assert said in line
    assert " cores)" in line


def test_nothing_is_told_of_what_is_done():
    asked = config()
    for alpha in asked.pairs["p"].grid():
        Results().generations("p", alpha, "dev").parent.mkdir(parents=True)
        Results().generations("p", alpha, "dev").touch()
    assert throughput.lines(asked, made(asked), local=False) == []


def test_a_bill_without_the_benchmarks_package_is_not_known_and_asks_nobody(monkeypatch):
    asked = config(benchmarks={"alpaca_eval": {"hub": "tatsu-lab/alpaca_eval"}})
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "alpaca_eval" else found(name)
    )
    assert [*bill.lines(asked)] == [
        "bill: alpaca_eval: not known without alpaca_eval; pip install 'expoflow[bench]'"
    ]
    assert estimate.lines(made(asked))
