"""The faults: each begins a run, spoils it in the middle of a stage, mends what a user would have to mend, and does
what docs/reliability.md says is to be done. It returns what that printed.
"""

import os
import resource
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from fault_tree import FaultTree, TooLateError
from stages import Stage


def tried(fault: Callable[[FaultTree], str], prepare: Callable[[], FaultTree]) -> tuple[FaultTree, str]:
    """The tree in which a fault was brought about, and what `fault` says; at most three times if it came too late."""
    for _ in range(3):
        tree = prepare()
        with suppress(TooLateError):
            return tree, fault(tree)
    raise AssertionError("three times the work was done before the fault hit")


def begin(tree: FaultTree, stage: Stage) -> subprocess.Popen:
    """A run whose job of this stage is in the middle of its work."""
    if stage.rule == "download":
        tree.hub.fault("/large/", pause=0.1)  # a slow one
    head = tree.start()
    tree.wait_for(lambda: stage.moment(tree, stage), head)
    return head


def failed(tree: FaultTree, head: subprocess.Popen) -> str:
    """The run fails, and leaves no process; what it printed."""
    assert head.wait(timeout=300) != 0, tree.output.read_text()
    assert not [line for line in tree.spoilt() if line.startswith("process")]
    return tree.output.read_text()


def rerun(tree: FaultTree, *arguments: str) -> str:
    """The same command once more, to the end."""
    head = tree.start(*arguments)
    assert head.wait(timeout=1200) == 0, tree.output.read_text()
    return tree.output.read_text()


def job_killed(tree: FaultTree, stage: Stage) -> str:
    head, killed = begin(tree, stage), 0
    for pid in tree.jobs(stage.log):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    if not killed:  # on a busy machine the job may end before it is found
        head.wait(timeout=300)
        raise TooLateError(tree.output.read_text())
    failed(tree, head)
    return rerun(tree)


def engine_host_killed(tree: FaultTree, stage: Stage) -> str:
    """The job starts another one, which continues from that one's place: there is nothing to do."""
    head = begin(tree, stage)
    tree.wait_for(tree.hosts, head)
    for pid in tree.hosts():
        os.kill(pid, signal.SIGKILL)
    assert head.wait(timeout=300) == 0, tree.output.read_text()
    assert "has died; starting another one" in (tree.folder / stage.log).read_text()
    return tree.output.read_text()


def head_killed(tree: FaultTree, stage: Stage) -> str:
    head = begin(tree, stage)
    head.kill()
    head.wait()
    return tree.resume()


def head_terminated(tree: FaultTree, stage: Stage) -> str:
    """The head starts no further job, and ends when those that run have finished."""
    head = begin(tree, stage)
    head.terminate()
    failed(tree, head)
    return rerun(tree)


def ctrl_c(tree: FaultTree, stage: Stage) -> str:
    head = begin(tree, stage)
    os.killpg(head.pid, signal.SIGINT)
    failed(tree, head)
    return rerun(tree)


def disk_full(tree: FaultTree, stage: Stage) -> str:
    """The disk of the results, or of the downloads, has no room; then it has."""
    if stage.rule == "download":
        enlarge = tree.small_disk(tree.home, stage.room)
    else:
        shutil.rmtree(tree.folder / "results/logs")  # or writing them anew would make room
        enlarge = tree.small_disk(tree.folder / "results", stage.room)
    said = failed(tree, tree.start())
    assert "No space left" in said or "free space" in said, said
    enlarge()
    return rerun(tree)


def out_of_memory(tree: FaultTree, stage: Stage) -> str:
    """From the moment when it begins its log the job gets no more memory."""
    head = tree.start()
    tree.wait_for(lambda: tree.jobs(stage.log), head)
    for pid in tree.jobs(stage.log):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[0])
        resource.prlimit(pid, resource.RLIMIT_AS, (pages * resource.getpagesize(),) * 2)
    failed(tree, head)
    return rerun(tree)


def unreadable_input(tree: FaultTree, stage: Stage) -> str:
    """A file that is there and cannot be read, by root neither: a folder in its place. It is named."""
    path = tree.folder / stage.input
    times = os.stat(path)
    aside = path.rename(path.with_name(f"{path.name}.aside"))
    path.mkdir()
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = failed(tree, tree.start())
    assert f"{stage.input}: cannot be read" in said or f"{stage.input} is gone" in said, said
    path.rmdir()
    aside.rename(path)
    return rerun(tree)


def corrupt_intermediate(tree: FaultTree, stage: Stage) -> str:
    """A file that is cut short is named with the remedy, which is then followed."""
    if stage.rule == "download":  # of which the hub says the hash: it is received again
        rerun(tree, stage.removed[0])
        (tree.folder / stage.removed[0]).unlink()
        blob = max((tree.home / "hub").glob("models--*/blobs/*"), key=lambda path: path.stat().st_size)
        os.truncate(blob, blob.stat().st_size - 9)
        return rerun(tree)
    path = tree.folder / stage.cut
    times = os.stat(path)
    os.truncate(path, times.st_size - 9)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = failed(tree, tree.start())
    assert stage.cut in said, said
    assert stage.remedy in said, said
    if stage.remedy.startswith("run: snakemake "):
        return rerun(tree, *stage.remedy.split()[2:])
    path.unlink()
    return rerun(tree)


FAULTS = {
    "job killed": job_killed,
    "engine host killed": engine_host_killed,
    "head killed": head_killed,
    "head terminated": head_terminated,
    "Ctrl-C": ctrl_c,
    "disk full": disk_full,
    "out of memory": out_of_memory,
    "unreadable input": unreadable_input,
    "corrupt intermediate": corrupt_intermediate,
}
