"""Whether capabilities survive (section 3.2, Appendix D), and whether a reward model is hacked (section 3.1)."""

from collections.abc import Iterator

import numpy as np

from expoflow.claims.run import Run
from expoflow.claims.statement import Measure, measured, statement

MARGIN = 0.03  # of a task's accuracy: a change beyond it is flagged


@statement(10, "3.2, Figure 4, Appendix D", "ExPO does not cost the model its capabilities")
def tasks_keep(run: Run) -> Iterator[Measure]:
    """Change of the accuracy of every task, ExPO at the chosen alpha less aligned: tasks of benchmark open_llm, and the
    world's kinds of question in benchmark reward. A change beyond 0.03 to either side is flagged, whatever its
    interval."""
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
    """Rows of single tasks: of open_llm all but the average, of reward the accuracies of kinds of question."""
    of_leaderboard = (table["benchmark"] == "open_llm") & (table["metric"] != "average")
    return of_leaderboard | (table["benchmark"] == "reward") & table["metric"].str.startswith("accuracy_")


@statement(
    11, "3.1", "An independent reward model chooses a better alpha than the one that labelled the training"
)
def independent_chooses_better(run: Run) -> Iterator[Measure]:
    """True quality on the dev prompts at the alpha with the largest reward by the independent model, less that at the
    alpha with the largest reward by the labelling one; same responses, and both alphas are told."""
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


@statement(11, "3.1", "Reward is over-optimised: it still rises where quality falls already")
def reward_is_overoptimised(run: Run) -> Iterator[Measure]:
    """Alpha with the largest reward less alpha with the largest true quality, in steps of the grid; both are taken anew
    in every draw."""
    for pair in run.aligned if run.knows_quality else ():
        grid = run.grid(pair)
        if (grid > 0).any():
            steps = [run.draws(pair, name)[:, grid >= 0].argmax(axis=1) for name in ("reward", "quality")]
            yield measured("steps", pair, steps[0] - steps[1], "above", n=run.prompts(pair))


@statement(11, "3.1", "At the alpha that reward chooses, true quality is higher than without ExPO")
def quality_follows(run: Run) -> Iterator[Measure]:
    """Change of true quality on the test prompts, ExPO less aligned, of every pair that was aligned and whose chosen
    alpha is above 0."""
    for pair in run.aligned if run.knows_quality else ():
        if run.best_alpha(pair) > 0:
            difference = run.test(pair, "expo", "quality") - run.test(pair, "aligned", "quality")
            yield measured("quality", pair, difference, "above")
