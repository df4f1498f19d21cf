"""Rows of alphas.csv and the choice, from small tables whose answers are known by hand."""

import numpy as np
import pandas as pd
import pytest
from expoflow.columns import LIKELIHOOD_COLUMNS, REWARD_COLUMNS
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.reporting.page import compared
from expoflow.selection import select, tables
from expoflow.selection.criteria import scored_under

PROMPTS, SAMPLES = 40, 2

RNG = np.random.default_rng(0)


def keys(alpha):
    rows = [(f"{prompt:016x}", sample) for prompt in range(PROMPTS) for sample in range(SAMPLES)]
    return {"pair": "p", "alpha": alpha, "prompts": "dev"}, pd.DataFrame(
        rows, columns=["prompt_id", "sample"]
    )


def rewards(alpha, mean):
    labels, table = keys(alpha)
    table = table.assign(**labels, reward=mean + RNG.normal(size=len(table)) * 0.1, response_tokens=9)
    known = {"finish_reason": "stop", "engine": "e", "quality": None, "correct": None, "degenerate": None}
    return table.assign(**known)[[*REWARD_COLUMNS]]


def likelihoods(alpha, nll, implicit):
    """Responses of 10 and 30 tokens, `nll` nats a token under the aligned model."""
    labels, table = keys(alpha)
    tokens = np.tile([10, 30], PROMPTS)
    noise = RNG.normal(size=PROMPTS) * 0.01
    noise = np.repeat(noise - noise.mean(), SAMPLES)  # of the mean no digit is left to chance
    aligned = -(nll + noise) * tokens
    own = aligned + 1
    sft = 2 * aligned - own - implicit
    table = table.assign(**labels, tokens=tokens, logp_sft=sft, logp_aligned=aligned, logp_own=own)
    return table[[*LIKELIHOOD_COLUMNS]]


ALPHAS = {
    "-1": (0.0, 2.0, 0.0),
    "0": (1.0, 1.0, 0.0),
    "1": (3.0, 0.8, 5.0),
    "2": (2.0, 0.9, 9.0),
    "4": (1.5, 1.4, 1.0),
}


def choose(by, likelihood=True, **settings):
    reward = {alpha: rewards(alpha, values[0]) for alpha, values in ALPHAS.items()}
    scored = (
        {alpha: likelihoods(alpha, *values[1:]) for alpha, values in ALPHAS.items()} if likelihood else None
    )
    config = SelectConfig(by=by, resamples=500, **settings)
    return select.select("p", reward, dict.fromkeys(ALPHAS, 1.0), config, 0, scored)


@pytest.mark.parametrize(("by", "alpha"), [("reward", "1"), ("nll", "2"), ("implicit", "2")])
def test_each_criterion_chooses_its_own(by, alpha):
    rows, best = choose(by)
    assert best.alpha == alpha
    assert best.certified
    assert [row["alpha"] for row in rows if row["chosen"]] == [alpha]
    values = {row["alpha"]: row for row in rows}
    assert {name: round(row["nll"], 1) for name, row in values.items()} == {
        a: v[1] for a, v in ALPHAS.items()
    }
    assert {name: round(row["implicit"]) for name, row in values.items()} == {
        a: v[2] for a, v in ALPHAS.items()
    }
    assert best.gain == pytest.approx(values[alpha]["reward"] - values["0"]["reward"])
    assert sum(row.get("chosen_share", 0) for row in rows) == pytest.approx(1)
    assert values[alpha]["chosen_share"] == 1


def test_what_others_would_choose_stands_beside():
    alone, _ = choose("implicit")
    rows, best = choose("implicit", compare=["nll", "implicit", "reward", "nll"])
    assert best.others == {"nll": "2", "reward": "1"}
    assert [row["chosen"] for row in rows] == [row["chosen"] for row in alone]
    assert compared(best) == " On the same responses: by nll alpha 2, by reward alpha 1."


def test_of_others_too_a_certificate_is_asked():
    scored = {"0": likelihoods("0", 1.0, 0), "1": likelihoods("1", 0.9999, 0)}
    reward = {"0": rewards("0", 0), "1": rewards("1", 1)}
    config = SelectConfig(compare=["nll"], resamples=500)
    for strict, other in ((False, "1"), (True, "0")):
        asked = config.model_copy(update={"require_certified": strict})
        _, best = select.select("p", reward, {"0": None, "1": 1.0}, asked, 0, scored)
        assert (best.alpha, best.others) == ("1", {"nll": other})


def test_without_likelihoods_there_are_none():
    rows, _ = choose("reward", likelihood=False)
    assert not any("nll" in row for row in rows)


def test_likelihoods_of_other_responses_are_refused():
    reward = {alpha: rewards(alpha, 0) for alpha in ("0", "1")}
    scored = {alpha: likelihoods(alpha, 1, 0) for alpha in ("0", "1")}
    scored["1"] = scored["1"].iloc[::-1].reset_index(drop=True)
    with pytest.raises(DataError, match="alpha 1: likelihoods are of other responses"):
        select.select("p", reward, {"0": None, "1": 1.0}, SelectConfig(by="nll"), 0, scored)


def test_a_cut_table_is_refused(tmp_path):
    path = tmp_path / "dev.likelihoods.csv"
    likelihoods("0", 1, 0).drop(columns="tokens").to_csv(path, index=False)
    with pytest.raises(DataError, match="not a complete likelihoods table"):
        tables.read_likelihoods(path, "p", "0")


@pytest.mark.parametrize(
    ("by", "compare", "names"),
    [
        ("reward", None, ()),
        ("reward", ["reward"], ()),
        ("reward", ["nll"], ("aligned",)),
        ("nll", ["reward"], ("aligned",)),
        ("nll", ["implicit", "reward"], ("sft", "aligned", "own")),
    ],
)
def test_responses_are_scored_under_what_any_criterion_needs(by, compare, names):
    assert scored_under(SelectConfig(by=by, compare=compare)) == names


@pytest.mark.parametrize("by", ["nll", "implicit"])
def test_without_a_reward_model_nothing_is_said_of_rewards(by):
    bare = {alpha: rewards(alpha, 0).assign(reward=np.nan) for alpha in ALPHAS}
    scored = {alpha: likelihoods(alpha, *values[1:]) for alpha, values in ALPHAS.items()}
    config = SelectConfig(by=by, resamples=500)
    rows, best = select.select("p", bare, dict.fromkeys(ALPHAS, 1.0), config, 0, scored)
    assert (best.alpha, best.certified) == ("2", True)
    assert (best.reward, best.gain, best.gain_low) == (None, None, None)
    assert best.reason.endswith("; there is no reward model")
    assert not any(key.startswith(("reward", "gain", "p_")) for row in rows for key in row)
    assert {row["length"] for row in rows} == {9}
    change = {row["alpha"]: (row["nll_change_low"], row["nll_change_high"]) for row in rows}
    assert change["0"] == (0, 0)
    assert all(low < ALPHAS[alpha][1] - 1 < high for alpha, (low, high) in change.items() if alpha != "0")


@pytest.mark.parametrize(("gaps", "whole"), [(0, True), (1, False), (80, True)])
def test_a_table_has_all_rewards_or_none(tmp_path, gaps, whole):
    path = tmp_path / "dev.rewards.csv"
    table = rewards("0", 1.0)
    table.loc[: gaps - 1, "reward"] = np.nan
    table.to_csv(path, index=False)
    if whole:
        assert tables.read_rewards(path, "p", "0")["reward"].isna().sum() == gaps
    else:
        with pytest.raises(DataError, match="not a complete rewards table"):
            tables.read_rewards(path, "p", "0")


def test_a_table_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "dev.rewards.csv").mkdir()
    with pytest.raises(
        DataError, match=r"dev.rewards.csv: cannot be read \(Is a directory\); make it readable"
    ):
        tables.read_rewards(tmp_path / "dev.rewards.csv", "p", "0")


@pytest.mark.parametrize(
    ("pair", "alpha", "what"), [("q", "0", "pair p, not q"), ("p", "1", "alpha 0, not 1")]
)
def test_a_table_of_something_else_is_refused(tmp_path, pair, alpha, what):
    path = tmp_path / "dev.rewards.csv"
    rewards("0", 1.0).to_csv(path, index=False)
    with pytest.raises(DataError, match=f"dev.rewards.csv: is of {what}; delete it and run snakemake again"):
        tables.read_rewards(path, pair, alpha)


@pytest.mark.parametrize("value", ["abc", "inf", None])
def test_a_table_without_rows_or_with_what_is_no_number_is_refused(tmp_path, value):
    path = tmp_path / "dev.rewards.csv"
    table = rewards("0", 1.0).astype({"reward": object})
    table.loc[3, "reward"] = value
    (table if value else table.head(0)).to_csv(path, index=False)
    with pytest.raises(DataError, match="not a complete rewards table"):
        tables.read_rewards(path, "p", "0")


def test_a_pair_or_prompt_may_be_called_na(tmp_path):
    path = tmp_path / "dev.rewards.csv"
    rewards("0", 1.0).assign(pair="NA", prompt_id="null").to_csv(path, index=False)
    table = tables.read_rewards(path, "NA", "0")
    assert set(table["pair"] + table["prompt_id"]) == {"NAnull"}
