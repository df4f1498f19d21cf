"""GPUs as the driver tells of them: which there are, and whether a model fits into what is free there."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from checkpoints import write_holes
from expoflow import checks
from expoflow.checks import early
from expoflow.checks.machine import check_gpus, slow_engines
from expoflow.engines.memory import require_memory, room
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError, ConfigError, ExpoflowError
from expoflow.paths import Results
from expoflow.system import gpu_memory, gpus
from fake_gpus import Gpu, fake_gpus
from transformers import AutoConfig


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Make this process see GPUs."""

    def make(*shown: Gpu, visible: str | None = None) -> None:
        for name, value in fake_gpus(tmp_path / "gpus", *shown).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(gpus.metadata, "version", lambda name: "2.13.0")
        gpus._number.cache_clear()
        monkeypatch.delenv("CUDA_DEVICE_ORDER", raising=False)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    yield make
    gpus._number.cache_clear()


@pytest.fixture
def seventy(tmp_path) -> Model:
    """A model of 70B: 138 GB, none of it on disk."""
    return Model(folder=write_holes(tmp_path / "model", 138))


def test_a_model_is_spread_over_the_gpus_that_were_given(machine, seventy):
    machine(*[Gpu(79_000)] * 3, Gpu(79_000, mig="[N/A]"), visible="0,1,2,3")
    require_memory(seventy, gpus.given())
    with pytest.raises(
        CheckpointError, match=r"need 138.0 GB, NVIDIA H100 .GPU 1. has 82.8 GB free; take vLLM, which"
    ):
        require_memory(seventy, ["1"])


def test_the_fullest_gpu_decides(machine, seventy):
    machine(Gpu(79_000), Gpu(79_000), Gpu(30_000), Gpu(79_000), Gpu(100), visible="0,1,2,3")
    words = (
        r"need 34.5 GB on each of 4 GPUs, NVIDIA H100 .GPU 2. has 31.5 GB free; take more GPUs .* .gpus: N.."
    )
    with pytest.raises(CheckpointError, match=words):
        require_memory(seventy, gpus.given(), vllm=True)


def fullest(devices: list[str]) -> tuple[int, str] | None:
    """Free bytes of the fullest of them, and its name; None if they are not known."""
    return min(((free, name) for free, _, name in gpus.memory(devices)), default=None)


def test_a_uuid_names_a_gpu_and_so_does_its_beginning(machine):
    machine(Gpu(10), Gpu(20), Gpu(30))
    assert fullest(["GPU-1a", "GPU-2"]) == (20 << 20, "NVIDIA H100 (GPU GPU-1a)")
    assert fullest(["GPU-"]) is None  # more than one
    assert fullest(["GPU-1a", "7"]) is None


def test_what_the_driver_does_not_tell_is_left_to_the_engine(machine, seventy, monkeypatch, tmp_path):
    machine(Gpu(79_000, mig="Enabled"), Gpu("[N/A]"))
    for unknown in ("MIG-3", "0", "1"):
        assert fullest([unknown]) is None
        require_memory(seventy, [unknown])
    monkeypatch.setenv("PATH", str(tmp_path))
    require_memory(seventy, ["0"])


def test_gpus_of_several_kinds_have_other_numbers_in_cudas_own_order(machine, monkeypatch):
    machine(Gpu(10, "NVIDIA T4"), Gpu(20, "NVIDIA H100"))
    assert fullest(["0"]) is None
    assert fullest(["GPU-0a"]) == (10 << 20, "NVIDIA T4 (GPU GPU-0a)")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert fullest(["0"]) == (10 << 20, "NVIDIA T4 (GPU 0)")


def test_without_a_word_of_a_slot_or_a_cluster_the_first_gpu_is_taken(machine, monkeypatch):
    machine(Gpu(), Gpu())
    assert (gpus.gpus(), gpus.given(), gpus.allotted()) == (["0", "1"], ["0"], 1)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
    assert (gpus.given(), gpus.allotted()) == (["1", "0"], 2)


def test_the_smallest_is_one_of_those_that_may_be_used(machine, monkeypatch):
    machine(Gpu(total=4096, name="NVIDIA T400"), Gpu(total=40_960), Gpu(total=81_559))
    monkeypatch.setenv("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    assert gpu_memory.smallest(["1", "2"]) == 40_960 << 20
    monkeypatch.delenv("CUDA_DEVICE_ORDER")  # which is which is not clear then
    assert gpu_memory.smallest(["1", "2"]) == 4096 << 20
    assert gpu_memory.smallest(["GPU-1a", "GPU-2a"]) == 40_960 << 20
    assert gpu_memory.smallest(["MIG-1"]) is None
    assert gpu_memory.smallest([]) is None


def test_words_of_the_driver_among_the_rows_do_no_harm(machine, tmp_path):
    machine(Gpu(10), Gpu(20))
    with open(tmp_path / "gpus" / "rows", "ab") as rows:
        rows.write(b"\nWARNING: infoROM is corrupted at gpu 0000:08:00.0, \xff\n")
    program = tmp_path / "gpus" / "nvidia-smi"
    program.write_text(program.read_text() + "exit 14\n")
    assert gpus.gpus() == ["0", "1"]
    assert fullest(["1"]) == (20 << 20, "NVIDIA H100 (GPU 1)")


@pytest.mark.parametrize("answer", ["echo Driver/library version mismatch; exit 18", "kill -9 $$"])
def test_a_driver_that_fails_is_no_machine_without_gpus(machine, tmp_path, monkeypatch, answer):
    machine(Gpu())
    program = tmp_path / "gpus" / "nvidia-smi"
    program.write_text(f"#!{shutil.which('sh')}\n{answer}\n")
    assert gpus.gpus() == []
    gpus._number.cache_clear()
    monkeypatch.setattr(gpus, "DRIVER", program)
    with pytest.raises(
        ExpoflowError, match=r"nvidia-smi lists no GPU, although a driver is loaded \(.*\); repair the driver"
    ):
        gpus.gpus()


def test_gpus_that_cannot_be_are_refused(machine):
    machine(Gpu(), Gpu(), visible="0, 1,0")
    with pytest.raises(ExpoflowError, match="CUDA_VISIBLE_DEVICES=0, 1,0 names a GPU twice; name each once"):
        gpus.gpus()
    with pytest.raises(
        ExpoflowError, match="CUDA_VISIBLE_DEVICES names GPU 7, but there are 2 GPUs here; correct it"
    ):
        gpus.require_known(["1", "7"])
    gpus.require_known(["1", "GPU-0a", "MIG-3"])


def test_without_nvidia_smi_the_kernel_says_how_many_there_are(machine, monkeypatch, tmp_path):
    machine()
    devices = tmp_path / "dev"
    devices.mkdir()
    monkeypatch.setattr(gpus, "DEVICES", devices)
    monkeypatch.setenv("PATH", str(devices))
    assert gpus.gpus() == []
    assert gpus.none()
    gpus._number.cache_clear()
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (devices / name).touch()
    assert gpus.gpus() == ["0", "1"]
    assert fullest(["0"]) is None
    assert not gpus.none()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus.none()


def test_the_question_leaves_cuda_alone(machine, seventy):
    """What has used CUDA may not fork, and vLLM would start its workers in the slower way."""
    machine(Gpu(1), visible="0")
    program = (
        "import sys; from pathlib import Path; from expoflow.engines import answering, model\n"
        "try: answering.Loaded(model.Model(folder=Path(sys.argv[1])), 'vllm')\n"
        "except Exception as error: print(error, [name for name in ('torch', 'vllm') if name in sys.modules])"
    )
    command = [sys.executable, "-c", program, str(seventy.folder)]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "(GPU 0) has 0.0 GB free" in told
    assert told.endswith("[]\n")


LLAMA_2_7B = {
    "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
}  # fmt: skip
LLAMA_3_8B = LLAMA_2_7B | {"intermediate_size": 14336, "num_key_value_heads": 8}


@pytest.mark.parametrize(
    ("kind", "settings", "token"),
    [
        ("llama", LLAMA_2_7B, 524_288),  # bytes of a token's keys and values: half a megabyte
        ("llama", LLAMA_3_8B, 131_072),
        ("gpt2", {"n_embd": 4096, "n_layer": 32, "n_head": 32}, 524_288),
    ],
)
@pytest.mark.parametrize("free", [1e9, 7e9, 10e9, 65e9])
def test_what_a_gpu_holds_of_keys_and_values_follows_from_its_free_memory(kind, settings, token, free):
    found = room(AutoConfig.for_model(kind, **settings), 2, int(free))
    assert free / 9 < found * token < free * 2 / 3
    assert found.bit_count() == 1  # so that a run is repeated with the same batches


def test_a_model_without_attention_has_room_too():
    config = AutoConfig.for_model("mamba", hidden_size=4096, num_hidden_layers=32)
    assert room(config, 2, 10**10) > 1000
    assert room(config, 2, 0) == 1


OURS = {"path": "sft"}
PAIR = {
    "models": {"sft": OURS, "aligned": OURS},
    "pairs": {"pair": {"sft": "sft", "aligned": "aligned", "alphas": [0.5]}},
    "prompts": {"dev": {"file": "dev.jsonl"}},
    "select": {"by": "nll"},
}


def trained(recipe: str) -> dict:
    return {"train": {"recipe": recipe, "data": "miniature", **({"from": "sft"} if recipe == "dpo" else {})}}


@pytest.mark.parametrize(
    ("changed", "local", "cluster"),
    [
        ({}, True, True),
        ({"generate": {"engine": "transformers"}}, False, False),
        ({"models": {"sft": trained("sft"), "aligned": trained("dpo")}}, True, False),
        ({"models": {"sft": OURS, "aligned": OURS | {"resources": {"gpus": 0}}}}, True, True),
        ({"models": dict.fromkeys(("sft", "aligned"), OURS | {"resources": {"gpus": 0}})}, True, False),
    ],
)
def test_an_engine_that_nobody_chose_and_that_is_slow_is_told(machine, changed, local, cluster):
    config = checks.parse(PAIR | changed)
    assert slow_engines(config, local=True) == []
    machine(Gpu())
    for told, wanted in (
        (slow_engines(config, local=True), local),
        (slow_engines(config, local=False), cluster),
    ):
        assert [line for line in told if "pip install 'expoflow[gpu]'" in line] == told
        assert bool(told) == wanted


BEGIN = """
import json, os, sys
from expoflow import checks
from expoflow.project.begin import begin, look
config = checks.parse(json.loads(sys.argv[1]))
look(config, sys.argv[2:])
if "-n" not in sys.argv:
    begin(config, sys.argv[2:], os.getcwd(), cores=1)
"""
MINI = PAIR | {
    "models": {"sft": trained("sft"), "aligned": trained("dpo")},
    "prompts": {"dev": {"miniature": "dev"}},
}


@pytest.mark.parametrize("command", [["--cores", "1"], ["--cores", "1", "-n"]], ids=["run", "dry run"])
def test_a_run_and_a_dry_run_say_that_once(machine, tmp_path, command):
    machine(Gpu())
    done = [sys.executable, "-c", BEGIN, json.dumps(MINI), *command]
    told = subprocess.run(done, capture_output=True, text=True, cwd=tmp_path, check=True).stderr
    assert told.count("WARNING: vllm is not installed") == 1


@pytest.mark.parametrize(
    ("models", "warned"), [(MINI["models"], False), ({**MINI["models"], "rm": {"hub": "org/rm-7b"}}, True)]
)
def test_expoflow_plan_says_it_where_jobs_go_to_a_cluster(tmp_path, models, warned):
    """No GPU is here, but sbatch and the folder's profile are."""
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm/profile.yaml").touch()
    sbatch = tmp_path / "bin" / "sbatch"
    sbatch.parent.mkdir()
    sbatch.touch(mode=0o755)
    (tmp_path / "config.yaml").write_text(json.dumps({**MINI, "models": models}))
    done = subprocess.run(
        [sys.executable, "-m", "expoflow.cli", "plan", "--offline", "--configfile", tmp_path / "config.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | {"PATH": f"{sbatch.parent}:{os.environ['PATH']}"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("WARNING: vllm is not installed") == warned


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """Have a vLLM of this version installed."""

    def install(version: str) -> None:
        info = tmp_path / "site" / f"vllm-{version}.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Name: vllm\nVersion: {version}\n")
        (tmp_path / "site" / "vllm.py").touch()
        monkeypatch.syspath_prepend(tmp_path / "site")

    return install


BY_VLLM = MINI | {"generate": {"engine": "vllm", "prompts": "dev"}}


def test_vllm_without_a_gpu_is_refused_before_any_job(vllm, monkeypatch):
    vllm("0.32.0")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    models = MINI["models"] | {"rm": trained("reward")}
    by_both = BY_VLLM | {"models": models, "reward_model": "rm", "score": {"engine": "vllm"}}
    with pytest.raises(ConfigError) as refused:
        check_gpus(checks.parse(by_both), local=True)
    assert refused.value.problems == [
        f"{where}.engine: vllm needs a GPU, and this machine has none; take auto, or run it on a machine with a GPU, as by --profile slurm"
        for where in ("generate", "score")
    ]
    with pytest.raises(
        ConfigError, match=r"jobs of 'aligned' ask for none; set models.aligned.resources: .gpus: 1"
    ):
        check_gpus(checks.parse(BY_VLLM), local=False)
    check_gpus(checks.parse(MINI), local=True)
    wide = {name: each | {"resources": {"gpus": 1}} for name, each in MINI["models"].items()}
    check_gpus(checks.parse(BY_VLLM | {"models": wide}), local=False)


def test_it_is_not_where_a_gpu_may_be_or_nothing_is_left_to_do(vllm, machine, monkeypatch, tmp_path):
    vllm("0.32.0")
    config = checks.parse(BY_VLLM)
    machine(Gpu())
    check_gpus(config, local=True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    results = Results.of(tmp_path)
    for alpha in config.pairs["pair"].grid():
        made = results.generations("pair", alpha, "dev")
        made.parent.mkdir(parents=True)
        made.touch()
    check_gpus(config, local=True, results=results)


def test_nor_with_vllms_cpu_build(vllm, monkeypatch):
    vllm("0.32.0+cpu")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    check_gpus(checks.parse(BY_VLLM), local=True)


def test_a_training_on_more_gpus_than_there_are_is_refused_before_any_job(machine, tmp_path):
    models = {"sft": {"path": "sft"}, "rm": trained("reward")}
    models["dpo"] = {"train": {"recipe": "dpo", "from": "sft", "data": "rows", "accelerate": "zero3"}}
    pairs = {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [0.3]}}
    config = checks.parse(
        MINI | {"models": models, "pairs": pairs, "datasets": {"rows": {"file": "rows.jsonl"}}}
    )
    check_gpus(config, local=True)  # on a CPU
    machine(Gpu(), Gpu())
    with pytest.raises(ConfigError) as refused:
        check_gpus(config, local=True)
    assert refused.value.problems == [
        "models.dpo.train.accelerate: 'zero3' starts 4 processes, each on a GPU, but this machine has 2; set num_processes in a copy of it"
    ]
    check_gpus(config, local=False)
    results = Results.of(tmp_path)
    results.manifest("dpo").parent.mkdir(parents=True)
    results.manifest("dpo").touch()
    check_gpus(config, local=True, results=results)


@pytest.mark.parametrize(
    ("shape", "said", "fine"),
    [
        ({"num_attention_heads": 32, "num_key_value_heads": 8}, 3, "32 heads, 8 key-value heads); take one of 1, 2, 4, 8"),
        ({"num_attention_heads": 40, "intermediate_size": 13824}, 5, "40 heads, intermediate size 13824); take one of 1, 2, 4, 8"),
        ({"num_attention_heads": 40, "num_key_value_heads": 8}, 5, "take one of 1, 2, 4, 8"),
        ({"num_attention_heads": 28, "num_key_value_heads": 4}, 8, "take one of 1, 2, 4"),
        ({"num_attention_heads": 71, "multi_query": True}, 4, "71 heads, 1 key-value heads); take one of 1"),
        ({"num_attention_heads": 128, "num_key_value_heads": 5, "kv_lora_rank": 512}, 8, None),
        ({"num_attention_heads": 48, "num_key_value_heads": 1}, 3, None),
        ({}, 3, None),
    ],
)  # fmt: skip
def test_gpus_that_a_model_cannot_be_spread_over_are_refused_before_any_job(tmp_path, shape, said, fine):
    (tmp_path / "config.json").write_text(json.dumps(shape))
    models = {"sft": {"path": "sft", "resources": {"gpus": said}}, "aligned": {"path": "aligned"}}
    for engine in ("vllm", "transformers"):
        config = checks.parse(MINI | {"models": models, "generate": {"engine": engine, "prompts": "dev"}})
        found = [*early._spread_problems(config, {"sft": tmp_path})]
        assert len(found) == (engine == "vllm" and fine is not None)
        for line in found:
            assert line.startswith(f"models.sft.resources: gpus: {said} cannot share the model evenly")
            assert line.endswith(fine)
