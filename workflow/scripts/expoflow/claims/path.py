"""The path from the first model to the second, and on: Figures 2, 8 and 9, section 4.4."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement
from expoflow.selection.statistics import Values

PAPER_END = 0.5  # the largest alpha of Figure 8


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
    """Reward at the largest alpha of the paper's range (0.5 at most) less that of the first model; what happens at the
    grid's end, and how many responses are unfinished, is told."""
    for pair in run.claims.combinations.different_bases:
        draws, unfinished = run.draws(pair, "reward"), run.draws(pair, "unfinished")
        place, note = _range_end(run, pair)
        yield measured("reward", pair, draws[:, place] - draws[:, 0], "below", n=run.prompts(pair), note=note)
        yield measured("unfinished", pair, unfinished[:, place], note=note)
        note = f"at alpha {run.grid(pair)[-1]:g}"
        yield measured("reward at the grid's end", pair, draws[:, -1] - draws[:, 0], note=note)
        yield measured("unfinished at the grid's end", pair, unfinished[:, -1], note=note)


@statement(8, "4.4, Figure 8", "From a base and its SFT model, extrapolation degrades")
def base_and_sft_degrade(run: Run) -> Iterator[Measure]:
    """Reward at the largest alpha of the paper's range (0.5 at most) less that at 0; that of the best alpha is told."""
    for pair in run.claims.combinations.base_and_sft:
        place, note = _range_end(run, pair)
        difference = run.draws(pair, "reward")[:, place] - run.aligned_mean(pair, "reward")
        yield measured("reward", pair, difference, "below", n=run.prompts(pair), note=note)
        yield from _beyond(run, pair, "")


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


def _range_end(run: Run, pair: str) -> tuple[int, str]:
    """Where the largest alpha up to the end of the paper's range stands in the grid, and what it is."""
    grid = run.grid(pair)
    place = int(np.flatnonzero(grid <= PAPER_END)[-1])
    return place, f"at alpha {grid[place]:g}"


def _beyond(run: Run, pair: str, expected: str) -> Iterator[Measure]:
    """Reward, and what is told of the quality, at the alpha above 0 with the largest reward, less that at 0."""
    place = _extrapolated(run, pair)
    note = f"alpha {run.grid(pair)[place]:g}"
    quantities = {"reward": expected, **({"quality": ""} if run.knows_quality else {})}
    for quantity, hoped in quantities.items():
        difference = run.draws(pair, quantity)[:, place] - run.aligned_mean(pair, quantity)
        yield measured(
            f"{quantity} at the best alpha", pair, difference, hoped, n=run.prompts(pair), note=note
        )
