"""Jobs as a cluster has them: a rule's script in a process of its own, started as Snakemake starts it, without a host."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expoflow.system.installed import workflow_folder

PREAMBLE = """import json
snakemake = json.loads({text!r}, object_hook=type("Said", (dict,), {{"__getattr__": dict.__getitem__}}))
"""


def start(rule: str, folder: Path, environment: dict[str, str], **said: Any) -> subprocess.Popen:
    """Start the job of a rule in `folder`; `said` is what its script reads of `snakemake`, and its log is job.log."""
    script = workflow_folder() / "workflow" / "scripts" / f"{rule}.py"
    text = json.dumps({"log": ["job.log"], "threads": 1, **said}, default=str)
    folder.mkdir(exist_ok=True)
    (folder / f"{rule}.py").write_text(PREAMBLE.format(text=text) + script.read_text())
    left_out = ("EXPOFLOW_HEAD", "EXPOFLOW_HOST")
    return subprocess.Popen(
        [sys.executable, f"{rule}.py"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name not in left_out} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(
    rule: str,
    folder: Path,
    environment: dict[str, str],
    meanwhile: Callable[[], None] = lambda: None,
    **said: Any,
) -> str:
    """The log of a job that succeeds; `meanwhile` is done beside it."""
    process = start(rule, folder, environment, **said)
    meanwhile()
    shown, _ = process.communicate(timeout=600)
    log = (folder / "job.log").read_text()
    assert process.returncode == 0, f"{shown}\n{log}"
    return log
