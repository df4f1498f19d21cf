"""Time and disk of a run, told before its first job."""

import importlib.util
import os
import re
import shutil
from collections import namedtuple
from importlib import metadata
from pathlib import Path

import pytest
from expoflow import checks
from expoflow.benchmarks import bill
from expoflow.engines import generate
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


def test_what_the_store_has_converted_is_known_by_its_whole_name(tmp_path):
    sparse(tmp_path / "llama/pytorch_model.bin", 10 * GB)
    (tmp_path / "llama/config.json").write_text("{}")
    asked = config(models={"sft": {"path": "llama"}, "dpo": {"path": "llama"}})
    (tmp_path / f"store/converted/llama-7b-{'a' * 16}").mkdir(parents=True)
    assert sums(asked)["converted pickles"] == 20
    (tmp_path / f"store/converted/llama-{'0' * 16}").mkdir()
    assert "converted pickles" not in sums(asked)


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
    assert str(refused.value).startswith("nothing was done:\ndisk: 42.0 GB will be written to the disk of ")
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
    assert ", some guessed from names)" in line


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
    arithmetic = 0.5 * 312e12 / 14e9  # prompts of 1,024 tokens are read at once
    responses = 4 * prompts * 100  # alphas -1, 0, 0.1 and 0.2
    hours = responses * (1000 / rate + 1024 / arithmetic) / 3600
    assert line.startswith(
        f"time: {hours:.1f} GPU hours of generation and scoring if no response ends early (estimated for vLLM (transformers takes many times as long), as on A100s of 80 GB"
    )
    assert 2 < hours < 10


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this machine seem to have GPUs."""

    def make(*names):
        version = metadata.version
        monkeypatch.setattr(metadata, "version", lambda name: version(name).partition("+")[0])
        for name, value in fake_gpus(
            tmp_path / "gpus", *(Gpu(name=name, total=143_771) for name in names)
        ).items():
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
        r"time: \d+ GPU minutes .*\(estimated.*, NVIDIA H200\).*, \d+ minutes? on the 2 GPUs here;",
        line,
    )


def test_a_card_that_nobody_knows_is_not_reckoned_with(machine):
    machine("NVIDIA B999")
    asked = config()
    assert throughput.lines(asked, made(asked), local=True) == [
        "time: not known for NVIDIA B999; the first run here measures it"
    ]


@pytest.mark.parametrize(
    ("said", "mebibytes", "name"),
    [
        ("NVIDIA A100-SXM4-80GB", 81_920, "A100"),
        ("NVIDIA A100-SXM4-40GB", 40_960, "A100-SXM4-40GB"),
        ("NVIDIA H100 80GB HBM3", 81_559, "H100"),
        ("NVIDIA H200 NVL", 143_771, "H200 NVL"),
        ("NVIDIA L40S", 46_068, "L40S"),
        ("NVIDIA A10G", 23_028, "A10G"),
        ("Tesla V100-SXM2-16GB", 16_160, "V100-SXM2-16GB"),
        ("Tesla V100-SXM3-32GB", 32_768, "V100"),
        ("NVIDIA RTX A4000", 16_376, None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", 16_376, None),
        ("GRID A100-20C", 20_480, None),
    ],
)
def test_cards_are_known_by_their_names_and_memory(said, mebibytes, name):
    found = throughput._card(said, mebibytes << 20)
    assert (found and found.name) == name


@pytest.fixture
def swept(tmp_path, monkeypatch):
    """Make a sweep of 800 responses of 100 tokens, whose two jobs each took 60.5 s, and 50 s of them at the same time."""
    sizes = {"sft": 14 * GB, "dpo": 14 * GB}
    for name, size in sizes.items():
        sparse(tmp_path / name / "model.safetensors", size)
        (tmp_path / name / "config.json").write_text("{}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def make(engine="transformers", log="", **given):
        asked = config(models={name: {"path": name} for name in sizes}, **given)
        for at, alpha in enumerate(asked.pairs["p"].grid()):
            rows = [
                Generation(
                    prompt_id="a",
                    sample=sample,
                    seed=1,
                    response="x",
                    response_tokens=100,
                    finish_reason="stop",
                    engine=engine,
                )
                for sample in range(400)
            ]
            path = Results().generations("p", alpha, "dev")
            write_jsonl(path, rows)
            os.utime(path, (10**9 + 10.5 * at,) * 2)
            times = Results().generation_times("p", alpha, "dev")
            times.parent.mkdir(parents=True, exist_ok=True)
            times.write_text("s\th:m:s\tmax_rss\n60.5\t0:01:00\t9\n")
            times.with_suffix(".log").write_text(log)
        return asked

    return make


def speeds():
    return read_jsonl(throughput.place(), throughput.Speed) if throughput.place().exists() else []


def of_another(asked, **given):
    """What is told of the same models on prompts that have no responses yet."""
    again = config(
        models={name: {"path": name} for name in asked.models},
        prompts={"other": {"miniature": "dev"}},
        **{**given, "generate": {"max_tokens": 1000, "prompts": "other", **given.get("generate", {})}},
    )
    prompts = made(again).prompts["other"][0]
    (line,) = throughput.lines(again, made(again), local=True)
    return line, prompts


def test_this_machines_own_runs_count_instead(swept):
    asked = swept()
    throughput.remember(asked, since=2**40, local=True)  # nothing was made after that
    throughput.remember(asked, since=0, local=False)  # on a cluster's nodes
    assert not throughput.place().exists()
    throughput.remember(asked, since=0, local=True)
    (speed,) = speeds()
    # jobs wait for each other: what they took together is 71 s, not 121
    assert (speed.tokens, speed.responses, speed.weights) == (80000, 800, 14 * GB)
    assert speed.seconds == pytest.approx(71)
    line, prompts = of_another(asked)
    hours = 4 * prompts * 1000 / (80000 / 71) / 3600
    assert (
        f"time: {throughput._time(hours)} of generation and scoring if no response ends early (by earlier runs here, "
        in line
    )
    assert " cores); trainings, likelihoods, downloads and judges come on top" in line


def test_a_job_that_was_cut_off_is_known_by_what_it_says():
    assert throughput.RESUMED in Path(generate.__file__).read_text()


@pytest.mark.parametrize(
    "given",
    [{"limit": 4}, {"log": f"100 {throughput.RESUMED}\n"}],
    ids=["a rehearsal", "a run that was cut off"],
)
def test_what_says_nothing_of_a_run_is_not_kept(swept, given):
    throughput.remember(swept(**given), since=0, local=True)
    assert speeds() == []


def test_what_a_cut_off_run_says_is_what_is_looked_for():
    assert throughput.RESUMED in Path(generate.__file__).read_text()


@pytest.mark.parametrize(
    ("given", "by"),
    [
        ({}, "by earlier runs here"),
        ({"generate": {"samples": 100}}, "estimated"),  # of many responses a few say little
    ],
)
def test_speeds_of_runs_that_are_not_alike_do_not_count(swept, given, by):
    asked = swept()
    throughput.remember(asked, since=0, local=True)
    assert f"({by}, " in of_another(asked, **given)[0]


def test_speeds_of_another_engine_do_not_count(swept):
    asked = swept(engine="vllm")
    throughput.remember(asked, since=0, local=True)
    assert len(speeds()) == 1
    assert "(estimated, " in of_another(asked)[0]


def test_gpus_that_worked_at_the_same_time_count_each(swept, machine, monkeypatch):
    machine("NVIDIA H200", "NVIDIA H200")
    throughput.remember(swept(), since=0, local=True)
    assert [(speed.device, speed.gpus) for speed in speeds()] == [("NVIDIA H200", 1)]
    assert speeds()[0].seconds == pytest.approx(142)


def test_nothing_is_told_of_what_is_done():
    asked = config()
    for alpha in asked.pairs["p"].grid():
        Results().generations("p", alpha, "dev").parent.mkdir(parents=True)
        Results().generations("p", alpha, "dev").touch()
    assert throughput.lines(asked, made(asked), local=False) == []


def test_a_rehearsal_counts_what_it_asks():
    judge = {"model": "j", "prices": {"j": {"input": 10, "output": 10}}}
    asked = config(
        benchmarks={
            "mt_bench": {"hub": "org/mt", "judge": judge},
            "alpaca_eval": {"hub": "tatsu-lab/alpaca_eval", "judge": judge, "generate": {"max_tokens": 300}},
        }
    )
    whole, first = ({}, {})
    for found, limit in ((whole, None), (first, 4)):
        part = asked.model_copy(update={"limit": limit})
        found["bill"] = {line.split()[1]: line.split()[2] for line in bill.lines(part)}
        found["responses"] = {
            each[0]: each[1:] for each in estimate.benchmark_responses(part, "p", made(part))
        }
    assert whole["bill"] == {"mt_bench:": "480", "alpaca_eval:": "2415"}
    assert first["bill"] == {"mt_bench:": "24", "alpaca_eval:": "12"}
    assert whole["responses"] == {"mt_bench": (160, 1024), "alpaca_eval": (805, 300)}
    assert first["responses"] == {"mt_bench": (8, 1024), "alpaca_eval": (4, 300)}


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


def test_a_bill_is_that_of_calls_that_are_answered_at_once():
    judge = {"model": "j", "prices": {"j": {"input": 10, "output": 10}}}
    asked = config(benchmarks={"mt_bench": {"hub": "org/mt", "judge": judge}})
    (line,) = bill.lines(asked)
    assert line.endswith(" USD without repeated ones), minus the verdicts that are kept")
