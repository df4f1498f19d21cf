# Input functions and lists of the rules in report.smk.
import json
import time

from expoflow.config.figures import KINDS as FIGURE_KINDS
from expoflow.dag.figures import inputs as figure_inputs
from expoflow.project import throughput
from expoflow.reporting import paper, paper_tables, tracking
from expoflow.reporting.pages.provenance import Told
from expoflow.reporting.printed_table import KINDS as TABLE_KINDS
from expoflow.reporting.run_end import Ran, closing_words, salvage
from expoflow.reporting.words import caption

BEGAN, BEGAN_AT = time.monotonic(), time.time()

# The paper's published numbers of the models that pairs repeat.
REPEATED = {
    name: [number._asdict() | {"value": str(number.value)} for number in numbers]
    for name, pair in CONFIG.pairs.items()
    if (numbers := paper.published(pair.paper))
}
PAPER_REWARDS = (
    CONFIG.reward_model is not None
    and CONFIG.models[CONFIG.reward_model].hub == paper.REWARD_MODEL
)
REWARDS_NOTE = "" if PAPER_REWARDS or not CONFIG.reward_model else paper.OTHER_REWARDS

# The confidence of the intervals, by pair; empty in a rehearsal, which certifies nothing.
CONFIDENCE = {
    pair: CONFIG.section(pair, "select").confidence
    for pair in CONFIG.pairs
    if not CONFIG.limit
}


def marks(figure):
    """The paper's numbers in a figure, by pair, variant and quantity."""
    shown = figure.metrics or FIGURE_KINDS[figure.kind].marks
    found = {}
    for pair in figure.pairs:
        for number in REPEATED.get(pair, ()):
            if number["quantity"] in shown:
                variants = found.setdefault(pair, {}).setdefault(number["variant"], {})
                variants[number["quantity"]] = float(number["value"])
    return found


SHOWN_FIRST = criteria.shown_first(
    (CONFIG.section(pair, "select") for pair in CONFIG.pairs),
    CONFIG.reward_model is not None,
)


def captions():
    """The text below every figure."""
    return {
        name: caption(figure, bool(marks(figure)), SHOWN_FIRST)
        for name, figure in FIGURES.items()
    }


def inert(text):
    """`text` with `<` escaped as in JSON.

    Snakemake's report puts the params of a figure into a script of its page.
    """
    return text.replace("<", "\\u003c")


def appendix_pairs():
    """What the tables of the appendices need to know about a pair beside its results."""
    return {
        name: {
            "sft": pair.sft,
            "aligned": pair.aligned,
            "paper": pair.paper,
            "trained_on_dev": pair.trained_on_dev,
        }
        for name, pair in CONFIG.pairs.items()
    }


def told_of_pairs():
    """What the page needs to know about a pair beside its results (`Told.pairs`)."""
    found = {}
    for name, pair in CONFIG.pairs.items():
        lm_eval = CONFIG.section(name, "benchmarks").lm_eval
        select = CONFIG.section(name, "select")
        plan = lm_eval.inputs()["data"] if lm_eval else None
        found[name] = {
            "sft": pair.sft,
            "aligned": pair.aligned,
            "plan": plan,
            "by": select.by,
            "judge": select.judge,
        }
    return found


def salvage_benchmarks():
    """After a failed run, write the tables with gaps; return a message on them."""
    results = benchmark_results([*VARIANTS, "expo-aligned"])
    told = Told(
        figures=captions(),
        pairs=told_of_pairs(),
        reward_model=CONFIG.reward_model,
        confidence=CONFIDENCE,
        config=config,
        again=ran().again(),
    )
    return salvage(list(map(Path, results)), told, limit=CONFIG.limit)


def words_of_failure():
    """After a failed run: the gaps in its tables, and the cause of each failed job."""
    return "\n".join(filter(None, [salvage_benchmarks(), WORDS.last(ran().place)]))


def ran():
    """The run that is ending."""
    begun_in = Path(workflow.rundir)
    given = workflow.overwrite_configfiles
    file = begun_in / workflow.configfiles[0] if given else None
    return Ran(CONFIG, file, begun_in, time.monotonic() - BEGAN)


def last_screen():
    """After a run: its findings, and what to do next."""
    if not workflow.touch:  # which makes no file, and changes the time of all
        throughput.remember(CONFIG, BEGAN_AT, local=workflow.local_exec)
    return closing_words(ran=ran())


# The page shows the command. It is not a parameter, because a run of the same config by another
# command has the same results.
if workflow.is_main_process:
    os.environ.update(EXPOFLOW_AGAIN=ran().again())

# The models whose manifests the page shows.
PAIRS_MODELS = [
    manifest(model)
    for model in dict.fromkeys(
        [
            *(
                each
                for pair in CONFIG.pairs.values()
                for each in (pair.sft, pair.aligned)
            ),
            *([CONFIG.reward_model] if CONFIG.reward_model else []),
        ]
    )
]

TABLES = expand(
    "results/{table}.csv", table=["alphas", "rewards", "benchmarks", "summary"]
)
PLOTS = expand("results/figures/{figure}.{kind}", figure=FIGURES, kind=["svg", "png"])


def printed(tables):
    """All files of `tables` that have rows. A table without rows is not made."""
    made = [name for name, has_rows in tables.items() if has_rows]
    return expand("results/tables/{table}.{kind}", table=made, kind=TABLE_KINDS)


APPENDICES = printed(
    {
        "appendix_e": any(float(pair.grid()[-1]) > 0 for pair in CONFIG.pairs.values()),
        "appendix_f": any(pair.trained_on_dev for pair in CONFIG.pairs.values()),
        "reproduction": REPEATED,
    }
)
PAPER_TABLES = printed(
    paper_tables.have_rows(
        [CONFIG.section(pair, "benchmarks") for pair in CONFIG.pairs]
    )
)
PRINTED = [*PAPER_TABLES, *APPENDICES]

RESULTS_OF_ALL += [*TABLES, *PLOTS, *PRINTED, "results/report.html"]
