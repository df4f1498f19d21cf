"""How often people prefer expo's answers to aligned's: votes on the answers of this run."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.human.files import HELD_OUT, Vote, answer_digest, read_votes
from expoflow.benchmarks.metrics import share
from expoflow.config.base import spell
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.extrapolation.recipe import Achieved
from expoflow.files.records import read_json
from expoflow.paths import RESULTS
from expoflow.results import Metric, Scored
from expoflow.scoring.answers import read_answers
from expoflow.selection.split import choosing

ALIGNED = "0"  # the alpha of the aligned model
WORTH = {"expo": 1.0, "tie": 0.5, "aligned": 0.0}

# The prompt set, prompt and sample of a vote; and the digests of the answers of aligned and expo.
Place = tuple[str, str, int]
Answers = tuple[str, str]


@dataclass(frozen=True)
class Counted:
    """The votes that count, and the numbers of those that do not.

    `other` votes are on answers of another run. `replaced` votes have a later vote by the same
    voter. `chose` votes are on prompts that chose alpha; they do not count if there are votes on
    held-out prompts.
    """

    votes: Sequence[Vote]
    held_out: bool
    other: int = 0
    replaced: int = 0
    chose: int = 0


def run_comparison(comparison: Comparison) -> None:
    """Write the win rate of the votes in `inputs["votes"]`.

    They are votes on answers in `inputs["answers"]` and, if there are any, in the rows of the
    benchmark reward. Raises DataError if no vote is on these answers, or if expo is the aligned
    model.
    """
    pair, file = comparison.pair, comparison.inputs["votes"]
    alpha = spell(read_json(comparison.inputs["model"], Achieved).alpha)
    if alpha == ALIGNED:
        raise DataError(
            f"{pair}: alpha 0 was chosen, so expo is the aligned model and nobody can prefer it; remove human from the benchmarks"
            " of this pair"
        )
    sweep = _sweep(comparison.inputs["answers"], alpha)
    known = defaultdict(set, {place: {answers} for place, answers in sweep.items()})
    if "expo" in comparison.inputs:
        rows = (comparison.rows(variant, Scored) for variant in ("aligned", "expo"))
        for place, answers in _held_out(*rows).items():
            known[place].add(answers)
    own = [vote for vote in read_votes(file) if vote.pair == pair]
    counted = count(own, known, choosing((prompt for _, prompt, _ in sweep), comparison.select.judge))
    if not counted.votes:
        raise DataError(
            f"{file}: none of the {len(own)} votes on {pair} is on answers of alpha 0 and alpha {alpha}, which was chosen, as they are"
            f" now; vote again on {RESULTS.answers_page(pair)}, or remove human from the benchmarks of this pair"
        )
    for line in said(counted, pair):
        comparison.say(line)
    comparison.write(
        measure(counted, comparison.select), _prompts(comparison, counted.votes), **_told(counted, alpha)
    )


def count(votes: Iterable[Vote], known: Mapping[Place, set[Answers]], chose: set[str]) -> Counted:
    """Find the votes that count.

    A vote on answers that are not `known` does not count. Only the last of a voter's votes on the
    same answers counts. If there are votes on held-out prompts, those on prompts that `chose` alpha
    do not count.
    """
    all_votes = list(votes)
    ours = [
        vote
        for vote in all_votes
        if (vote.aligned, vote.expo) in known.get((vote.prompts, vote.prompt_id, vote.sample), ())
    ]
    last = {(vote.voter, vote.prompts, vote.prompt_id, vote.sample): vote for vote in ours}
    fresh = [vote for vote in last.values() if vote.prompt_id not in chose]
    return Counted(
        votes=fresh or [*last.values()],
        held_out=bool(fresh),
        other=len(all_votes) - len(ours),
        replaced=len(ours) - len(last),
        chose=len(last) - len(fresh) if fresh else 0,
    )


def measure(counted: Counted, config: SelectConfig) -> list[Metric]:
    """The win rate over prompts, the share of ties, and the share of wins of the left answer.

    The value of a prompt is the mean over its votes. Ties are counted over all votes, and wins of
    the left answer over votes with a winner. The win rate is called `sweep_win_rate` if these
    prompts also chose alpha. Two equal answers are a tie.
    """
    by_prompt = defaultdict(list)
    for vote in counted.votes:
        by_prompt[vote.prompt_id].append(WORTH[_winner(vote)])
    values = np.array([np.mean(worth) for worth in by_prompt.values()])
    name = "win_rate" if counted.held_out else "sweep_win_rate"
    decided = [vote.winner == vote.left for vote in counted.votes if _winner(vote) != "tie"]
    ties, total = len(counted.votes) - len(decided), len(counted.votes)
    metrics = [
        share(name, values, config.confidence),
        Metric(metric="ties", value=ties / total, n=total),
    ]
    if decided:
        metrics.append(Metric(metric="left_won", value=float(np.mean(decided)), n=len(decided)))
    return metrics


def said(counted: Counted, pair: str) -> Iterator[str]:
    """Lines on the votes that do not count, and on the prompts of the others."""
    if counted.other:
        yield f"{pair}: {counted.other} votes do not count: they are not on the answers of this run; vote again on {RESULTS.answers_page(pair)}"
    if counted.replaced:
        yield f"{pair}: {counted.replaced} votes do not count: the same voter voted again on the same answers"
    if counted.chose:
        yield f"{pair}: {counted.chose} votes do not count: they are on prompts that chose alpha, and there are votes on others"
    if not counted.held_out:
        yield f"{pair}: all votes are on prompts that also chose alpha: the win rate is not held-out (sweep_win_rate)"


def _winner(vote: Vote) -> str:
    return "tie" if vote.aligned == vote.expo else vote.winner


def _told(counted: Counted, alpha: str) -> dict[str, Any]:
    """The provenance of the votes, for the result."""
    votes = counted.votes
    return {
        "alpha": alpha,
        "held_out": counted.held_out,
        "votes": len(votes),
        "voters": len({vote.voter for vote in votes}),
        "expo_left": sum(vote.left == "expo" for vote in votes),
        "not_counted": {
            "other_answers": counted.other,
            "replaced": counted.replaced,
            "prompts_that_chose": counted.chose,
        },
    }


def _prompts(comparison: Comparison, votes: Iterable[Vote]) -> str:
    """The names of the prompt sets that the votes are on."""
    reward = comparison.config.section(comparison.pair, "benchmarks").reward
    own = {HELD_OUT: reward.prompts} if reward else {}
    return " and ".join(sorted({own.get(vote.prompts, vote.prompts) for vote in votes}))


def _held_out(aligned: Iterable[Scored], expo: Iterable[Scored]) -> dict[Place, Answers]:
    """The answers of the benchmark reward that both models gave."""
    texts = [
        {(HELD_OUT, row.prompt_id, row.sample): row.response for row in rows} for rows in (aligned, expo)
    ]
    return _both(*texts)


def _both(aligned: Mapping[Place, str], expo: Mapping[Place, str]) -> dict[Place, Answers]:
    return {
        place: (answer_digest(text), answer_digest(expo[place]))
        for place, text in aligned.items()
        if place in expo
    }


def _sweep(path: Path, alpha: str) -> dict[Place, Answers]:
    """The answers of the sweep at alpha 0 and at the chosen one."""
    texts: dict[str, dict[Place, str]] = {ALIGNED: {}, alpha: {}}
    columns = read_answers(path, ("alpha", "prompts", "prompt_id", "sample", "response")).to_pydict().values()
    for each, *place, response in zip(*columns, strict=True):
        if each in texts:
            texts[each][tuple(place)] = response
    return _both(texts[ALIGNED], texts[alpha])
