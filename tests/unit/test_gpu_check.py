"""bench/gpu.sh where there is no GPU: every step, in tiny, on the CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "bench" / "gpu.sh"
NO_GPU = "no GPU was found: every step ran on the CPU, in tiny, and its figures say nothing of a GPU"


def checked(work: Path, *seconds: str) -> tuple[list[dict], str]:
    environment = os.environ | {"PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([SCRIPT, work, *seconds], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return [json.loads(line) for line in (work / "gpu.jsonl").read_text().splitlines()], done.stdout


@pytest.mark.long
def test_every_step_has_its_figures(tmp_path):
    lines, said = checked(tmp_path)
    assert said.splitlines()[-1] == NO_GPU
    assert "wrong:" not in said
    steps = {line["step"] for line in lines}
    assert steps == {"machine", "writing", "streaming", "engine", "scoring", "closing", "vllm"}
    assert [line["what"] for line in lines if "skipped" in line] == ["vLLM"]
    assert [line["differ"] for line in lines if "differ" in line] == [0] * 4
    assert all(line["what"] in said for line in lines)
    assert sum("tokens/s" in line for line in lines) == 7
    assert not (tmp_path / "pair").exists()


def test_what_there_is_no_time_for_is_told(tmp_path):
    lines, said = checked(tmp_path, "6")
    assert {line.get("skipped") for line in lines[1:]} == {"no time left"}
    assert "not measured, for lack of time: writing, streaming, engine, scoring, closing, vllm" in said
