"""The explanation of section 2.2: the slope along delta, and the size and direction of the steps.

The direction of the steps is the subject of Figure 5.
"""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement

SMALL = 0.1  # a step below this share of |theta1| is small
TOLERANCE = 0.1  # two slopes agree if they differ by at most this share
OBJECTIVES = {"reward": "expected reward", "margin": "preference margin"}


def _first_order(run: Run, pairs: list[str]) -> Iterator[tuple[str, str, dict]]:
    """Every pair and objective, with its section of theory.json."""
    for pair in pairs:
        for name, found in ((run.theory(pair) or {}).get("first_order") or {}).items():
            yield pair, OBJECTIVES[name], found


def _slope(objective: str, pair: str, found: dict, expected: str) -> Measure:
    interval = {"low": found["slope_low"], "high": found["slope_high"]}
    return Measure(
        quantity=f"slope of the {objective}",
        subject=pair,
        value=found["slope"],
        expected=expected,
        n=found["n"],
        **interval,
    )


@statement(
    1,
    "2.2",
    "At the aligned model, the objective rises along delta",
    "slope of the preference margin (nats per unit of alpha)",
)
def slope_is_positive(run: Run) -> Iterator[Measure]:
    """The gradient at theta1 times delta, per unit of alpha, for every pair that was aligned. The
    slope of the expected reward comes from the policy gradient. The slope of the margin of held-out
    preferences (in nats) comes from autograd.
    """
    for pair, objective, found in _first_order(run, run.aligned):
        yield _slope(objective, pair, found, "above")


@statement(
    1,
    "2.2, 4.4",
    "The objective does not rise along the difference of two models that were not aligned one from the other",
    "slope of the expected reward (per unit of alpha)",
)
def combinations_have_no_slope(run: Run) -> Iterator[Measure]:
    """The slope of the expected reward, measured as for aligned pairs, for every combination. The
    slope of the preference margin is shown, but takes no part in the verdict.
    """
    for pair, objective, found in _first_order(run, run.claims.combinations.pairs()):
        yield _slope(objective, pair, found, "not above" if objective == OBJECTIVES["reward"] else "")


@statement(
    1,
    "2.2",
    "The gradient predicts what a small step does",
    "relative difference of the two slopes of the preference margin, minus 0.1",
)
def gradient_is_right(run: Run) -> Iterator[Measure]:
    """The slope at alpha 0 is measured twice: as a gradient and as a finite difference. The number
    is their relative difference minus 0.1, so it is below 0 if they agree within 10 %. The verdict
    rests on the preference margin, which is computed exactly. The reward's finite difference is
    sampled, and only shown.
    """
    for pair, objective, found in _first_order(run, list(run.config.pairs)):
        if found["slope"]:
            apart = abs(found["difference"] / found["slope"] - 1) - TOLERANCE
            expected = "below" if objective == OBJECTIVES["margin"] else ""
            yield measured(f"{objective}, apart", pair, apart, expected)


@statement(
    1,
    "2.2, Eq. 2",
    "The best alpha lies where the first order still explains the change",
    "largest alpha that follows Eq. 2, divided by the best alpha, minus 1",
)
def first_order_reaches_best(run: Run) -> Iterator[Measure]:
    """The largest alpha up to which the preference margin follows Eq. 2 within 10 %, divided by the
    best alpha, minus 1. It is measured for the aligned pairs whose best alpha is above 0.
    """
    for pair, objective, found in _first_order(run, run.aligned):
        if found.get("holds_to") is not None and (best := run.best_alpha(pair)) > 0:
            expected = "above" if objective == OBJECTIVES["margin"] else ""
            yield measured(
                f"{objective}, share of the best alpha less 1", pair, found["holds_to"] / best - 1, expected
            )


def _smallness(run: Run, pairs: list[str]) -> Iterator[tuple[str, dict]]:
    for pair in pairs:
        if found := run.theory(pair):
            yield pair, found["smallness"]


@statement(
    2,
    "2.2",
    "Alignment changes the weights little: |delta| is far below |theta1|",
    "|delta| / |theta1| minus 0.1",
)
def delta_is_small(run: Run) -> Iterator[Measure]:
    """|delta| / |theta1| minus 0.1, for every pair that was aligned. The ratios of the kinds of
    modules are shown beside it.
    """
    for pair, found in _smallness(run, run.aligned):
        yield measured("ratio less 0.1", pair, found["overall"]["ratio"] - SMALL, "below")
        for kind, effect in found["kinds"].items():
            yield measured(f"ratio, {kind}", pair, effect["ratio"])


@statement(
    2,
    "2.2",
    "The chosen step is small, too: |alpha delta| is far below |theta1|",
    "|alpha delta| / |theta1| minus 0.1",
)
def step_is_small(run: Run) -> Iterator[Measure]:
    """|alpha delta| / |theta1| at the best alpha, minus 0.1, for every pair that was aligned."""
    for pair, found in _smallness(run, run.aligned):
        ratio = run.best_alpha(pair) * found["overall"]["ratio"]
        yield measured("ratio less 0.1", pair, ratio - SMALL, "below")


@statement(
    2,
    "2.2, 4.2",
    "Over shares of the data, best alpha times |delta| varies less than the best alpha",
    "largest / smallest best alpha, minus largest / smallest best alpha times |delta|",
)
def step_is_the_same(run: Run) -> Iterator[Measure]:
    """The ratio of the largest best alpha to the smallest, minus the same ratio for best alpha
    times |delta|. The alphas are chosen again in every bootstrap draw.
    """
    sizes = {
        pair: found["overall"]["delta"]
        for pair, found in _smallness(run, run.ordered("fractions", "fraction"))
    }
    if len(sizes) > 1:
        smallest = {pair: run.grid(pair)[run.grid(pair) > 0].min() for pair in sizes}  # alpha 0 has no ratio
        alphas = np.stack([np.maximum(run.best_alphas(pair), smallest[pair]) for pair in sizes])
        steps = alphas * np.array(list(sizes.values()))[:, None]
        ratios = [each.max(axis=0) / each.min(axis=0) for each in (alphas, steps)]
        yield measured("ratio", "alpha less step", ratios[0] - ratios[1], "above", n=len(sizes))
        yield measured("largest over smallest", "best alpha", ratios[0])
        yield measured("largest over smallest", "best alpha times |delta|", ratios[1])
        for (pair, size), alpha in zip(sizes.items(), alphas, strict=True):
            yield measured("best alpha times |delta|", pair, alpha * size)


@statement(
    6,
    "4.2, Figure 5",
    "With more data, delta points more nearly where the delta of all data points",
    "smallest rise of the cosine with the delta of all data",
)
def cosines_rise(run: Run) -> Iterator[Measure]:
    """The cosine of a share's delta with the delta of all data: its smallest rise from one share to
    the next larger one. The cosines with all data are shown, and so are those of larger learning
    rates and more epochs with their default.
    """
    pairs, table = run.ordered("fractions", "fraction"), run.cosines
    if table is None or len(pairs) < 3:
        return
    cosines = [_cosine(table, pair, pairs[-1]) for pair in pairs[:-1]]
    if None not in cosines:
        yield measured("cosine", "fractions", min(np.diff(cosines)), "above")
        for pair, cosine in zip(pairs, cosines, strict=False):
            yield measured("cosine with all data", pair, cosine)
    for key, setting in (("learning_rates", "learning_rate"), ("epochs", "epochs")):
        default, *harder = run.ordered(key, setting) or [""]
        for pair in harder:
            if (cosine := _cosine(table, pair, default)) is not None:
                yield measured("cosine with the default", pair, cosine)


def _cosine(table, one: str, other: str) -> float | None:
    own = table[(table["kind"] == "all") & (table[["pair_a", "pair_b"]].isin([one, other]).all(axis=1))]
    return float(own["cosine"].iloc[0]) if len(own) else None


@statement(
    6,
    "4.2, Figure 5",
    "At equal step length, the direction of a medium share beats that of the least data",
    "reward at equal |alpha delta|, medium share minus least data",
)
def direction_beats_least_data(run: Run) -> Iterator[Measure]:
    """The reward at equal |alpha delta|, linear between alphas: the medium share with the highest
    peak minus the smallest share. The step is the best one of the medium share, or the longest that
    both tried if that is shorter. The true quality is shown beside it.
    """
    pairs = run.ordered("fractions", "fraction")
    if len(pairs) > 2:
        best = max(pairs[1:-1], key=lambda pair: run.peak(pair)[0])
        yield from _at_equal_step(run, best, pairs[0])


@statement(
    6,
    "4.2, Figure 5",
    "At equal step length, the direction of a medium share beats that of more data",
    "reward at equal |alpha delta|, medium share minus next larger share",
)
def direction_beats_more_data(run: Run) -> Iterator[Measure]:
    """The reward at equal |alpha delta|, linear between alphas: the medium share with the highest
    peak minus the next larger share. The step is the best one of the medium share, or the longest
    that both tried if that is shorter. The true quality is shown beside it.
    """
    pairs = run.ordered("fractions", "fraction")
    if len(pairs) > 2:
        best = max(pairs[1:-1], key=lambda pair: run.peak(pair)[0])
        yield from _at_equal_step(run, best, pairs[pairs.index(best) + 1])


def _at_equal_step(run: Run, one: str, other: str) -> Iterator[Measure]:
    """The difference of two pairs at equal |alpha delta|, counted from theta1."""
    sizes = {pair: found["overall"]["delta"] for pair, found in _smallness(run, [one, other])}
    if len(sizes) == 2:
        step = min(run.best_alpha(one) * sizes[one], *(run.grid(pair)[-1] * sizes[pair] for pair in sizes))
        for quantity in ["reward", *(["quality"] if run.knows_quality else [])]:
            values = [
                run.at(pair, quantity, min(step / sizes[pair], run.grid(pair)[-1])) for pair in (one, other)
            ]
            expected, note = ("above" if quantity == "reward" else ""), f"step {step:.3g}"
            yield measured(quantity, f"{one} less {other}", values[0] - values[1], expected, note=note)


@statement(
    6,
    "4.2, Figure 5",
    "In the plane through three checkpoints, the smaller share's step points to the top",
    "cosine with the point of the highest reward, smaller share minus larger share",
)
def plane_top_is_nearer(run: Run) -> Iterator[Measure]:
    """Directions in the plane are seen from the SFT model. The number is the cosine of the first
    pair's step with the point of the highest reward, minus that of the second pair's step. The lead
    of that point over the best rewards of both sweeps is shown beside it. Both numbers are shown
    for the true quality, too.
    """
    for name, table in run.planes.items():
        pairs = run.config.theory.planes[name].pairs
        for quantity in ("reward", "quality"):
            if table[quantity].isna().any():
                continue
            top = table.loc[table[quantity].idxmax()]
            one, other = (_cosine_in_plane(table, top, *place) for place in ((1, 0), (0, 1)))
            expected = "above" if quantity == "reward" else ""
            note = f"top at a {top['a']:.3g}, b {top['b']:.3g}"
            subject = f"{pairs[0]} less {pairs[1]}"
            yield measured(f"cosine with the highest {quantity}", subject, one - other, expected, note=note)
            swept = max(float(run.draws(pair, quantity)[0].max()) for pair in pairs)
            yield measured(f"{quantity} above the sweeps", name, top[quantity] - swept)


def _cosine_in_plane(table, top, a: float, b: float) -> float:
    """Cosine of a point of the plane with the checkpoint at (a, b), seen from theta0.

    It is 0 if one of them is theta0 itself.
    """
    step = table[(table["a"] == a) & (table["b"] == b)][["x", "y"]].iloc[0].to_numpy(dtype=float)
    point = top[["x", "y"]].to_numpy(dtype=float)
    size = np.linalg.norm(step) * np.linalg.norm(point)
    return float(step @ point / size) if size else 0.0
