"""A run's own tables in the form of Appendices E and F, and the paper's numbers beside them."""

import csv

import pytest
from expoflow.reporting import appendices, paper
from pair_results import write_alphas, write_benchmark

PAIRS = {
    "p20": {"sft": "base", "aligned": "dpo20", "trained_on_dev": "p20dev"},
    "p20dev": {"sft": "base", "aligned": "dpo20dev", "trained_on_dev": None},
}


@pytest.fixture
def tables(tmp_path):
    """Write all tables of a run with two pairs; gives their folder."""
    alphas = [
        write_alphas(tmp_path, "p20", {"-1": 9.0, "0": 4.25, "2": 6.125, "2.5": 6.0}),
        write_alphas(tmp_path, "p20dev", {"-1": 1.0, "0": 4.5}),
    ]
    benchmark = write_benchmark(tmp_path, "p20", "expo", "alpaca_eval", {"lc_win_rate": 21.0})
    folder = tmp_path / "tables"
    appendices.write_appendices(
        PAIRS,
        alphas=alphas,
        benchmarks=[benchmark],
        paper={
            "p20": [
                number._asdict() | {"value": str(number.value)}
                for number in paper.published("DPO (20% data)")
            ]
        },
        note=paper.OTHER_REWARDS,
        outputs=[
            folder / f"{name}.{kind}"
            for name in ("appendix_e", "appendix_f", "reproduction")
            for kind in ("csv", "md")
        ],
    )
    return folder


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_appendix_e_has_the_search_range_of_every_extrapolated_pair(tables):
    assert rows(tables / "appendix_e.csv") == [
        {"pair": "p20", "aligned": "dpo20", "sft": "base", "alphas": "2 2.5", "best_alpha": "2"}
    ]
    assert (tables / "appendix_e.md").read_text().splitlines()[-1] == "| dpo20 | base | [2.0, 2.5] | 2 |"


def test_appendix_f_compares_with_the_model_trained_on_the_dev_set(tables):
    text = (tables / "appendix_f.md").read_text().splitlines()
    assert text[-1] == "| dpo20 | 4.25 | 4.50 (+0.25) | **6.13 (+1.88)** |"
    assert rows(tables / "appendix_f.csv") == [
        {
            "pair": "p20",
            "model": "dpo20",
            "reward": "4.25",
            "reward_trained_on_dev": "4.5",
            "reward_expo": "6.125",
        }
    ]


def test_the_papers_numbers_stand_beside_the_runs_with_the_difference(tables):
    found = {
        (row["variant"], row["quantity"]): (row["source"], *map(float, (row["paper"], row["here"])))
        for row in rows(tables / "reproduction.csv")
    }
    assert found == {
        ("expo", "alpha"): ("Appendix E", 2.5, 2.0),
        ("aligned", "reward"): ("Appendix F", 4.37, 4.25),
        ("dev", "reward"): ("Appendix F", 4.46, 4.5),
        ("expo", "reward"): ("Appendix F", 6.08, 6.125),
        ("expo", "alpaca_eval.lc_win_rate"): ("Table 2", 21.3, 21.0),
    }
    for row in rows(tables / "reproduction.csv"):
        assert row["model"] == "DPO (20% data)"
        assert float(row["difference"]) == pytest.approx(float(row["here"]) - float(row["paper"]))
    assert (
        "| p20 | DPO (20% data) | Appendix F | dev | reward | 4.46 | 4.5 | 0.04 |"
        in (tables / "reproduction.md").read_text().splitlines()
    )
    assert paper.OTHER_REWARDS in (tables / "reproduction.md").read_text()
