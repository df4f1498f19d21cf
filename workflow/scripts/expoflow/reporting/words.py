"""The choice of alpha and its certificate in words.

They are used on the terminal, on the page, in the figures and on the card of a published model.
"""

from expoflow.config.figures import KINDS, FigureConfig
from expoflow.reporting import rehearsal
from expoflow.results import Best, Certificate
from expoflow.selection.criteria import CRITERIA, Criterion, with_interval

MARKS = "Hollow marks are the paper's."
SAME = "alpha was chosen and judged on the same prompts"


def best_line(best: Best, reward_aligned: float | str | None) -> str:
    """One line per pair: `mini20: best alpha 8, reward 0.41 -> 1.04, gain 0.63 [0.49, 0.77]`.

    Without rewards it has alpha and the reason. Warnings about degenerate responses follow; a
    reason already contains them.
    """
    return "; ".join(best_lines(best, reward_aligned))


def best_lines(
    best: Best, reward_aligned: float | str | None, certificate: Certificate | None = None
) -> list[str]:
    """The choice and the remarks on it.

    The gain of the certificate comes first if there is one, because it is the one to quote.
    """
    if best.reward is None:
        chose, more = best.reason, []
    else:
        gain = with_interval(best.gain, best.gain_low, best.gain_high)
        chose = f"reward {float(reward_aligned):.2f} -> {best.reward:.2f}, gain {gain}"
        more = best.warnings if best.certified else [best.reason]
    line = f"{best.pair}: best alpha {best.alpha}"
    if certificate and certificate.held_out:
        chosen_on = f"on {certificate.chosen_on}, where alpha was chosen: {chose}"
        return [f"{line}, {certificate_words(certificate)}", "; ".join([chosen_on, *more])]
    line += f": {chose}" if best.reward is None else f", {chose}"
    return [line, *more, *([certificate_words(certificate)] if certificate else [])]


def certificate_words(certificate: Certificate) -> str:
    """The certificate in words.

    For example: `gain 0.45 [0.30, 0.61] on 300 prompts of test that took no part in the choice`. It
    says so if there are no such prompts, or if this is a rehearsal.
    """
    said = _certificate_words(certificate)
    return f"{said}; {rehearsal_words(certificate)}" if certificate.rehearsal else said


def rehearsal_words(certificate: Certificate | None) -> str:
    """The note that this is a rehearsal; empty if it is not."""
    return rehearsal.words(certificate.rehearsal) if certificate else ""


def _certificate_words(certificate: Certificate) -> str:
    if not certificate.held_out:
        return SAME
    if certificate.alpha == "0":
        return "the aligned model is kept, so there is no gain to certify"
    line = f"{short_certificate(certificate)} on {certificate.prompts} prompts of {certificate.judged_on} that took no part in the choice"
    line += "" if certificate.certified or certificate.rehearsal else f", {_verdict(certificate)}"
    line += left_out_words(certificate)
    more = f" (these prompts were looked at {certificate.looks} times)"
    return line + more if certificate.looks > 1 else line


def left_out_words(certificate: Certificate) -> str:
    """` (20 more prompts of test chose alpha too, and do not count)`, if there are such prompts."""
    if not certificate.left_out:
        return ""
    return (
        f" ({certificate.left_out} more prompts of {certificate.judged_on} chose alpha too, and do not count)"
    )


def short_certificate(certificate: Certificate) -> str:
    """`gain 0.45 [0.30, 0.61]`."""
    criterion = CRITERIA[certificate.measure]
    what = criterion.change if criterion.rewarded else f"{criterion.change} of {criterion.short}"
    return f"{what} {with_interval(certificate.gain, certificate.low, certificate.high)}"


def worse(certificate: Certificate) -> bool:
    """Whether the chosen model is surely worse than the aligned one on the held-out prompts."""
    if certificate.low is None or certificate.high is None:
        return False
    maximum = CRITERIA[certificate.measure].maximum
    return certificate.high < 0 if maximum else certificate.low > 0


def _verdict(certificate: Certificate) -> str:
    """Why a gain is not certified."""
    if worse(certificate):
        return "worse than the aligned model there"
    return (
        "not certified: the interval contains 0"
        if certificate.low is not None
        else "not certified: too few prompts, or the interval is not known"
    )


def optimism_words(best: Best) -> str:
    """How much of the gain is due to the choice among alphas; empty if that is not known."""
    if best.optimism is None:
        return ""
    if round(best.optimism, 2) <= 0:
        return "hardly any of the gain is due to choosing the best of several alphas"
    return f"about {best.optimism:.2f} of the gain is due to choosing the best of several alphas"


def caption(figure: FigureConfig, marked: bool, shown: Criterion) -> str:
    """The text below a figure.

    `marked` says that the figure also shows the paper's numbers. `shown` is the measure that it
    shows first.
    """
    kind = KINDS[figure.kind]
    text = kind.caption if figure.caption is None else figure.caption
    if figure.caption is None and kind.without_rewards and not shown.rewarded:
        text = kind.without_rewards.format(shown=shown.shown)
    return f"{text} {MARKS}" if marked else text


def compared(best: Best) -> str:
    """Choices of other criteria: `On the same responses: by nll alpha 8, by implicit alpha 2.`"""
    said = ", ".join(f"by {by} alpha {alpha}" for by, alpha in best.others.items())
    return f"On the same responses: {said}." if said else ""


def judged(best: Best, certificate: Certificate | None) -> str:
    """The certificate of a choice in words and whether it is certified; or why there is none."""
    if certificate is None:
        earlier = best.prompts is None
        return "none: this choice was made by an earlier version" if earlier else "none yet; run snakemake"
    words = certificate_words(certificate)
    return f"{words}: certified" if certificate.certified else words


def beside(best: Best) -> str:
    """A remark on the gain that the reason does not contain."""
    if best.prompts is None:
        return (
            "The interval is from an earlier version, which computed it as if no other alpha had been tried."
        )
    words = optimism_words(best)
    return f"{words[0].upper()}{words[1:]}." if words else ""


def duration(seconds: float) -> str:
    """`48 s`, `12 min 3 s`, `5 h 12 min`, `2 d 3 h`."""
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    left, parts = round(seconds), []
    for name, size in units:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {name}" if count else "")
        if len(parts) == 2:
            break
    return " ".join(filter(None, parts)) or "0 s"
