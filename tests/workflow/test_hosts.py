"""Engine hosts in a whole run: they change no result, and nothing of them outlives it however it ends."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from waits import wait

pytestmark = [
    pytest.mark.workflow,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="hosts need Linux"),
]
# What the runs make: responses of two alphas and their rewards, for two hosts.
PART = [f"results/pairs/tiny/alpha={alpha}/dev.rewards.csv" for alpha in ("0", "60")]


def test_results_are_the_same_without_hosts(finished, finished_once, monkeypatch):
    logs = finished.folder / "results/logs/hosts"
    assert list(logs.iterdir())
    shutil.rmtree(logs)
    monkeypatch.setenv("EXPOFLOW_HOST", "off")
    finished.snakemake("--cores", "2", *PART, "--forcerun", "generate")
    assert not logs.exists()
    for path in PART:
        for made in (path, path.replace("rewards.csv", "generations.jsonl")):
            name = made.removeprefix("results/")
            assert finished.read(name) == finished_once.read(name)


@pytest.fixture
def places():
    """A folder for temporary files whose name marks the processes of a run."""
    folder = Path(tempfile.mkdtemp(prefix="expoflow-run-"))
    yield folder
    shutil.rmtree(folder)


def processes(places: Path) -> list[int]:
    """The processes of the run, the head among them."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and f"TMPDIR={places}\0".encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
        except OSError:  # it has ended, or is not ours
            pass
    return found


def loaded(places: Path) -> bool:
    """Whether a host of the run has loaded an engine."""
    return any('"generate"' in note.read_text() for note in places.glob("expoflow-*/slot-?"))


@pytest.mark.parametrize("how", ["success", "SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_remains_of_a_run(finished, places, how):
    if how != "success":  # long enough to be in the middle of it
        finished.edit(lambda config: config["generate"].update(samples=40))
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(finished.workflow / "Snakefile")]
    command += ["--directory", str(finished.folder), "--configfile", str(finished.folder / "config.yaml")]
    command += ["--cores", "2", *PART, "--forcerun", "generate"]
    environment = os.environ | {"EXPOFLOW_STORE": str(finished.store), "TMPDIR": str(places)}
    # A group of its own, as a shell gives to what it runs: Ctrl-C goes to all of it. Tests that run in the
    # background may have been told to ignore it, and what they start would too.
    with open(places / "output", "w") as output:
        run = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            cwd=finished.folder,
            process_group=0,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    if how != "success":
        wait(lambda: loaded(places) or run.poll() is not None)
        assert run.poll() is None, (places / "output").read_text()
        time.sleep(0.5)
        if how == "SIGINT":
            os.killpg(run.pid, signal.SIGINT)
        else:
            run.send_signal(signal.Signals[how])
    wait(lambda: run.poll() is not None)
    assert (run.returncode == 0) == (how == "success"), (places / "output").read_text()
    wait(lambda: not processes(places) and not [*places.glob("expoflow-*")])
    if how != "success":  # and the next run finishes what that one did not
        finished.edit(lambda config: config["generate"].update(samples=1))
        finished.snakemake("--cores", "1", "--unlock", jobless=True)
        finished.snakemake("--cores", "1", *PART)
