"""A job's log, and what a user sees if it cannot be written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from expoflow.errors import DataError
from expoflow.system.logs import job_log
with job_log(sys.argv[1]) as say:
    {does}
"""


def job(log: str, does: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM.format(does=does), log]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)


def test_a_line_is_said_on_a_terminal_that_lacks_its_letters(tmp_path: Path):
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    run = job(str(tmp_path / "job.log"), "say('m\\u00fc: 1')", **plain)
    assert (run.returncode, run.stderr) == (0, "m\\xfc: 1\n")
    assert (tmp_path / "job.log").read_text(encoding="utf-8") == "m\u00fc: 1\n"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("DataError('a.csv: broken; delete it')", "error: a.csv: broken; delete it"),
        ("OSError(28, 'full')", "full"),
    ],
)
def test_a_reason_is_shown_where_the_log_cannot_be_written(tmp_path: Path, error, shown):
    run = job(str(tmp_path / "job.log"), f"raise {error}")
    assert (run.returncode, run.stderr) == (1, "")
    assert shown in (tmp_path / "job.log").read_text()
    run = job("/dev/full", f"raise {error}")  # a disk without room
    assert run.returncode == 1
    assert shown in run.stderr
