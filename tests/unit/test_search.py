"""The choice of alpha, by hand-made tables."""

import subprocess
import sys
from typing import get_args

import numpy as np
import pytest
from expoflow.config.figures import FigureConfig
from expoflow.config.stages import WITHOUT_REWARDS, Criterion, SelectConfig
from expoflow.reporting.words import caption
from expoflow.selection.choice import Candidate, choose
from expoflow.selection.criteria import CRITERIA, MODELS, shown_first


def candidate(alpha: str, reward: float, low: float = -1.0) -> Candidate:
    return Candidate(alpha, reward, reward - 1, low, reward)


GRID = [candidate("-1", 9), candidate("0", 1), candidate("0.3", 1.5, 0.2), candidate("0.5", 1.2, 0.1)]


def test_the_largest_mean_reward_over_alpha_of_at_least_0():
    choice = choose(GRID, 0.95)
    assert (choice.alpha, choice.certified, choice.edge) == ("0.3", True, False)
    assert "its 95% interval for all 2 alphas at once lies above 0" in choice.reason


def test_of_equal_alphas_the_smaller():
    assert choose([*GRID, candidate("0.4", 1.5, 0.2)], 0.95).alpha == "0.3"


def test_0_is_a_valid_answer():
    choice = choose([candidate("0", 1), candidate("0.1", 0.9), candidate("0.2", 0.8)], 0.95)
    assert (choice.alpha, choice.certified, choice.edge) == ("0", False, False)
    assert "do not extrapolate" in choice.reason
    assert "smallest tried is 0.1" in choice.reason


def test_a_grid_of_0_alone():
    assert choose([candidate("0", 1)], 0.95).alpha == "0"


@pytest.mark.parametrize(
    ("alphas", "following"), [(("0.3", "0.5"), "0.7 and 0.9"), (("8", "15"), "22 and 29")]
)
def test_a_choice_at_the_grids_end_names_the_next_alphas(alphas, following):
    choice = choose([candidate("0", 1), candidate(alphas[0], 2, 1), candidate(alphas[1], 3, 1)], 0.95)
    assert choice.edge
    assert f"the grid ends here, try {following} next" in choice.reason


def test_without_a_certificate_it_says_so_and_falls_back_where_asked():
    grid = [candidate("0", 1), candidate("1", 1.1, -0.1), candidate("2", 0.5)]
    choice = choose(grid, 0.9)
    assert (choice.alpha, choice.certified) == ("1", False)
    assert "not certified" in choice.reason
    fallback = choose(grid, 0.9, require_certified=True)
    assert (fallback.alpha, fallback.certified) == ("0", False)
    assert "require_certified" in fallback.reason


def surprised(alpha: str, nll: float, high: float) -> Candidate:
    return Candidate(alpha, nll, nll - 1, nll - 1.1, high)


def test_nll_takes_the_largest_alpha_that_is_no_less_likely():
    grid = [
        surprised("0", 1, 0),
        surprised("1", 0.9, -0.05),
        surprised("2", 0.95, 0.02),
        surprised("4", 1.2, 0.3),
    ]
    choice = choose(grid, 0.95, by="nll")
    assert (choice.alpha, choice.certified, choice.edge) == ("2", False, False)
    assert (
        "largest one with no higher NLL under the aligned model among 4 alphas, but not certified"
        in choice.reason
    )
    assert choose(grid[:2], 0.95, by="nll").certified
    assert choose(grid[:2], 0.95, by="nll").edge
    assert choose([grid[0], grid[3]], 0.95, by="nll").alpha == "0"
    assert choose(grid, 0.95, require_certified=True, by="nll").alpha == "0"


def test_a_criterion_picks_for_every_resample():
    values = np.array([[1.0, 2.0, 2.0], [1.0, 1.0, 3.0], [1.0, 0.0, 0.5]])
    assert CRITERIA["implicit"].pick(values).tolist() == [1, 2, 0]
    assert CRITERIA["nll"].pick(values).tolist() == [0, 1, 2]


def test_a_value_that_is_not_known_is_never_picked():
    nan = np.nan
    values = np.array([[1.0, nan, 0.5], [1.0, 2.0, nan], [nan, 2.0, 0.5], [1.0, nan, nan], [nan, nan, nan]])
    assert CRITERIA["nll"].pick(values).tolist() == [2, 0, 0, 0, 0]
    assert CRITERIA["implicit"].pick(values).tolist() == [0, 1, 0, 0, 0]


@pytest.mark.parametrize(("low", "high"), [(np.nan, np.nan), (0.1, np.inf), (-np.inf, -0.1), (np.nan, -0.1)])
@pytest.mark.parametrize("by", ["reward", "nll"])
def test_an_interval_that_is_not_finite_certifies_nothing(by, low, high):
    value = 2.0 if by == "reward" else 0.5
    choice = choose([Candidate("0", 1, 0, 0, 0), Candidate("1", value, value - 1, low, high)], 0.95, by=by)
    assert (choice.alpha, choice.certified) == ("1", False)
    assert "but not certified" in choice.reason
    assert "and its 95% interval is not known" in choice.reason


@pytest.mark.parametrize(
    ("low", "said"), [(0.003, "[0.003, 1.20]"), (-0.003, "[-0.003, 1.20]"), (0.0, "[0.00, 1.20]")]
)
def test_an_end_near_0_says_on_which_side_it_lies(low, said):
    choice = choose([Candidate("0", 1, 0, 0, 0), Candidate("1", 1.6, 0.6, low, 1.2)], 0.95)
    assert f"gain 0.60 {said} over alpha 0" in choice.reason
    assert choice.certified == (low > 0)


def test_an_alpha_that_may_not_be_chosen_is_no_end_of_the_grid():
    grid = [*GRID[1:], Candidate("1", 9, 8, 7, 9, allowed=False)]
    choice = choose(grid, 0.95)
    assert (choice.alpha, choice.edge) == ("0.3", False)
    assert choice.reason.startswith("largest mean reward of 3 alphas")
    alone = choose([grid[0], grid[-1]], 0.95)
    assert (alone.alpha, alone.reason) == (
        "0",
        "no alpha above 0 may be chosen, the smallest tried is 1: do not extrapolate",
    )


def test_no_advice_follows_from_doubtful_responses():
    assert "do not extrapolate" not in choose(GRID[1:2], 0.95, doubtful=True).reason


def test_the_config_has_the_names_of_the_criteria_in_their_order():
    assert get_args(Criterion) == tuple(CRITERIA)
    assert {name for name, criterion in CRITERIA.items() if criterion.name != name} == set()
    assert not CRITERIA[WITHOUT_REWARDS].rewarded


def test_a_criterion_is_scored_under_models_that_there_are():
    assert all(set(criterion.models) <= MODELS.keys() for criterion in CRITERIA.values())


@pytest.mark.parametrize(
    ("by", "rewarded", "name"),
    [("reward", True, "reward"), ("nll", True, "reward"), ("nll", False, "nll"), ("implicit", False, "nll")],
)
def test_captions_name_what_figures_show_first(by, rewarded, name):
    assert shown_first([SelectConfig(by=by)], rewarded) is CRITERIA[name]
    figure = FigureConfig(kind="sweep")
    text = caption(figure, True, CRITERIA[name])
    assert text.startswith(f"{CRITERIA[name].shown}, true quality where it is known")
    assert text.endswith("Hollow marks are the paper's.")
    mine = figure.model_copy(update={"caption": "{Mine}."})
    assert caption(mine, False, CRITERIA[name]) == "{Mine}."


def test_the_rules_learn_what_a_criterion_needs_without_numpy_and_pandas():
    code = "import sys; from expoflow.selection import criteria; print({'numpy', 'pandas', 'scipy'} & {*sys.modules})"
    output = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "set()"
