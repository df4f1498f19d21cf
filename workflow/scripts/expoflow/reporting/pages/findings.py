"""The answer of a run, pair by pair: the choice, its certificate, losses and warnings."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from expoflow.benchmarks.lm_eval.files import Plan
from expoflow.files.records import read_json
from expoflow.paths import Results
from expoflow.reporting import remarks
from expoflow.reporting.pages.provenance import Told
from expoflow.reporting.tables import read
from expoflow.reporting.words import beside, compared, judged, worse
from expoflow.results import Best, Certificate, read_certificate
from expoflow.selection.criteria import CRITERIA

Row = Mapping[str, str]


@dataclass(frozen=True)
class Finding:
    """What the top of the page says about a pair.

    `verdict` is one of: certified, not certified, worse, aligned kept, not judged, a rehearsal.
    `notes` are further remarks on the choice. `by` is the criterion that chose alpha.
    """

    pair: str
    best: Best
    certificate: Certificate | None
    said: remarks.Remarks
    by: str = "reward"
    rehearsal: bool = False

    @property
    def judged(self) -> str:
        """The certificate in a sentence."""
        return judged(self.best, self.certificate)

    @property
    def answer(self) -> str:
        """The answer in a sentence: what is proved about the chosen alpha."""
        certificate = self.certificate
        if certificate is None or not certificate.held_out:
            return f"Certificate: {self.judged}"
        if self.best.alpha == "0":
            return f"{self.judged[0].upper()}{self.judged[1:]}"
        return f"Over the aligned model: {self.judged}"

    @property
    def verdict(self) -> str:
        """The certificate in two words."""
        certificate = self.certificate
        if self.rehearsal:
            return "a rehearsal"
        if self.best.alpha == "0":
            return "aligned kept"
        if certificate is None or not certificate.held_out:
            return "not judged"
        if certificate.certified:
            return "certified"
        return "worse" if worse(certificate) else "not certified"

    @property
    def chosen_certified(self) -> str:
        """Whether the change in the criterion is certified on the prompts that chose alpha."""
        if self.rehearsal:
            return "a rehearsal"
        of = "" if self.by == "reward" else f", by {CRITERIA[self.by].short}"
        return ("yes" if self.best.certified else "no") + of

    @property
    def reason(self) -> str:
        """Why this alpha was chosen, without the parts that are among the warnings."""
        text = remarks.without_next(self.best).reason
        for warning in self.best.warnings:
            text = text.replace(f"; {warning}", "")
        return text

    @property
    def notes(self) -> list[str]:
        """Further remarks on the choice."""
        return [*filter(None, (beside(self.best), compared(self.best)))]

    @property
    def warnings(self) -> list[str]:
        """Warnings: what may be wrong or is not finished."""
        said = self.said
        more = f": try alpha {', '.join(said.more)}" if said.more else ""
        return [*filter(None, (said.exchanged, *self.best.warnings, said.further and said.further + more))]


def findings(
    pairs: Iterable[str],
    benchmarks: Sequence[Row],
    higher: Mapping[str, Mapping[str, bool | None]],
    told: Told,
    results: Results,
) -> list[Finding]:
    """The findings on every pair, from its files below `results`."""
    found = []
    for pair in pairs:
        best = read_json(results.best(pair), Best)
        certificate = read_certificate(results.certificate(pair), best)
        alphas = [*read([results.alphas(pair)], ("alpha",))]
        confidence = told.confidence.get(pair)
        said = remarks.Remarks(remarks.responses(alphas, best.alpha))
        if confidence:  # otherwise it is a rehearsal
            said = remarks.of_pair(best, certificate, alphas, benchmarks, higher.get(pair, {}), confidence)
        by = told.pairs.get(pair, {}).get("by", "reward")
        found.append(Finding(pair, best, certificate, said, by, rehearsal=not confidence))
    return found


def directions(told: Told) -> dict[str, Mapping[str, bool | None]]:
    """Whether more is better, for every known metric of lm-eval, by pair."""
    plans = {pair: Path(entry["plan"]) for pair, entry in told.pairs.items() if entry.get("plan")}
    return {pair: read_json(path, Plan).higher for pair, path in plans.items() if path.exists()}
