"""A job's log, and what a user sees where it cannot be written."""

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
from expoflow.errors import DataError
from expoflow.system.logs import job_log
with job_log(sys.argv[1]) as say:
    raise {error}
"""


def job(log: str, error: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", PROGRAM.format(error=error), log]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("DataError('a.csv: broken; delete it')", "error: a.csv: broken; delete it"),
        ("OSError(28, 'full')", "full"),
    ],
)
def test_a_reason_is_shown_where_the_log_cannot_be_written(tmp_path: Path, error, shown):
    run = job(str(tmp_path / "job.log"), error)
    assert (run.returncode, run.stderr) == (1, "")
    assert shown in (tmp_path / "job.log").read_text()
    run = job("/dev/full", error)  # a disk without room
    assert run.returncode == 1
    assert shown in run.stderr
