"""One finished tree, its copies, and a record of what the matrix has shown."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_tree import FaultTree
from slurm.cluster import Cluster, started
from stages import Stage
from workflow.tree import new_tree, write_prompts

CPU = pytest.StashKey[float]()
sys.path.append(str(Path(__file__).parents[1] / "hub"))


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultTree]:
    """A finished run of the micro configuration at its smallest, whose reward model comes from a hub on loopback."""
    from expoflow.config.sources import ModelConfig
    from expoflow.training.train import train
    from server import Hub

    folder = tmp_path_factory.mktemp("finished")
    recipe = {"recipe": "reward", "data": "miniature", "examples": 200, "epochs": 1}
    train("rm", ModelConfig(train=recipe), {}, 7, folder / "trained/rm.json")
    hub = Hub()
    hub.add("org/rm", folder / "trained/rm")
    hub.start()
    tree = FaultTree(folder, hub)
    tree.places.mkdir()
    new_tree(tree.folder, tree.store)
    write_prompts(tree.folder / "test.jsonl", "test")
    tree.edit(small)
    head = tree.start()
    assert head.wait(timeout=600) == 0, tree.output.read_text()
    yield tree
    hub.stop()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A SLURM of two nodes."""
    with started() as cluster:
        yield cluster


def small(config: dict) -> None:
    """What a fault needs of the micro configuration; more samples, so that there is a middle of generating them."""
    config["models"]["sft"]["train"].update(examples=200, epochs=1)
    config["models"]["rm"] = {"hub": "org/rm", "resources": {"gpus": 0}}
    config["prompts"]["test"] = {"file": "test.jsonl"}
    config["generate"]["samples"] = 8
    config["figures"] = {"sweep": {"kind": "sweep"}}


@pytest.fixture
def prepared(finished: FaultTree, tmp_path: Path) -> Iterator[Callable[[Stage], FaultTree]]:
    """Make a copy of the finished tree in which a stage is to be done again."""
    made = []

    def prepare(stage: Stage) -> FaultTree:
        made.append(finished.copy(tmp_path / f"copy{len(made)}", stage))
        return made[-1]

    yield prepare
    for tree in made:
        tree.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo):
    """Append what a cell of the matrix has shown to the file that EXPOFLOW_FAULTS names.

    `cpu` are the seconds of what was waited for: all but engine hosts, and jobs on nodes or of a killed head.
    """
    report = yield
    times = os.times()
    used = times.children_user + times.children_system
    before = item.stash.setdefault(CPU, used)
    cell = getattr(item, "callspec", None) and item.callspec.params
    record = os.environ.get("EXPOFLOW_FAULTS")
    if record and cell and "fault" in cell and (call.when == "call" or report.outcome != "passed"):
        row = {
            **cell,
            "outcome": report.outcome,
            "seconds": round(report.duration),
            "cpu": round(used - before),
        }
        with open(record, "a") as file:
            file.write(json.dumps(row) + "\n")
    return report
