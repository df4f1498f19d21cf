"""Fixtures for all tests: a store of one's own, and tiny checkpoints."""

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import FileLock

# Where tests run in two processes, each has a core: torch's threads would wait for one another most of the time. Jobs
# set the number of their own.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What takes minutes comes first: near the end, when one process may have to wait for the other, files are short.
LONGEST = ("workflow", "hub", "unit/test_open_llm.py", "judge")


def pytest_configure(config: pytest.Config) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background of a shell it is ignored
    config.option.loadscopereorder = False  # pytest-xdist would put the files with the most tests first


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    tests = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        path = item.path.relative_to(tests)
        known = (at for at, name in enumerate(LONGEST) if path.is_relative_to(name))
        return next(known, len(LONGEST))

    items.sort(key=place)


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that no other test and no user sees."""
    monkeypatch.setenv("EXPOFLOW_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], None]], Path]:
    """Make a folder that all processes of pytest-xdist then share: one makes it, the others wait. Nobody changes it."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent

    def once(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a try that failed has left
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return once


@pytest.fixture
def make_pair(tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Make (sft, aligned); keywords go to both, `sft` and `aligned` are keywords for one."""
    from checkpoints import save, weights

    structure = ("vocab", "hidden", "layers", "tied")

    def make(sft: dict | None = None, aligned: dict | None = None, **both) -> tuple[Path, Path]:
        folders = []
        for seed, (role, own) in enumerate((("sft", sft), ("aligned", aligned))):
            settings = {**both, **(own or {})}
            dtype, change = settings.pop("dtype", None), settings.pop("change", None)
            shape = {name: settings[name] for name in structure if name in settings}
            tensors = weights(seed=seed, **shape, **({"dtype": dtype} if dtype else {}))
            if change:
                change(tensors)
            folders.append(save(tmp_path / role, tensors, **settings))
        return folders[0], folders[1]

    return make
