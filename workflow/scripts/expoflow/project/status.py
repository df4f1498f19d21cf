"""What is there: how far a project is, who runs it, what its parts and the store hold; and freeing the store."""

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

# What the store holds, and all that is ever removed from it: not the verdicts of judges, which were paid for.
# A benchmark whose work is of a kind of its own keeps it under its name.
KINDS = ("generations", "benchmarks", *BENCHMARKS, "sha256", "converted", "checks", "classes", "whole")


def stages(config: Config) -> dict[str, list[Path]]:
    """The files, relative to the project, that stand for every stage of the models, prompts and pairs."""
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
    """The folders in which a Snakemake process of this machine runs, each with the process's id.

    Snakemake's own lock files stay when it is killed, and say not by whom: both must be there, processes and
    lock. Without Linux's /proc there are none to be seen.
    """
    found: dict[Path, int] = {}
    for process, folder in running("snakemake"):
        if locked(folder):
            found.setdefault(folder, process)
    return found


def locked(folder: Path) -> bool:
    """Whether Snakemake's lock lies in `folder`."""
    return any((folder / ".snakemake" / "locks").glob("*.lock"))


def state(folder: Path) -> str:
    """Whether the workflow runs in `folder`, in words."""
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
        return "locked, but run by no process of this machine; where it was killed, run snakemake's --unlock"
    return "not running"


def size(folder: Path) -> int:
    """Bytes of all files below `folder`; those that vanish meanwhile, or stand for others, have none."""
    return sum(_bytes(path) for path in folder.rglob("*") if not path.is_symlink())


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except FileNotFoundError:
        return 0


def held() -> Iterator[tuple[Path, int]]:
    """The parts of the store that hold something, with their size."""
    for kind in KINDS:
        if bytes_held := size(folder := store.root() / kind):
            yield folder, bytes_held


def free() -> None:
    """Remove what the store holds; an ExpoflowError while a run uses it."""
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
