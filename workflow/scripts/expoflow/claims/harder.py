"""Training harder (section 4.3) or on the dev prompts (Appendix F) instead of extrapolating."""

from collections.abc import Iterator

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement

SETTINGS = {"learning_rates": "learning_rate", "epochs": "epochs"}


def _harder(run: Run) -> Iterator[tuple[str, str]]:
    """Every pair that was trained harder, with its default."""
    for key, setting in SETTINGS.items():
        default, *harder = run.ordered(key, setting) or [""]
        yield from ((pair, default) for pair in harder)


@statement(
    5,
    "4.3, Figure 7",
    "Larger learning rates and more epochs raise the reward without ExPO",
    "reward without ExPO, trained harder minus default",
)
def harder_is_better(run: Run) -> Iterator[Measure]:
    """The reward at alpha 0 on the dev prompts: training harder minus the default."""
    for pair, default in _harder(run):
        difference = run.aligned_mean(pair, "reward") - run.aligned_mean(default, "reward")
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


@statement(
    5,
    "4.3, Figure 7",
    "Without ExPO, models that were trained harder stay below the default with ExPO",
    "reward, default with ExPO minus trained harder without ExPO",
)
def harder_stays_below_expo(run: Run) -> Iterator[Measure]:
    """The reward on the dev prompts: the default at its best alpha minus training harder at alpha
    0.
    """
    for pair, default in _harder(run):
        difference = run.peak(default) - run.aligned_mean(pair, "reward")
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


@statement(
    5,
    "4.3, Figure 7",
    "With ExPO, too, models that were trained harder stay below the default with ExPO",
    "reward with ExPO, default minus trained harder",
)
def harder_peaks_lower(run: Run) -> Iterator[Measure]:
    """The reward on the dev prompts: the default at its best alpha minus training harder at its own
    best alpha.
    """
    for pair, default in _harder(run):
        yield measured("reward", pair, run.peak(default) - run.peak(pair), "above", n=run.prompts(pair))


@statement(
    5, "4.3, Figure 7", "Training harder shrinks the best alpha", "best alpha, default minus trained harder"
)
def harder_shrinks_alpha(run: Run) -> Iterator[Measure]:
    """The default's best alpha minus that of training harder. Alphas are chosen again in every
    bootstrap draw.
    """
    for pair, default in _harder(run):
        difference = run.best_alphas(default) - run.best_alphas(pair)
        yield measured("best alpha", pair, difference, "above", n=run.prompts(pair))


@statement(
    5, "4.3, Figure 7", "Training harder shrinks the gain", "gain in reward, default minus trained harder"
)
def harder_shrinks_gain(run: Run) -> Iterator[Measure]:
    """The gain in reward on the dev prompts: the default minus training harder."""
    for pair, default in _harder(run):
        yield measured("gain", pair, run.gain(default) - run.gain(pair), "above", n=run.prompts(pair))


@statement(
    5,
    "4.3, Figure 7",
    "Models that were trained harder lengthen their responses at a smaller alpha",
    "growth of the length, trained harder minus default (tokens)",
)
def harder_lengthens(run: Run) -> Iterator[Measure]:
    """The growth of the mean length, in tokens, from alpha 0 to the smallest alpha above 0 that
    both pairs tried: training harder minus the default.
    """
    for pair, default in _harder(run):
        shared = set(run.grid(pair)) & set(run.grid(default))
        if alphas := sorted(alpha for alpha in shared if alpha > 0):
            growth = [
                run.at(each, "length", alphas[0]) - run.aligned_mean(each, "length")
                for each in (pair, default)
            ]
            note = f"at alpha {alphas[0]:g}"
            yield measured("tokens", pair, growth[0] - growth[1], "above", n=run.prompts(pair), note=note)


@statement(
    12,
    "4.2, Appendix F",
    "Training further on the dev prompts stays below ExPO on the dev prompts",
    "reward on the dev prompts, ExPO minus trained further",
)
def dev_training_stays_below(run: Run) -> Iterator[Measure]:
    """The reward on the dev prompts: ExPO at the best alpha minus the model that was trained
    further on these prompts, with labels.
    """
    for pair, other in _trained_on_dev(run):
        difference = run.peak(pair) - run.aligned_mean(other, "reward")
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


@statement(
    12,
    "Appendix F",
    "On unseen prompts, too, training further on the dev prompts stays below ExPO",
    "reward on the test prompts, ExPO minus trained further",
)
def dev_training_stays_below_on_test(run: Run) -> Iterator[Measure]:
    """The reward on the test prompts, which neither model has seen: ExPO at the best alpha minus
    the model that was trained further on the dev prompts.
    """
    for pair, other in _trained_on_dev(run):
        yield measured("reward", pair, run.test(pair, "expo") - run.test(other, "aligned"), "above")


@statement(
    12,
    "Appendix F",
    "In true quality, too, training further on the dev prompts stays below ExPO (not a claim of the paper)",
    "true quality on the test prompts, ExPO minus trained further (points)",
)
def dev_training_stays_below_in_quality(run: Run) -> Iterator[Measure]:
    """The true quality on the test prompts: ExPO at the best alpha minus the model that was trained
    further on the dev prompts.
    """
    for pair, other in _trained_on_dev(run) if run.knows_quality else ():
        difference = run.test(pair, "expo", "quality") - run.test(other, "aligned", "quality")
        yield measured("quality", pair, difference, "above")


def _trained_on_dev(run: Run) -> Iterator[tuple[str, str]]:
    """Every pair that was trained further on the dev prompts, with the pair of the result."""
    for name, pair in run.config.pairs.items():
        if pair.trained_on_dev:
            yield name, pair.trained_on_dev
