"""True quality and reward hacking (section 3.1), and capabilities (section 3.2, Appendix D)."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement

MARGIN = 0.03  # a change of a task's accuracy beyond this is flagged


@statement(
    10,
    "3.2, Figure 4, Appendix D",
    "ExPO does not cost the model its capabilities",
    "accuracy of a task, ExPO minus aligned",
)
def tasks_keep(run: Run) -> Iterator[Measure]:
    """The change of the accuracy of every task: ExPO at the best alpha minus the aligned model. The
    tasks are those of the benchmark open_llm, and the world's kinds of questions in the benchmark
    reward. The column note of measures.csv flags a change beyond 0.03 to either side, whatever its
    interval.
    """
    table = run.benchmarks[run.benchmarks["variant"] == "expo-aligned"]
    for pair in run.claims.capability:
        own = table[table["pair"] == pair]
        tasks = own[_is_task(own)]
        for row in tasks.itertuples():
            flag = f"changed by more than {MARGIN}" if abs(row.value) > MARGIN else ""
            subject = f"{pair}: {row.metric.removeprefix('accuracy_')}"
            interval = {"low": row.low, "high": row.high}
            fields = {name: None if np.isnan(value) else float(value) for name, value in interval.items()}
            yield Measure(
                quantity="accuracy",
                subject=subject,
                value=float(row.value),
                expected="not below",
                n=int(row.n),
                note=flag,
                **fields,
            )


def _is_task(table):
    """Select the rows of single tasks.

    These are all rows of open_llm but the average, and the rows of the accuracy per kind of question
    in the benchmark `reward`.
    """
    of_leaderboard = (table["benchmark"] == "open_llm") & (table["metric"] != "average")
    return of_leaderboard | (table["benchmark"] == "reward") & table["metric"].str.startswith("accuracy_")


@statement(
    11,
    "3.1",
    "At the alpha that reward chooses, true quality is higher than without ExPO",
    "true quality on the test prompts, ExPO minus aligned (points)",
)
def quality_follows(run: Run) -> Iterator[Measure]:
    """The change of true quality on the test prompts, ExPO minus aligned, for every aligned pair
    whose best alpha is above 0.
    """
    for pair in run.aligned if run.knows_quality else ():
        if run.best_alpha(pair) > 0:
            difference = run.test(pair, "expo", "quality") - run.test(pair, "aligned", "quality")
            yield measured("quality", pair, difference, "above")


@statement(
    11,
    "3.1",
    "An independent reward model chooses a better alpha than the one that labelled the training",
    "true quality, chosen by the independent minus by the labelling model (points)",
)
def independent_chooses_better(run: Run) -> Iterator[Measure]:
    """The true quality on the dev prompts at the alpha that the independent model rates highest, minus
    that at the alpha that the labelling model rates highest. Both models score the same responses.
    Both alphas are shown.
    """
    for pair in run.claims.labelled if run.knows_quality else ():
        grid, judges = (
            run.grid(pair),
            {"independent": "reward", "labelling": f"reward by {run.labeller(pair)}"},
        )
        allowed = np.flatnonzero(grid >= 0)
        places = {name: int(allowed[run.draws(pair, by)[0, allowed].argmax()]) for name, by in judges.items()}
        quality = run.draws(pair, "quality")
        difference = quality[:, places["independent"]] - quality[:, places["labelling"]]
        yield measured("quality", pair, difference, "above", n=run.prompts(pair))
        for name, place in places.items():
            yield measured(f"alpha by the {name} model", pair, grid[place])
            yield measured(f"quality by the {name} model", pair, quality[:, place])


@statement(
    11,
    "3.1",
    "Reward is over-optimised: it still rises after true quality has begun to fall",
    "best alpha by reward minus best alpha by true quality (steps of the grid)",
)
def reward_is_overoptimised(run: Run) -> Iterator[Measure]:
    """The alpha with the highest reward minus the alpha with the highest true quality, in steps of
    the grid. Both are chosen again in every bootstrap draw.
    """
    for pair in run.aligned if run.knows_quality else ():
        grid = run.grid(pair)
        if (grid > 0).any():
            steps = [run.draws(pair, name)[:, grid >= 0].argmax(axis=1) for name in ("reward", "quality")]
            yield measured("steps", pair, steps[0] - steps[1], "above", n=run.prompts(pair))
