"""Rows of alphas.csv and the choice, from small tables whose answers are known by hand."""

import numpy as np
import pandas as pd
import pytest
from expoflow.columns import LIKELIHOOD_COLUMNS, REWARD_COLUMNS
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.reporting import words
from expoflow.reporting.words import compared
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
    """Responses of 10 and 30 tokens, `nll` nats per token under the aligned model."""
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
    assert compared(best) == "On the same responses: by nll alpha 2, by reward alpha 1."


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
    assert change.pop("0") == (0, 0)
    assert np.isnan(change.pop("-1")).all()  # among which nothing is chosen
    alone = {row["alpha"]: [row[f"nll_change_pointwise_{end}"] for end in ("low", "high")] for row in rows}
    for alpha, (low, high) in change.items():
        assert low < alone[alpha][0] < ALPHAS[alpha][1] - 1 < alone[alpha][1] < high
    assert alone["-1"][0] < 1 < alone["-1"][1]


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


def degenerate(table, *kinds):
    """The table with the first response of every prompt at fault, prompt by prompt: those after `kinds` are not."""
    table = table.copy()
    places = np.arange(len(kinds)) * SAMPLES
    table.loc[places, "degenerate"] = kinds
    table.loc[places[[kind == "unfinished" for kind in kinds]], "finish_reason"] = "length"
    return table


def swept(faults, **settings):
    """The sweep of ALPHAS with `faults` by alpha, and alpha 4 with the largest reward and the smallest NLL."""
    known = ALPHAS | {"4": (9.0, 0.1, 99.0)}
    reward = {alpha: degenerate(rewards(alpha, of[0]), *faults.get(alpha, ())) for alpha, of in known.items()}
    scored = {alpha: likelihoods(alpha, *of[1:]) for alpha, of in known.items()}
    config = SelectConfig(**{"resamples": 500, "compare": ["nll", "implicit"]} | settings)
    rows, best = select.select("p", reward, dict.fromkeys(known, 1.0), config, 0, scored)
    return {row["alpha"]: row for row in rows}, best


def test_shares_of_degenerate_responses_are_paired_with_alpha_0s():
    rows, _ = swept(
        {"0": ["empty"] * 8, "4": ["empty"] * 10 + ["unfinished"] * 12 + ["repeating"] * 2, "-1": ["empty"]}
    )
    assert [rows["4"][name] for name in ("empty", "repeating", "unfinished", "degenerate")] == [
        0.125,
        0.025,
        0.15,
        0.3,
    ]
    assert rows["4"]["degenerate_change"] == pytest.approx(0.2)
    # 16 of 40 prompts differ, each in one of two samples
    spread = 2 * np.sqrt(0.4 * 0.6 / 40) / 2
    assert rows["4"]["degenerate_change_low"] == pytest.approx(0.2 - spread, abs=0.03)
    assert rows["4"]["degenerate_change_high"] == pytest.approx(0.2 + spread, abs=0.03)
    assert rows["0"]["degenerate_change_low"] == rows["0"]["degenerate_change_high"] == 0
    assert rows["-1"]["degenerate_change_high"] < 0


def test_an_alpha_with_degenerate_responses_is_chosen_by_nothing():
    _, best = swept({})
    assert (best.alpha, best.others, best.warnings) == ("4", {"nll": "4", "implicit": "4"}, [])
    rows, best = swept({"0": ["empty"], "4": ["empty"] * 30 + ["unfinished"] * 8})
    assert (best.alpha, best.certified, best.edge, best.others) == (
        "1",
        True,
        False,
        {"nll": "2", "implicit": "2"},
    )
    assert (rows["4"]["chosen_share"], rows["1"]["chosen_share"]) == (0, 1)
    assert rows["4"]["gain"] > rows["1"]["gain"]
    said = "alpha 4 left out: 47.5% of its responses are degenerate (empty 37.5%, unfinished 10%), 1.25% at alpha 0"
    assert best.warnings == [said]
    assert best.reason.startswith("largest mean reward of 3 alphas; gain ")
    assert best.reason.endswith(said)
    line = words.best_line(best, rows["0"]["reward"])
    assert line.startswith("p: best alpha 1, reward 1.0")
    assert line.endswith(f"; {said}")


@pytest.mark.parametrize(
    ("threshold", "alpha", "words"),
    [(1, "4", "look at what alpha 4 writes: 15% "), (0.1, "4", "look at what alpha 4 writes: 15% "), (0.05, "1", "alpha 4 left out: 15% ")],
)  # fmt: skip
def test_a_smaller_rise_is_a_warning(threshold, alpha, words):
    rows, best = swept({"4": ["repeating"] * 12}, degenerate_rise=threshold)
    assert 0.05 < rows["4"]["degenerate_change_low"] < 0.1
    assert best.alpha == alpha
    assert [warning.startswith(words) for warning in best.warnings] == [True]


def test_a_rise_that_may_be_chance_is_nothing():
    rows, best = swept({"4": ["empty"]})
    assert rows["4"]["degenerate_change_low"] == 0 < rows["4"]["degenerate_change"]
    assert (best.alpha, best.warnings) == ("4", [])


def test_with_no_alpha_left_alpha_0_is_taken():
    rows, best = swept({alpha: ["empty"] * 40 for alpha in ("1", "2", "4")})
    assert (best.alpha, best.certified, best.others) == ("0", False, {"nll": "0", "implicit": "0"})
    assert best.reason.startswith(
        "no alpha above 0 may be chosen, the smallest tried is 1: do not extrapolate; alpha 1 left out"
    )
    assert rows["0"]["chosen_share"] == 1


def test_an_aligned_model_that_does_not_end_its_responses_gives_no_advice():
    cut = rewards("0", 9.0).assign(finish_reason="length", degenerate="unfinished")
    reward = {"0": cut, "1": rewards("1", 1.0)}
    _, best = select.select("p", reward, {"0": None, "1": 1.0}, SelectConfig(resamples=500), 0)
    assert best.alpha == "0"
    assert best.reason.startswith(
        "no alpha above 0 has a larger mean reward, the smallest tried is 1; 100% of alpha 0's"
    )
    assert "do not extrapolate" not in best.reason
    (said,) = best.warnings
    assert "stop: [TOKEN ID] of the models" in said
    reward["1"] = cut.assign(alpha="1", reward=cut["reward"] + 1)
    _, best = select.select("p", reward, {"0": None, "1": 1.0}, SelectConfig(resamples=500), 0)
    assert (best.alpha, best.certified) == ("1", True)
    assert words.best_line(best, 9.0).endswith(said)


def without_tokens(alpha, prompts):
    """Likelihoods of which the responses to the first `prompts` have no token, as of one that was cut off at once."""
    table = likelihoods(alpha, 1.0 if alpha == "0" else 0.5, 0)
    table.loc[: prompts * SAMPLES - 1, ["tokens", "logp_sft", "logp_aligned", "logp_own"]] = 0
    return table


@pytest.mark.parametrize(
    ("zero", "one", "alpha", "certified", "words"),
    [
        (0, 0, "1", True, "interval does not lie above 0"),
        (37, 10, "1", True, "interval does not lie above 0"),  # in 1 of 23 resamples nothing has tokens
        (0, 39, "1", False, "its 95% interval is not known"),  # in 1 of 3
        (0, 40, "0", False, "do not extrapolate"),
        (40, 0, "0", False, "the NLL under the aligned model of alpha 0's responses is not known"),
        (40, 40, "0", False, "the NLL under the aligned model of alpha 0's responses is not known"),
    ],
)  # fmt: skip
def test_responses_without_tokens_win_nothing(zero, one, alpha, certified, words, tmp_path):
    reward = {at: rewards(at, 0).assign(reward=np.nan) for at in ("0", "1")}
    scored = {"0": without_tokens("0", zero), "1": without_tokens("1", one)}
    config = SelectConfig(by="nll", resamples=500)
    rows, best = select.select("p", reward, {"0": None, "1": 1.0}, config, 0, scored)
    assert (best.alpha, best.certified) == (alpha, certified)
    assert words in best.reason
    assert "nan" not in best.reason
    assert sum(row["chosen_share"] for row in rows) == 1
    select.write_choice(rows, best, tmp_path / "alphas.csv", tmp_path / "best.json")
    assert "nan" not in (tmp_path / "alphas.csv").read_text()


def test_what_is_not_known_of_all_responses_chooses_nothing():
    reward = {alpha: rewards(alpha, 0) for alpha in ("0", "1")}
    with pytest.raises(DataError, match="p: NLL under the aligned model is not known for all responses"):
        select.select("p", reward, {"0": None, "1": 1.0}, SelectConfig(compare=["nll"]), 0)
