"""The summary of the page of claims: sentences to quote, with every number from measures.csv."""

from collections.abc import Mapping
from string import Formatter

from expoflow.claims.answers import Answer, paragraph
from expoflow.claims.regret import ALL, Lost
from expoflow.claims.statement import DEPENDS, FAILS, HOLDS

INTRODUCTION = (
    "{statements} statements on the paper's claims were measured over {runs} runs (seeds) of the miniature, a small world "
    "in which the true quality of every response is known: {counts}. Numbers are means, with the smallest and the "
    "largest in brackets."
)
# A point is left out if a statement that it quotes was not measured.
POINTS = (
    "**Gain in true quality**: {quality_follows.mean} points on unseen prompts, clearly above 0 in "
    "{quality_follows.met} cases (pairs times runs): *{quality_follows.verdict}*.",
    "**Best smaller share with ExPO minus all data without**: reward {share_beats_all_data.mean}, "
    "*{share_beats_all_data.verdict}*.",
    "**True quality lost by the choice of alpha**: {lost[none]:.3f} points without ExPO, {lost[reward]:.3f} by "
    "reward, {lost[nll]:.3f} by NLL without a reward model, {lost[implicit]:.3f} by implicit reward.",
    "**Default minus harder training, both with ExPO**: reward {harder_peaks_lower.mean}, clearly above 0 in "
    "{harder_peaks_lower.met} cases: *{harder_peaks_lower.verdict}*.",
    "**Side effects**: responses grow by {responses_lengthen.mean} tokens; the accuracy of a task changes by "
    "{tasks_keep.mean}, without a clear loss in {tasks_keep.met} cases.",
    "**First-order argument**: the objective rises along delta in {slope_is_positive.met} cases, "
    "*{slope_is_positive.verdict}*.",
)


def summary(
    found: Mapping[str, Answer], regret: Mapping[str, Mapping[str, Lost]], runs: int, caveat: str = ""
) -> str:
    """The lines of the summary; `caveat` is a paragraph that ends it."""
    said = [answer.verdict for answer in found.values()]
    words = {HOLDS: "hold", FAILS: "do not", DEPENDS: "depend on the pair or the run"}
    counts = [f"{said.count(verdict)} {word}" for verdict, word in words.items()]
    text = INTRODUCTION.format(
        statements=len(found), runs=runs, counts=f"{', '.join(counts[:-1])} and {counts[-1]}"
    )
    known = dict(found) | {"lost": {way: lost.mean for way, lost in regret.get(ALL, {}).items()}}
    text = paragraph(text) + "\n"
    for point in POINTS:
        if all(_is_known(field, known) for _, field, _, _ in Formatter().parse(point) if field):
            text += paragraph(point.format(**known), "- ")
    return f"{text}\n{paragraph(caveat)}" if caveat else text


def _is_known(field: str, known: Mapping) -> bool:
    try:
        Formatter().get_field(field, (), known)
    except KeyError:
        return False
    return True
