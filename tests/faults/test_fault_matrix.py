"""Every fault at every stage: what a user does then gives the same results, leaves nothing, and repeats nothing."""

import os

import pytest
from fault_tree import TABLES, counted
from faults import FAULTS, tried
from matrix import LOCAL, REASONS, cells
from stages import STAGES

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux"),
]


def parameters(faults: tuple[str, ...]) -> list:
    """The cells of the matrix in which there is something to try."""
    return [
        pytest.param(stage, fault, marks=pytest.mark.faults_ci if mark == "ci" else ())
        for stage, fault, mark in cells(faults)
        if mark not in REASONS
    ]


@pytest.mark.parametrize(("stage", "fault"), parameters(LOCAL))
def test_a_fault_is_survived(stage, fault, prepared, finished):
    stage = STAGES[stage]
    tree, said = tried(lambda tree: FAULTS[fault](tree, stage), lambda: prepared(stage))
    expected = {"corrupt intermediate": stage.cut_again, "head terminated": stage.after}
    assert counted(said) == expected.get(fault, stage.again)
    for table in TABLES:
        assert tree.read(table) == finished.read(table), table
    assert tree.spoilt() == []
