"""The explanation of section 2.2: the slope along delta, how small the steps are, and where they point (Figure 5)."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement

SMALL = 0.1  # of |theta1|
TOLERANCE = 0.1  # within which Eq. 2 is said to hold
OBJECTIVES = {"reward": "expected reward", "margin": "preference margin"}


def _first_order(run: Run, pairs: list[str]) -> Iterator[tuple[str, str, dict]]:
    """Pair, objective and what theory.json says of it."""
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


@statement(1, "2.2", "At the aligned model, the objective rises along delta")
def slope_is_positive(run: Run) -> Iterator[Measure]:
    """Gradient at theta1 times delta, per unit of alpha: of the expected reward by policy gradient, of the margin of
    held-out preferences (nats) by autograd; all pairs that were aligned."""
    for pair, objective, found in _first_order(run, run.aligned):
        yield _slope(objective, pair, found, "above")


@statement(
    1, "2.2, 4.4", "Along the difference of two models that were not aligned one from the other, it does not"
)
def combinations_have_no_slope(run: Run) -> Iterator[Measure]:
    """The slope of the expected reward, as above, of the four combinations; that of the margin is told."""
    for pair, objective, found in _first_order(run, run.claims.combinations.pairs()):
        yield _slope(objective, pair, found, "not above" if objective == OBJECTIVES["reward"] else "")


@statement(1, "2.2", "The gradient says what a small step does")
def gradient_is_right(run: Run) -> Iterator[Measure]:
    """Distance of the finite difference at alpha 0 from the gradient's slope, as a share of the slope, less 10 %: below 0
    where they agree. Of the margin, which is computed exactly; the reward's difference is sampled, and told."""
    for pair, objective, found in _first_order(run, list(run.config.pairs)):
        if found["slope"]:
            apart = abs(found["difference"] / found["slope"] - 1) - TOLERANCE
            expected = "below" if objective == OBJECTIVES["margin"] else ""
            yield measured(f"{objective}, apart", pair, apart, expected)


@statement(1, "2.2, Eq. 2", "The best alpha lies where the first order explains the change")
def first_order_reaches_best(run: Run) -> Iterator[Measure]:
    """Largest alpha up to which the margin follows Eq. 2 within 10 %, as a share of the best alpha, less 1; of aligned
    pairs with a best alpha above 0."""
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


@statement(2, "2.2", "Alignment moves the weights little: |delta| is small")
def delta_is_small(run: Run) -> Iterator[Measure]:
    """|delta| / |theta1| less 0.1, of all pairs that were aligned; by kind of module it is told."""
    for pair, found in _smallness(run, run.aligned):
        yield measured("ratio less 0.1", pair, found["overall"]["ratio"] - SMALL, "below")
        for kind, effect in found["kinds"].items():
            yield measured(f"ratio, {kind}", pair, effect["ratio"])


@statement(2, "2.2", "The step that is chosen is small, too: |alpha delta| is far below |theta1|")
def step_is_small(run: Run) -> Iterator[Measure]:
    """|alpha delta| / |theta1| at the chosen alpha less 0.1, of all pairs that were aligned."""
    for pair, found in _smallness(run, run.aligned):
        ratio = run.best_alpha(pair) * found["overall"]["ratio"]
        yield measured("ratio less 0.1", pair, ratio - SMALL, "below")


@statement(2, "2.2, 4.2", "Over shares of the data, best alpha times |delta| varies less than the best alpha")
def step_is_the_same(run: Run) -> Iterator[Measure]:
    """Largest over smallest best alpha, less largest over smallest best alpha times |delta|; alphas are chosen anew in
    every draw."""
    sizes = {
        pair: found["overall"]["delta"]
        for pair, found in _smallness(run, run.ordered("fractions", "fraction"))
    }
    if len(sizes) > 1:
        smallest = {pair: run.grid(pair)[run.grid(pair) > 0].min() for pair in sizes}  # 0 has no ratio
        alphas = np.stack([np.maximum(run.best_alphas(pair), smallest[pair]) for pair in sizes])
        steps = alphas * np.array(list(sizes.values()))[:, None]
        ratios = [each.max(axis=0) / each.min(axis=0) for each in (alphas, steps)]
        yield measured("ratio", "alpha less step", ratios[0] - ratios[1], "above", n=len(sizes))
        yield measured("largest over smallest", "best alpha", ratios[0])
        yield measured("largest over smallest", "best alpha times |delta|", ratios[1])
        for (pair, size), alpha in zip(sizes.items(), alphas, strict=True):
            yield measured("best alpha times |delta|", pair, alpha * size)


@statement(6, "4.2, Figure 5", "Steps of more data point more nearly to where all data point")
def cosines_rise(run: Run) -> Iterator[Measure]:
    """Cosine between a share's delta and that of all data: smallest rise from one share to the next larger one. Cosines
    with all data, rates and epochs are told."""
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
    6, "4.2, Figure 5", "At equal steps, a medium share's direction is better than that of the least data"
)
def direction_beats_least_data(run: Run) -> Iterator[Measure]:
    """Reward at the same |alpha delta| (linear between alphas), of the share with the highest peak less that of the
    smallest share, at the best step of the former or the longest that both tried; quality is told."""
    pairs = run.ordered("fractions", "fraction")
    if len(pairs) > 2:
        best = max(pairs[1:-1], key=lambda pair: run.peak(pair)[0])
        yield from _at_equal_step(run, best, pairs[0])


@statement(6, "4.2, Figure 5", "And better than that of more data")
def direction_beats_more_data(run: Run) -> Iterator[Measure]:
    """As above, against the next larger share."""
    pairs = run.ordered("fractions", "fraction")
    if len(pairs) > 2:
        best = max(pairs[1:-1], key=lambda pair: run.peak(pair)[0])
        yield from _at_equal_step(run, best, pairs[pairs.index(best) + 1])


def _at_equal_step(run: Run, one: str, other: str) -> Iterator[Measure]:
    """Differences at equal |alpha delta|, counted from theta1."""
    sizes = {pair: found["overall"]["delta"] for pair, found in _smallness(run, [one, other])}
    if len(sizes) == 2:
        step = min(run.best_alpha(one) * sizes[one], *(run.grid(pair)[-1] * sizes[pair] for pair in sizes))
        for quantity in ["reward", *(["quality"] if run.knows_quality else [])]:
            values = [
                run.at(pair, quantity, min(step / sizes[pair], run.grid(pair)[-1])) for pair in (one, other)
            ]
            expected, note = ("above" if quantity == "reward" else ""), f"step {step:.3g}"
            yield measured(quantity, f"{one} less {other}", values[0] - values[1], expected, note=note)


@statement(6, "4.2, Figure 5", "In the plane through three checkpoints, both rays lead to higher rewards")
def plane_rises_along_rays(run: Run) -> Iterator[Measure]:
    """Reward of the best grid point on either ray beyond its aligned model less that of the aligned model; where the
    plane's largest reward and quality lie is told."""
    for name, table in run.planes.items():
        rays = {"a": table[table["b"] == 0], "b": table[table["a"] == 0]}
        for axis, ray in rays.items():
            start, beyond = ray[ray[axis] == 1], ray[ray[axis] > 1]
            if len(start) and len(beyond):
                rise = beyond["reward"].max() - start["reward"].iloc[0]
                yield measured("reward", f"{name}, ray {axis}", rise, "above")
        for quantity in ("reward", "quality"):
            if table[quantity].notna().any():
                top = table.loc[table[quantity].idxmax()]
                note = f"a {top['a']:g}, b {top['b']:g}"
                yield measured(f"largest {quantity}", name, top[quantity], note=note)
