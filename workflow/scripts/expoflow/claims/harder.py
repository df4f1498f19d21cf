"""Training harder instead of extrapolating (section 4.3), and training on the dev prompts (Appendix F)."""

from collections.abc import Iterator

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement

SETTINGS = {"learning_rates": "learning_rate", "epochs": "epochs"}


def _harder(run: Run) -> Iterator[tuple[str, str]]:
    """Every pair that was trained harder, with its default."""
    for key, setting in SETTINGS.items():
        default, *harder = run.ordered(key, setting) or [""]
        yield from ((pair, default) for pair in harder)


@statement(5, "4.3, Figure 7", "Larger learning rates and more epochs raise the reward without ExPO")
def harder_is_better(run: Run) -> Iterator[Measure]:
    """Reward at alpha 0 on the dev prompts, trained harder less the default."""
    for pair, default in _harder(run):
        difference = run.aligned_mean(pair, "reward") - run.aligned_mean(default, "reward")
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


@statement(5, "4.3, Figure 7", "They stay below the default with ExPO")
def harder_stays_below_expo(run: Run) -> Iterator[Measure]:
    """The default's reward at its chosen alpha less the reward at alpha 0 of training harder, on the dev prompts."""
    for pair, default in _harder(run):
        difference = run.peak(default) - run.aligned_mean(pair, "reward")
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


@statement(5, "4.3, Figure 7", "With ExPO, too, they stay below the default with ExPO")
def harder_peaks_lower(run: Run) -> Iterator[Measure]:
    """The default's reward at its chosen alpha less that of training harder at its own, on the dev prompts."""
    for pair, default in _harder(run):
        yield measured("reward", pair, run.peak(default) - run.peak(pair), "above", n=run.prompts(pair))


@statement(5, "4.3, Figure 7", "Training harder shrinks the best alpha")
def harder_shrinks_alpha(run: Run) -> Iterator[Measure]:
    """The default's best alpha less that of training harder; alphas are chosen anew in every draw."""
    for pair, default in _harder(run):
        difference = run.best_alphas(default) - run.best_alphas(pair)
        yield measured("best alpha", pair, difference, "above", n=run.prompts(pair))


@statement(5, "4.3, Figure 7", "Training harder shrinks the gain")
def harder_shrinks_gain(run: Run) -> Iterator[Measure]:
    """The default's gain in reward on the dev prompts less that of training harder."""
    for pair, default in _harder(run):
        yield measured("gain", pair, run.gain(default) - run.gain(pair), "above", n=run.prompts(pair))


@statement(5, "4.3, Figure 7", "Models trained harder lengthen their responses at a smaller alpha")
def harder_lengthens(run: Run) -> Iterator[Measure]:
    """Growth of the length from alpha 0 to the smallest alpha above 0 that both pairs tried: trained harder less
    default, in tokens."""
    for pair, default in _harder(run):
        shared = set(run.grid(pair)) & set(run.grid(default))
        if alphas := sorted(alpha for alpha in shared if alpha > 0):
            growth = [
                run.at(each, "length", alphas[0]) - run.aligned_mean(each, "length")
                for each in (pair, default)
            ]
            note = f"at alpha {alphas[0]:g}"
            yield measured("tokens", pair, growth[0] - growth[1], "above", n=run.prompts(pair), note=note)


@statement(12, "4.2, Appendix F", "Training further on the dev prompts stays below ExPO on the dev prompts")
def dev_training_stays_below(run: Run) -> Iterator[Measure]:
    """Reward on the dev prompts: ExPO at the chosen alpha less the model trained further on them, with labels."""
    for pair, other in _trained_on_dev(run):
        difference = run.peak(pair) - run.aligned_mean(other, "reward")
        yield measured("reward", pair, difference, "above", n=run.prompts(pair))


@statement(12, "Appendix F", "The same on prompts that neither of the two has seen")
def dev_training_stays_below_on_test(run: Run) -> Iterator[Measure]:
    """As above on the test prompts."""
    for pair, other in _trained_on_dev(run):
        yield measured("reward", pair, run.test(pair, "expo") - run.test(other, "aligned"), "above")


@statement(12, "Appendix F", "ExPO is then ahead in true quality, too (not asked by the paper)")
def dev_training_stays_below_in_quality(run: Run) -> Iterator[Measure]:
    """As above in true quality on the test prompts."""
    for pair, other in _trained_on_dev(run) if run.knows_quality else ():
        difference = run.test(pair, "expo", "quality") - run.test(other, "aligned", "quality")
        yield measured("quality", pair, difference, "above")


def _trained_on_dev(run: Run) -> Iterator[tuple[str, str]]:
    """Every pair whose aligned model was trained further on the dev prompts, with the pair of the result."""
    for name, pair in run.config.pairs.items():
        if pair.trained_on_dev:
            yield name, pair.trained_on_dev
