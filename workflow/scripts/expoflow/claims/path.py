"""The path from the first model through the second one: Figures 2, 8 and 9, section 4.4."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement
from expoflow.selection.statistics import Values

PAPER_END = 0.5  # the largest alpha of Figure 8


def _path(run: Run, pair: str) -> Values:
    """Draws of the reward from alpha -1 to 0, shape (1 + RESAMPLES, points)."""
    grid = run.grid(pair)
    return run.draws(pair, "reward")[:, (grid >= -1) & (grid <= 0)]


def _inside(path: Values, largest: bool) -> Values:
    """Draws of the largest (or smallest) point inside minus the larger (or smaller) endpoint.

    The estimate decides which points these are; they stay the same in every draw.
    """
    pick = np.argmax if largest else np.argmin
    inside, end = 1 + pick(path[0, 1:-1]), (0, -1)[pick(path[0, [0, -1]])]
    return path[:, inside] - path[:, end]


def _interpolated(run: Run, pairs: list[str]) -> list[str]:
    """Those of `pairs` that have alphas between -1 and 0."""
    return [pair for pair in pairs if _path(run, pair).shape[1] > 2]


@statement(
    3,
    "1, Figure 2",
    "No interpolation of the SFT and the aligned model is better than both",
    "highest reward between the two models minus that of the better one",
)
def between_not_above(run: Run) -> Iterator[Measure]:
    """The highest mean reward at an alpha between -1 and 0, minus the higher of the two models'
    rewards, for every pair that was aligned.
    """
    for pair in _interpolated(run, run.aligned):
        yield measured("reward", pair, _inside(_path(run, pair), True), "not above", n=run.prompts(pair))


@statement(
    3,
    "1, Figure 2",
    "No interpolation of the SFT and the aligned model is worse than both",
    "lowest reward between the two models minus that of the worse one",
)
def between_not_below(run: Run) -> Iterator[Measure]:
    """The lowest mean reward at an alpha between -1 and 0, minus the lower of the two models'
    rewards, for every pair that was aligned.
    """
    for pair in _interpolated(run, run.aligned):
        yield measured("reward", pair, _inside(_path(run, pair), False), "not below", n=run.prompts(pair))


@statement(
    3, "2.2, Figure 3", "Reward rises from the SFT model to the aligned model", "reward, aligned minus SFT"
)
def alignment_rises(run: Run) -> Iterator[Measure]:
    """The mean reward at alpha 0 minus that at alpha -1, for every pair that was aligned."""
    for pair in run.aligned:
        path = _path(run, pair)
        yield measured("reward", pair, path[:, -1] - path[:, 0], "above", n=run.prompts(pair))


@statement(
    3,
    "2.2, Figure 3",
    "Reward rises all the way from the SFT model to the aligned model",
    "smallest step of the reward from alpha -1 to 0",
)
def path_is_monotone(run: Run) -> Iterator[Measure]:
    """The smallest step of the mean reward from one alpha to the next, from -1 to 0, for every pair
    that was aligned.
    """
    for pair in _interpolated(run, run.aligned):
        steps = np.diff(_path(run, pair), axis=1)
        yield measured("reward", pair, steps[:, steps[0].argmin()], "not below", n=run.prompts(pair))


@statement(
    3,
    "4.4, Figure 9",
    "Between two models that were trained separately, the reward has a peak",
    "highest reward between the two models minus that of the better one",
)
def separate_peak_inside(run: Run) -> Iterator[Measure]:
    """The highest mean reward at an alpha between -1 and 0, minus the higher of the two models'
    rewards, for every pair of separately trained models.
    """
    for pair in _interpolated(run, run.claims.combinations.separate):
        yield measured("reward", pair, _inside(_path(run, pair), True), "above", n=run.prompts(pair))


@statement(
    3, "2.2", "Reward rises throughout the training", "smallest step of the reward during the training"
)
def training_rises(run: Run) -> Iterator[Measure]:
    """One training is stopped at several times. The number is the smallest step of the mean reward
    from one time to the next, beginning with the SFT model.
    """
    if pairs := run.ordered("in_time", "until"):
        path = [_path(run, pairs[0])[:, 0], *(run.aligned_mean(pair, "reward") for pair in pairs)]
        steps = np.diff(np.stack(path, axis=1), axis=1)
        times = ", ".join(f"{run.config.setting(pair, 'until'):g}" for pair in pairs)
        least = steps[:, steps[0].argmin()]
        yield measured(
            "reward", pairs[-1], least, "not below", n=run.prompts(pairs[-1]), note=f"times {times}"
        )
        for pair in pairs:
            yield measured("reward at alpha 0", pair, run.aligned_mean(pair, "reward"))


def _extrapolated(run: Run, pair: str) -> int:
    """The place in the grid of the alpha above 0 with the largest mean reward."""
    beyond = np.flatnonzero(run.grid(pair) > 0)
    return int(beyond[run.draws(pair, "reward")[0, beyond].argmax()])


@statement(
    8,
    "4.4, Figure 8",
    "Two SFT models of different bases collapse: the reward falls below that of the first model",
    "reward at the end of the paper's range minus that of the first model",
)
def different_bases_collapse(run: Run) -> Iterator[Measure]:
    """The reward at the largest alpha in the paper's range (at most 0.5) minus that of the first
    model. The reward at the end of the grid is shown beside it, and so is the share of unfinished
    responses at both alphas.
    """
    for pair in run.claims.combinations.different_bases:
        draws, unfinished = run.draws(pair, "reward"), run.draws(pair, "unfinished")
        place, note = _range_end(run, pair)
        yield measured("reward", pair, draws[:, place] - draws[:, 0], "below", n=run.prompts(pair), note=note)
        yield measured("unfinished", pair, unfinished[:, place], note=note)
        note = f"at alpha {run.grid(pair)[-1]:g}"
        yield measured("reward at the grid's end", pair, draws[:, -1] - draws[:, 0], note=note)
        yield measured("unfinished at the grid's end", pair, unfinished[:, -1], note=note)


@statement(
    8,
    "4.4, Figure 8",
    "Extrapolation from a base model and its SFT model makes the SFT model worse",
    "reward at the end of the paper's range minus that at alpha 0",
)
def base_and_sft_degrade(run: Run) -> Iterator[Measure]:
    """The reward at the largest alpha in the paper's range (at most 0.5) minus that at alpha 0. The
    reward and the true quality at the alpha above 0 with the highest reward are shown beside it.
    """
    for pair in run.claims.combinations.base_and_sft:
        place, note = _range_end(run, pair)
        difference = run.draws(pair, "reward")[:, place] - run.aligned_mean(pair, "reward")
        yield measured("reward", pair, difference, "below", n=run.prompts(pair), note=note)
        yield from _beyond(run, pair, "")


@statement(
    8,
    "4.4, Figure 8",
    "Extrapolation from two separately trained models gains nothing",
    "reward at the best alpha above 0 minus that at alpha 0",
)
def separate_gain_nothing(run: Run) -> Iterator[Measure]:
    """The reward at the alpha above 0 with the highest reward, minus the reward at alpha 0. The
    true quality at that alpha is shown beside it.
    """
    for pair in run.claims.combinations.separate:
        yield from _beyond(run, pair, "not above")


@statement(
    8,
    "4.4",
    "Of two separately trained models, the second one is better before any extrapolation",
    "reward, second model minus first",
)
def separate_second_is_better(run: Run) -> Iterator[Measure]:
    """The reward at alpha 0 (the second model) minus that at alpha -1 (the first one)."""
    for pair in run.claims.combinations.separate:
        draws = run.draws(pair, "reward")
        difference = run.aligned_mean(pair, "reward") - draws[:, 0]
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


def _range_end(run: Run, pair: str) -> tuple[int, str]:
    """The place of the largest alpha within the paper's range, and a note that names it."""
    grid = run.grid(pair)
    place = int(np.flatnonzero(grid <= PAPER_END)[-1])
    return place, f"at alpha {grid[place]:g}"


def _beyond(run: Run, pair: str, expected: str) -> Iterator[Measure]:
    """Reward and true quality at the best alpha above 0, minus those at alpha 0."""
    place = _extrapolated(run, pair)
    note = f"alpha {run.grid(pair)[place]:g}"
    quantities = {"reward": expected, **({"quality": ""} if run.knows_quality else {})}
    for quantity, hoped in quantities.items():
        difference = run.draws(pair, quantity)[:, place] - run.aligned_mean(pair, quantity)
        yield measured(
            f"{quantity} at the best alpha", pair, difference, hoped, n=run.prompts(pair), note=note
        )
