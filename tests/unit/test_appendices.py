"""A run's own tables in the form of Appendices E and F, and the paper's numbers beside them."""

import csv

import pytest
from expoflow.reporting import appendices, paper
from pair_results import write_alphas, write_benchmark

PAIRS = {
    "p20": {"sft": "base", "aligned": "dpo20", "trained_on_dev": "p20dev"},
    "p20dev": {"sft": "base", "aligned": "dpo20dev", "trained_on_dev": None},
}


KINDS = ("csv", "md", "tex")


def write(tmp_path, note=paper.OTHER_REWARDS, confidence=None, trained=6.125):
    """Write all tables of a run with two pairs, one of which has the reward `trained` at alpha 2; gives their folder."""
    alphas = [
        write_alphas(tmp_path, "p20", {"-1": 9.0, "0": 4.25, "2": trained, "2.5": trained - 0.125}),
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
        note=note,
        confidence={"p20": 0.95, "p20dev": 0.95} if confidence is None else confidence,
        outputs=[
            folder / f"{name}.{kind}"
            for name in ("appendix_e", "appendix_f", "reproduction")
            for kind in KINDS
        ],
    )
    return folder


@pytest.fixture
def tables(tmp_path):
    """All tables of a run whose reward model is not the paper's."""
    return write(tmp_path)


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def test_appendix_e_has_the_search_range_of_every_extrapolated_pair(tables):
    assert rows(tables / "appendix_e.csv") == [
        {"pair": "p20", "aligned": "dpo20", "sft": "base", "alphas": "2 2.5", "best_alpha": "2"}
    ]
    lines = (tables / "appendix_e.md").read_text().splitlines()
    assert lines[2] == "| dpo20 | base | [2.0, 2.5] | 2 |"
    assert lines[-1].startswith("The alphas that were tried for every pair")
    text = (tables / "appendix_e.tex").read_text().splitlines()
    assert r"DPO/RLHF Model & SFT Checkpoint & Search Range & Optimal $\alpha$ \\" in text
    assert r"dpo20 & base & {[}2.0, 2.5] & 2 \\" in text


def test_appendix_f_compares_with_the_model_trained_on_the_dev_set(tables):
    text = (tables / "appendix_f.md").read_text().splitlines()
    assert text[2] == "| dpo20 | 4.25 | 4.50 (+0.25) | **6.13 (+1.88)** |"
    assert "the 95% interval of the gain on these prompts, for all alphas at once, says so" in text[-1]
    assert rows(tables / "appendix_f.csv") == [
        {
            "pair": "p20",
            "model": "dpo20",
            "reward": "4.25",
            "reward_trained_on_dev": "4.5",
            "reward_expo": "6.125",
            "gain_low": "1.825",
            "gain_high": "1.925",
        }
    ]


@pytest.mark.parametrize(
    ("reward", "cell"),
    [(4.28, "4.28 (+0.03)"), (4.5, "**4.50 (+0.25)**"), (4.25, "4.25 (+0.00)")],
)
def test_a_gain_in_appendix_f_is_bold_only_if_it_is_certified(tmp_path, reward, cell):
    text = (write(tmp_path, trained=reward) / "appendix_f.md").read_text()
    assert f"| dpo20 | 4.25 | 4.50 (+0.25) | {cell} |" in text.splitlines()


def test_a_rehearsal_marks_nothing(tmp_path):
    text = (write(tmp_path, confidence={}) / "appendix_f.md").read_text()
    assert "| dpo20 | 4.25 | 4.50 (+0.25) | 6.13 (+1.88) |" in text.splitlines()
    assert "a rehearsal certifies nothing" in text


def test_the_papers_numbers_stand_beside_the_runs(tables):
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
    assert {row["model"] for row in rows(tables / "reproduction.csv")} == {"DPO (20% data)"}


def test_rewards_of_another_reward_model_have_no_difference(tables):
    for row in rows(tables / "reproduction.csv"):
        if row["quantity"] == "reward":
            assert row["difference"] == ""
        else:
            assert float(row["difference"]) == pytest.approx(float(row["here"]) - float(row["paper"]))
    text = (tables / "reproduction.md").read_text()
    assert "| p20 | DPO (20% data) | Appendix F | dev | reward | 4.46 | 4.5 |  |" in text.splitlines()
    assert paper.OTHER_REWARDS in text
    latex = (tables / "reproduction.tex").read_text()
    assert r"p20 & DPO (20\% data) & Appendix F & dev & reward & 4.46 & 4.5 &  \\" in latex.splitlines()
    assert r"Table 2 & expo & alpaca\_eval.lc\_win\_rate & 21.3 & 21 & $-$0.3 \\" in latex


def test_rewards_of_the_papers_own_model_have_a_difference(tmp_path):
    tables = write(tmp_path, note="")
    (row,) = (row for row in rows(tables / "reproduction.csv") if row["variant"] == "dev")
    assert float(row["difference"]) == pytest.approx(0.04)
    assert "reward model" not in (tables / "reproduction.md").read_text()
