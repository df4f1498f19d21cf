"""A CPU that is slow in 16-bit types computes in float32. The stand-in for one: oneDNN is told to use AVX2 alone."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import save, weights
from expoflow.system import processor
from small_models import LAYERS
from small_models import save as save_model
from transformers import LlamaConfig, LlamaForSequenceClassification

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="the stand-in is for x86")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What the program prints, and what it writes to its log."""
    root = tmp_path_factory.mktemp("slow")
    sft, aligned = weights(torch.bfloat16), weights(torch.bfloat16, seed=1)
    wide = {name: each.float() for name, each in aligned.items()}
    folders = [
        save(root / "sft", sft, dtype="bfloat16"),
        save(root / "aligned", aligned, dtype="bfloat16"),
        save(root / "wide", wide, dtype="float32"),
        save(root / "untyped", aligned),
        *judges(root),
    ]
    program = Path(__file__).with_name("slow_cpu.py")
    ran = subprocess.run(
        [sys.executable, program, *folders], env=os.environ | AVX2, capture_output=True, text=True, check=True
    )
    *said, last = ran.stdout.splitlines()
    return json.loads(last) | {"said": "\n".join(said)}


def judges(root: Path) -> list[Path]:
    """One classifier in bfloat16, and its weights in float32."""
    torch.manual_seed(0)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)
    config = LlamaConfig(**LAYERS, vocab_size=64, num_labels=1, **ids)
    model = LlamaForSequenceClassification(config).to(torch.bfloat16)
    folders = [save_model(model, root / "judge")]
    return [*folders, save_model(model.float(), root / "wide-judge")]


def test_what_is_stored_in_bfloat16_is_computed_in_float32(found):
    assert found["slow"]
    assert found["engine"] == "torch.float32"
    assert found["written"] == found["written in float32"]
    assert found["logps"] == found["logps in float32"]
    assert found["scores"] == found["scores in float32"]
    assert found["said"].count("this CPU is slow in bfloat16, so it computes in float32") == 2


def test_another_alpha_in_place_has_the_weights_as_they_are_stored(found):
    assert found["in place"] == [[False, True], [True, True], [True, True]]  # a second one keeps both models


def test_memory_is_counted_in_the_type_that_is_loaded(found):
    assert len({*found["bytes"]}) == 1


def test_other_work_on_the_machine_changes_no_answer():
    """Else the alphas of a sweep, each a job, would be computed in different types."""
    cores, threads = os.cpu_count() or 1, torch.get_num_threads()
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(cores)]
    try:
        torch.set_num_threads(max(2, cores))
        found = sorted(processor.slowness("bfloat16") for _ in range(100))
        assert torch.get_num_threads() == max(2, cores)
    finally:
        torch.set_num_threads(threads)
        for each in busy:
            each.kill()
            each.wait()
    assert found[-1] < 3 * found[50] < 9 * found[0]


def test_float32_is_never_slow():
    assert not processor.is_slow("float32")
    assert not processor.is_slow("auto")
