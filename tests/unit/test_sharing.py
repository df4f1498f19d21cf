"""Two processes that load a model together: each reads its part of the tensors, both get the same bits or the same reason."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import save, shapes, weights
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors_of
from two_ranks import TYPES, digest

NAMES = [*sorted([*shapes()][::2]), *sorted([*shapes()][1::2])]  # as they lie in two files
OVERFLOWS = NAMES[7]  # rank 1's
ALPHAS = (0.3, 0, -1, -0.4)
MINUTES = 5  # on a machine with much else to do; the program's own patience is four


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("pair")
    sft, aligned = (weights(torch.float16, seed=seed) for seed in (0, 1))
    sft[OVERFLOWS][0, 0], aligned[OVERFLOWS][0, 0] = -1, 1
    return save(root / "sft", sft), save(root / "aligned", aligned, shards=2)


@pytest.fixture(scope="module")
def missing(tmp_path_factory) -> Path:
    """A folder that is not there."""
    return tmp_path_factory.mktemp("root") / "missing"


@pytest.fixture(scope="module")
def told(folders, missing, tmp_path_factory):
    """What the two processes say of each of these loads, one after the other."""
    root = tmp_path_factory.mktemp("ranks")

    def asked(alpha: float = 0.3, there: bool = True, **breaks: int) -> dict:
        streamed = Streamed(sft=folders[0] if there else missing, aligned=folders[1], alpha=alpha)
        return {"streamed": streamed.model_dump(mode="json"), **breaks}

    loads = {f"alpha {alpha}": ({"alpha": alpha},) * 2 for alpha in ALPHAS}
    loads |= {
        "overflow": ({"alpha": 1e5},) * 2,
        "well after an overflow": ({}, {}),
        "no folder": ({}, {"there": False}),
        "an engine that takes no more": ({}, {"breaks": 7}),
        "the first tensor": ({"breaks": 0}, {}),
        "the last tensor": ({}, {"breaks": len(NAMES) - 1}),
        "both": ({"breaks": 4}, {"breaks": 4}),
        "one stops": ({}, {"stops": 5}),
        "well after a stop": ({}, {}),
        "both stop": ({"stops": 5}, {"stops": 5}),
        "well at the end": ({}, {}),
    }
    program = Path(__file__).with_name("two_ranks.py")
    wanted = json.dumps([[asked(**each) for each in load] for load in loads.values()])
    ranks = [
        subprocess.Popen(
            [sys.executable, program, str(rank), root / "meet", wanted],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outs = [rank.communicate(timeout=60 * MINUTES) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], outs
    said = [[json.loads(line) for line in out.splitlines()] for out, _ in outs]
    return dict(zip(["sent", *loads], zip(*said, strict=True), strict=True))


def expected(folders: tuple[Path, Path], alpha: float) -> str:
    streamed = Streamed(sft=folders[0], aligned=folders[1], alpha=alpha)
    got = [digest(name, tensor) for name, tensor in tensors_of(streamed)]
    return digest(" ".join(got), torch.zeros(0))


def errors(load: tuple[dict, dict]) -> list[str | None]:
    return [rank["error"] for rank in load]


@pytest.mark.parametrize("alpha", ALPHAS)
def test_each_reads_its_part_and_both_have_the_bits(told, folders, alpha):
    load = told[f"alpha {alpha}"]
    assert errors(load) == [None, None]
    assert [rank["read"] for rank in load] == [NAMES[::2], NAMES[1::2]]
    assert {rank["digest"] for rank in load} == {expected(folders, alpha)}


def test_a_tensor_of_any_type_is_sent(told):
    ones = [torch.ones(shape, dtype=torch.uint8).to(kind) for kind in TYPES for shape in ((3, 5), (), (0, 2))]
    assert told["sent"] == ([digest("", each) for each in ones],) * 2


@pytest.mark.parametrize(
    ("load", "rank", "reason"),
    [
        ("overflow", 1, f"PairError: tensor {OVERFLOWS}: 1 elements overflow float16"),
        ("no folder", 1, "CheckpointError: {missing}: no such folder"),
        ("an engine that takes no more", 1, f"ValueError: no room for {NAMES[7]}"),
        ("the first tensor", 0, f"ValueError: no room for {NAMES[0]}"),
        ("the last tensor", 1, f"ValueError: no room for {NAMES[-1]}"),
    ],
)
def test_the_error_of_one_is_said_by_both(told, missing, load, rank, reason):
    found = errors(told[load])
    assert found[rank].startswith(reason.format(missing=missing))
    assert found[1 - rank] == "ToldError: " + found[rank].partition(": ")[2]


def test_nobody_waits_for_one_that_takes_less(told):
    places = f"worker 0 at {NAMES[6]}, worker 1 at the end"
    assert errors(told["one stops"]) == [f"ToldError: the workers load different tensors: {places}"] * 2
    assert errors(told["both"]) == [f"ValueError: no room for {NAMES[4]}"] * 2
    assert errors(told["both stop"]) == [None, None]


def test_after_an_error_they_load_well(told, folders):
    for load in ("well after an overflow", "well after a stop", "well at the end"):
        assert {rank["digest"] for rank in told[load]} == {expected(folders, 0.3)}
