"""bench/gpu.sh without a GPU: every step, in tiny, on the CPU."""

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
    assert not (tmp_path / "expoflow-gpu-check/models").exists()


def test_what_there_is_no_time_for_is_told_and_nothing_of_a_users_is_touched(tmp_path):
    theirs = [tmp_path / name / "file" for name in ("pair", "classifier", "packages", "models")]
    for path in theirs:
        path.parent.mkdir()
        path.touch()
    lines, said = checked(tmp_path, "6")
    assert {*tmp_path.glob("*/*")} == {tmp_path / "expoflow-gpu-check/packages", *theirs}
    assert {line.get("skipped") for line in lines[1:]} == {"no time left"}
    assert "not measured, for lack of time: writing, streaming, engine, scoring, closing, vllm" in said


CUT = """
import sys, time
from pathlib import Path
sys.path[:0] = [sys.argv[1]]
import gpu
gpu.STEPS = {name: (step, 0) for name, (step, _) in gpu.STEPS.items()}
sys.exit(gpu.whole(Path(sys.argv[2]), time.time() + gpu.CLOSING + 0.5))
"""


def test_a_step_that_is_cut_off_is_no_fault_of_the_machine(tmp_path):
    """Python itself takes longer to start."""
    command = [sys.executable, "-c", CUT, SCRIPT.parent, tmp_path]
    done = subprocess.run(
        command, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    first, *others = [json.loads(line) for line in (tmp_path / "gpu.jsonl").read_text().splitlines()][1:]
    assert first == {"step": "writing", "what": "writing", "skipped": "no time left: cut off after 0 s"}
    assert {line["skipped"] for line in others} == {"no time left"}
    assert "wrong" not in done.stdout
