"""The choice of alpha and its certificate in words, for the terminal, the page, the figures and the card of a published model."""

from expoflow.results import Best, Certificate
from expoflow.selection.criteria import CRITERIA

SAME = "chosen and judged on the same prompts"


def best_line(best: Best, reward_aligned: float | str | None, certificate: Certificate | None = None) -> str:
    """One line a pair: `mini20: best alpha 8, reward 0.41 -> 1.04, gain 0.63 [0.49, 0.77]`; or alpha and reason.

    With a certificate its gain comes first, for it is the one to quote. What is to be said of degenerate responses
    follows; a reason has it already.
    """
    if best.reward is None:
        chose, more = best.reason, []
    else:
        gain = _number(best.gain, best.gain_low, best.gain_high)
        chose = f"reward {float(reward_aligned):.2f} -> {best.reward:.2f}, gain {gain}"
        more = best.warnings if best.certified else [f"not certified: {best.reason}"]
    line = f"{best.pair}: best alpha {best.alpha}"
    if certificate and certificate.held_out:
        line += f", {certificate_words(certificate)}; {certificate.chosen_on}, which chose it: {chose}"
    else:
        line += f": {chose}" if best.reward is None else f", {chose}"
        more = [*more, SAME] if certificate else more
    return "; ".join([line, *more])


def certificate_words(certificate: Certificate) -> str:
    """`gain 0.45 [0.30, 0.61] on 300 prompts of test that took no part in the choice`; or that there are no such prompts."""
    if not certificate.held_out:
        return SAME
    criterion = CRITERIA[certificate.measure]
    what = criterion.change if criterion.rewarded else f"{criterion.change} of {criterion.words}"
    line = f"{what} {_number(certificate.gain, certificate.low, certificate.high)} on {certificate.prompts} prompts of "
    line += f"{certificate.judged_on} that took no part in the choice"
    if not certificate.certified and certificate.alpha != "0":
        line += ", not certified"
    return f"{line}, seen {certificate.looks} times" if certificate.looks > 1 else line


def short_certificate(certificate: Certificate) -> str:
    """`gain 0.45 [0.30, 0.61]`: what a figure has room for."""
    criterion = CRITERIA[certificate.measure]
    what = criterion.change if criterion.rewarded else criterion.short
    return f"{what} {_number(certificate.gain, certificate.low, certificate.high)}"


def optimism_words(best: Best) -> str:
    """How much choosing makes the gain look better; nothing if that is not known, or alpha 0 was chosen."""
    if best.optimism is None or best.alpha == "0":
        return ""
    return f"choosing the best alpha makes it look better by about {best.optimism:.2f}"


def _number(value: float | None, low: float | None, high: float | None) -> str:
    """`0.45 [0.30, 0.61]`, as far as it is known."""
    known = "not known" if value is None else f"{value:.2f}"
    return known if low is None or high is None else f"{known} [{low:.2f}, {high:.2f}]"
