"""The path from the first model to the second, and on: Figures 2, 8 and 9, section 4.4."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement
from expoflow.statistics import Values


def _path(run: Run, pair: str) -> Values:
    """Draws of the reward from alpha -1 to 0: shape (1 + RESAMPLES, points)."""
    grid = run.grid(pair)
    return run.draws(pair, "reward")[:, (grid >= -1) & (grid <= 0)]


def _inside(path: Values, largest: bool) -> Values:
    """Draws of the largest (smallest) point inside less the larger (smaller) endpoint; which ones is not redrawn."""
    pick = np.argmax if largest else np.argmin
    inside, end = 1 + pick(path[0, 1:-1]), (0, -1)[pick(path[0, [0, -1]])]
    return path[:, inside] - path[:, end]


def _interpolated(run: Run, pairs: list[str]) -> list[str]:
    """Those of the pairs that have alphas between -1 and 0."""
    return [pair for pair in pairs if _path(run, pair).shape[1] > 2]


@statement(
    3, "1, Figure 2", "Interpolations of SFT and aligned model lie between the two: none is better than both"
)
def between_not_above(run: Run) -> Iterator[Measure]:
    """Largest mean reward inside (-1, 0) less the larger of the endpoints', of every pair that was aligned."""
    for pair in _interpolated(run, run.aligned):
        yield measured("reward", pair, _inside(_path(run, pair), True), "not above", n=run.prompts(pair))


@statement(3, "1, Figure 2", "None is worse than both")
def between_not_below(run: Run) -> Iterator[Measure]:
    """Smallest mean reward inside (-1, 0) less the smaller of the endpoints'."""
    for pair in _interpolated(run, run.aligned):
        yield measured("reward", pair, _inside(_path(run, pair), False), "not below", n=run.prompts(pair))


@statement(3, "2.2, Figure 3", "Reward rises from the SFT to the aligned model")
def alignment_rises(run: Run) -> Iterator[Measure]:
    """Mean reward at alpha 0 less that at -1, of every pair that was aligned."""
    for pair in run.aligned:
        path = _path(run, pair)
        yield measured("reward", pair, path[:, -1] - path[:, 0], "above", n=run.prompts(pair))


@statement(3, "2.2, Figure 3", "It rises all the way: the path is monotone")
def path_is_monotone(run: Run) -> Iterator[Measure]:
    """Smallest step of the mean reward along the alphas from -1 to 0."""
    for pair in _interpolated(run, run.aligned):
        steps = np.diff(_path(run, pair), axis=1)
        yield measured("reward", pair, steps[:, steps[0].argmin()], "not below", n=run.prompts(pair))


@statement(3, "4.4, Figure 9", "Between models that were trained separately there is a peak inside")
def separate_peak_inside(run: Run) -> Iterator[Measure]:
    """Largest mean reward inside (-1, 0) less the larger of the endpoints'."""
    for pair in _interpolated(run, run.claims.combinations.separate):
        yield measured("reward", pair, _inside(_path(run, pair), True), "above", n=run.prompts(pair))


@statement(3, "2.2", "Reward rises along training in time, too")
def training_rises(run: Run) -> Iterator[Measure]:
    """Smallest step of the mean reward at alpha 0 over one training that was stopped at several times, from the SFT
    model on."""
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
    """Where the alpha above 0 with the largest mean reward stands in the grid."""
    beyond = np.flatnonzero(run.grid(pair) > 0)
    return int(beyond[run.draws(pair, "reward")[0, beyond].argmax()])


@statement(
    8, "4.4, Figure 8", "Two SFT models of different bases collapse: rewards fall below the first one's"
)
def different_bases_collapse(run: Run) -> Iterator[Measure]:
    """Reward at the smallest alpha above 0 less that of the first model; the share of unfinished responses there, and
    at the largest alpha, is told."""
    for pair in run.claims.combinations.different_bases:
        grid, draws = run.grid(pair), run.draws(pair, "reward")
        first = int(np.flatnonzero(grid > 0)[0])
        note = f"at alpha {grid[first]:g}"
        yield measured("reward", pair, draws[:, first] - draws[:, 0], "below", n=run.prompts(pair), note=note)
        yield measured("reward at the largest alpha", pair, draws[:, -1] - draws[:, 0])
        for name, place in (("smallest", first), ("largest", -1)):
            yield measured(f"unfinished at the {name} alpha", pair, run.draws(pair, "unfinished")[:, place])


@statement(8, "4.4, Figure 8", "From a base and its SFT model, extrapolation degrades")
def base_and_sft_degrade(run: Run) -> Iterator[Measure]:
    """Reward at the best alpha above 0 less that at 0."""
    for pair in run.claims.combinations.base_and_sft:
        yield from _beyond(run, pair, "below")


@statement(8, "4.4, Figure 8", "From two separately trained models, extrapolation gains nothing")
def separate_gain_nothing(run: Run) -> Iterator[Measure]:
    """Reward at the best alpha above 0 less that at 0."""
    for pair in run.claims.combinations.separate:
        yield from _beyond(run, pair, "not above")


@statement(8, "4.4", "Even though the second of them is the better one")
def separate_second_is_better(run: Run) -> Iterator[Measure]:
    """Reward at alpha 0 less that at alpha -1."""
    for pair in run.claims.combinations.separate:
        draws = run.draws(pair, "reward")
        difference = run.aligned_mean(pair, "reward") - draws[:, 0]
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


def _beyond(run: Run, pair: str, expected: str) -> Iterator[Measure]:
    place = _extrapolated(run, pair)
    note = f"at alpha {run.grid(pair)[place]:g}"
    quantities = {"reward": expected, **({"quality": ""} if run.knows_quality else {})}
    for quantity, hoped in quantities.items():
        difference = run.draws(pair, quantity)[:, place] - run.aligned_mean(pair, quantity)
        yield measured(quantity, pair, difference, hoped, n=run.prompts(pair), note=note)
