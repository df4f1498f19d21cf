"""Fixtures for all tests: a store of one's own, and tiny checkpoints."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store that no other test and no user sees."""
    monkeypatch.setenv("EXPOFLOW_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


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
