"""How a training is launched: with a stand-in for accelerate that compiles as DeepSpeed does, under torch's own lock."""

import os
import signal
import subprocess
import sys

import pytest
from waits import wait

# What torch.utils.cpp_extension does around a compilation; `compiled` says that it is under way.
LAUNCHER = """
import os, sys, time
from pathlib import Path
from torch.utils import cpp_extension, file_baton
baton = file_baton.FileBaton(cpp_extension._get_build_directory("cpu_adam", False) + "/lock")
if baton.try_acquire():
    Path("compiling").touch()
    while not Path("go").exists():
        time.sleep(0.05)
    baton.release()
else:
    baton.wait()
"""
LAUNCH = "from pathlib import Path; from expoflow.training.trl.stage import launch; launch([], Path('stage/stage.json'))"


@pytest.fixture
def launch(tmp_path):
    """Start a launch in a process of its own."""
    package = tmp_path / "stand-in/accelerate/commands"
    package.mkdir(parents=True)
    for each in (package.parent / "__init__.py", package / "__init__.py"):
        each.touch()
    (package / "launch.py").write_text(LAUNCHER)
    (tmp_path / "stage").mkdir()
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "stand-in"), "HOME": str(tmp_path / "home")}
    started = []

    def start() -> subprocess.Popen:
        started.append(subprocess.Popen([sys.executable, "-c", LAUNCH], cwd=tmp_path, env=environment))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_compilation_that_was_killed_holds_up_nobody(launch, tmp_path):
    first = launch()
    wait((tmp_path / "compiling").exists)
    assert (tmp_path / "stage/extensions/cpu_adam/lock").exists()
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    (tmp_path / "go").touch()
    assert launch().wait(timeout=60) == 0
    assert not [*(tmp_path / "home").rglob("lock")]  # nothing in the user's own cache
