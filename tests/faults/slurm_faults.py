"""The faults that differ on a SLURM: each hits the only job of a run that makes one file there.

The profile tries a job again, and SLURM queues anew what a dead node ran: but for a killed head there is nothing to do.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fault_tree import FaultTree
from slurm.cluster import Cluster
from stages import Stage


def begin(tree: FaultTree, stage: Stage, cluster: Cluster) -> tuple[subprocess.Popen, dict[str, str]]:
    """A run whose job of this stage is in the middle of its work on a node; SLURM's record of the job."""
    head = tree.start(stage.made, slurm=True)
    tree.wait_for(lambda: stage.moment(tree, stage), head)
    (job,) = jobs(tree, cluster, "RUNNING")
    return head, job


def jobs(tree: FaultTree, cluster: Cluster, *states: str) -> list[dict[str, str]]:
    """SLURM's records of the tree's jobs in these states."""
    return [j for j in cluster.jobs() if j["WorkDir"] == str(tree.folder) and j["JobState"] in states]


def finished(tree: FaultTree, head: subprocess.Popen) -> str:
    """The run goes on by itself, to its end; what it printed."""
    assert head.wait(timeout=600) == 0, tree.output.read_text()
    return tree.output.read_text()


def scancel(tree: FaultTree, stage: Stage, cluster: Cluster) -> str:
    head, job = begin(tree, stage, cluster)
    subprocess.run(["scancel", job["JobId"]], check=True)
    said = finished(tree, head)
    assert [each["JobId"] for each in jobs(tree, cluster, "CANCELLED")] == [job["JobId"]]
    return said


def time_out(tree: FaultTree, stage: Stage, cluster: Cluster) -> str:
    """The job hangs until its time has passed."""
    head, job = begin(tree, stage, cluster)
    for pid in tree.jobs(stage.log):
        os.kill(pid, signal.SIGSTOP)
    subprocess.run(["scontrol", "update", f"JobId={job['JobId']}", "EndTime=now"], check=True)
    said = finished(tree, head)
    assert [each["JobId"] for each in jobs(tree, cluster, "TIMEOUT")] == [job["JobId"]]
    return said


def node_dies(tree: FaultTree, stage: Stage, cluster: Cluster) -> str:
    """All that SLURM has started on the job's node is gone at once."""
    head, job = begin(tree, stage, cluster)
    node = job["NodeList"]
    cluster.daemons[node].kill()
    cluster.daemons[node].wait()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            step = (process / "cmdline").read_bytes().startswith(f"slurmstepd: [{job['JobId']}.".encode())
            if step or f"SLURM_JOB_ID={job['JobId']}\0".encode() in (process / "environ").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)
    said = finished(tree, head)
    (again,) = jobs(tree, cluster, "COMPLETED")
    assert (again["JobId"], again["Restarts"]) == (job["JobId"], "1")
    assert again["NodeList"] != node
    cluster.start_node(node)
    wait_for(lambda: subprocess.getoutput("sinfo -h -p cpu -t idle -o %D") == "2")
    return said


def head_killed(tree: FaultTree, stage: Stage, cluster: Cluster) -> str:
    head, job = begin(tree, stage, cluster)
    head.kill()
    head.wait()
    said = tree.resume()
    assert [each["JobId"] for each in jobs(tree, cluster, "CANCELLED")] == [job["JobId"]]
    return said


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it is so; at most a minute."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "waited for a minute"
        time.sleep(0.2)


FAULTS = {
    "scancel": scancel,
    "time-out": time_out,
    "node dies": node_dies,
    "head killed (SLURM)": head_killed,
}
