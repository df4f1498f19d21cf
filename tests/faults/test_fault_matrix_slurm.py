"""The faults of a SLURM at every stage whose jobs run on nodes; what follows is then made here."""

import pytest
from fault_tree import TABLES, counted
from faults import rerun, tried
from matrix import SLURM
from slurm_faults import FAULTS, jobs
from stages import STAGES
from test_fault_matrix import parameters

pytestmark = [pytest.mark.faults, pytest.mark.slurm]


@pytest.mark.parametrize(("stage", "fault"), parameters(SLURM))
def test_a_fault_on_slurm_is_survived(stage, fault, cluster, prepared, finished):
    stage = STAGES[stage]
    tree, said = tried(lambda tree: FAULTS[fault](tree, stage, cluster), lambda: prepared(stage))
    assert counted(said) == {stage.rule: 1}
    assert counted(rerun(tree)) == stage.after
    for table in TABLES:
        assert tree.read(table) == finished.read(table), table
    assert tree.spoilt() == []
    assert jobs(tree, cluster, "RUNNING", "PENDING", "COMPLETING") == []
