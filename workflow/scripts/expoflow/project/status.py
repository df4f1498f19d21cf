"""The state of a project: how far it is, who runs it, and what the store holds; freeing it."""

import shlex
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from expoflow import store
from expoflow.config import Config
from expoflow.config.benchmarks import BENCHMARKS
from expoflow.errors import ExpoflowError
from expoflow.paths import RESULTS
from expoflow.project import resume
from expoflow.selection.criteria import scored_under
from expoflow.system.processes import running

# What the store holds and `free` removes. The verdicts of judges are never removed, since they cost
# money. A benchmark with its own kind of work keeps its results under its name.
KINDS = ("generations", "benchmarks", *BENCHMARKS, "sha256", "converted", "checks", "classes", "whole")


def stages(config: Config) -> dict[str, list[Path]]:
    """Return the files that mark every stage of the models, prompts and pairs as done.

    They are relative to the project.
    """
    files = {
        "models": [RESULTS.manifest(name) for name in config.models],
        "prompts": [RESULTS.prompts(name) for name in config.prompts],
    }
    for name, pair in config.pairs.items():
        alphas, prompts = pair.grid(), config.section(name, "generate").prompts
        likely = [RESULTS.likelihoods(name, alpha, prompts) for alpha in alphas]
        benchmarks = config.section(name, "benchmarks").sections()
        files |= {
            f"{name}: extrapolate": [RESULTS.recipe(name, alpha) for alpha in alphas],
            f"{name}: generate": [RESULTS.generations(name, alpha, prompts) for alpha in alphas],
            f"{name}: score": [RESULTS.rewards(name, alpha, prompts) for alpha in alphas],
            **({f"{name}: likelihood": likely} if scored_under(config.section(name, "select")) else {}),
            f"{name}: select": [RESULTS.best(name)],
            f"{name}: export": [RESULTS.exported_recipe(name)],
        }
        if benchmarks:
            files[f"{name}: benchmark"] = [
                RESULTS.benchmark(name, variant, each)
                for each, section in benchmarks.items()
                for variant in section.RESULTS
            ]
        files[f"{name}: certify"] = [RESULTS.certificate(name)]
    return files | {"report": [RESULTS.report]}


def runs() -> dict[Path, int]:
    """Return the folders in which a Snakemake process of this machine runs, with the process ids.

    Snakemake's lock files stay when it is killed, and do not name its process. So both a process
    and a lock are required. Without Linux's /proc the result is empty.
    """
    found: dict[Path, int] = {}
    for process, folder in running("snakemake"):
        if locked(folder):
            found.setdefault(folder, process)
    return found


def locked(folder: Path) -> bool:
    """Return whether Snakemake's lock is in `folder`."""
    return any((folder / ".snakemake" / "locks").glob("*.lock"))


def state(folder: Path) -> str:
    """Return whether the workflow runs in `folder`, in words."""
    last, quoted = resume.last_run(folder), shlex.quote(str(folder))
    if (
        last
        and not last.alive()
        and last.host == socket.gethostname()
        and (left := resume.find(last.folder, last.cluster))
    ):
        return f"killed, but {left} are still at work; continue with: expoflow resume {quoted}"
    if process := runs().get(folder.resolve()):
        return f"running, process {process}"
    if last and locked(folder):
        ended = last.host == socket.gethostname() and not last.alive()
        elsewhere = "" if ended else f", or running on another machine ({last.host})"
        return f"killed{elsewhere}; continue with: expoflow resume {quoted}"
    if left := resume.find(str(folder.resolve()), cluster=False):
        return f"killed, but {left} are still at work; {resume.WITHOUT_NOTE}"
    if locked(folder):
        return "locked, but run by no process of this machine; if its run was killed, run snakemake --unlock"
    return "not running"


def size(folder: Path) -> int:
    """Return the bytes of all files below `folder`, without links and files that vanish."""
    return sum(_bytes(path) for path in folder.rglob("*") if not path.is_symlink())


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def held() -> Iterator[tuple[Path, int]]:
    """Yield the parts of the store that hold something, with their sizes."""
    for kind in KINDS:
        if bytes_held := size(folder := store.root() / kind):
            yield folder, bytes_held


def free() -> None:
    """Remove what the store holds. Raises ExpoflowError while a run uses it."""
    try:
        with store.claimed():
            for folder, _ in held():
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except BlockingIOError:
        seen = ", ".join(f"{folder} (process {process})" for folder, process in runs().items())
        raise ExpoflowError(
            f"{store.root()} is in use by a run; wait until it ends, or stop it (runs on this machine: {seen or 'none'})"
        ) from None
