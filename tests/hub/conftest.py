"""A hub, tiny checkpoints on it, and a user of it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkpoints import save, weights
from server import Hub
from user import MARKER, User


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    hub.start()
    yield hub
    hub.stop()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """A checkpoint folder of two shards, 300 kB each, with what a training run leaves beside it."""

    def make(name: str = "checkpoint", seed: int = 0, **settings) -> Path:
        folder = save(
            tmp_path / name, weights(seed=seed, vocab=4000), **{"shards": 2, "vocab": 4000, **settings}
        )
        for litter in ("README.md", ".gitattributes", "optimizer.pt", "tf_model.h5", "training_args.bin"):
            (folder / litter).write_text(f"{name} {litter}")
        (folder / "onnx").mkdir()
        (folder / "onnx" / "model.onnx").write_text("no")
        return folder

    return make


@pytest.fixture
def user(tmp_path: Path, hub: Hub, checkpoint: Callable[..., Path]) -> Iterator[User]:
    """A user of the hub, which has org/model; after the test the token is looked for in all that was written."""
    hub.add("org/model", checkpoint())
    user = User(tmp_path / "user", hub)
    yield user
    for path in user.folder.rglob("*"):
        assert not (path.is_file() and MARKER.encode() in path.read_bytes()), path
    assert hub.authorised == []  # nor is it sent to where the large files lie
