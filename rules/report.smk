# Joint tables, figures and the page.
from expoflow.config.figures import KINDS as FIGURE_KINDS
from expoflow.dag.figures import inputs as figure_inputs
from expoflow.reporting.page import caption
from expoflow.reporting import paper, paper_tables
from expoflow.reporting.run_end import closing_words, salvage

# What the paper published of the models that pairs repeat.
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


def marks(figure):
    """The paper's numbers that a figure shows, by pair, variant and quantity."""
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
    """`text` with `<` as JSON escapes it: Snakemake's report puts a figure's params into a script of its page."""
    return text.replace("<", "\\u003c")


def appendix_pairs():
    """What the tables of the appendices say of a pair beside its results."""
    return {
        name: {
            "sft": pair.sft,
            "aligned": pair.aligned,
            "paper": pair.paper,
            "trained_on_dev": pair.trained_on_dev,
        }
        for name, pair in CONFIG.pairs.items()
    }


def salvage_benchmarks():
    """After a failed run: the tables with its gaps; what to say of them."""
    results = benchmark_results([*VARIANTS, "expo-aligned"])
    return salvage(list(map(Path, results)), captions())


TABLES = expand(
    "results/{table}.csv", table=["alphas", "rewards", "benchmarks", "summary"]
)
PLOTS = expand("results/figures/{figure}.{kind}", figure=FIGURES, kind=["svg", "png"])
APPENDICES = expand(
    "results/tables/{table}.{kind}",
    table=[
        "appendix_e",
        *(
            ["appendix_f"]
            if any(p.trained_on_dev for p in CONFIG.pairs.values())
            else []
        ),
        *(["reproduction"] if REPEATED else []),
    ],
    kind=["csv", "md"],
)
PAPER_TABLES = expand(
    "results/tables/{table}.{kind}",
    table=["table1", "table2", "appendix_d"],
    kind=["csv", "md"],
)

RESULTS_OF_ALL += [*TABLES, *PLOTS, *APPENDICES, "results/report.html"]
# of the paper's benchmarks, if a pair has one
if benchmark_results(["expo"], paper_tables.BENCHMARKS):
    RESULTS_OF_ALL += PAPER_TABLES


rule tables:
    input:
        alphas=of_pairs("alphas.csv"),
        best=of_pairs("best.json"),
        rewards=all_rewards(),
    output:
        alphas=report(
            "results/alphas.csv", caption="captions/alphas.rst", category="Tables"
        ),
        rewards="results/rewards.csv",
        summary=report(
            "results/summary.csv", caption="captions/summary.rst", category="Tables"
        ),
    log:
        "results/logs/tables.log",
    benchmark:
        "results/logs/tables.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        code=code.rule("tables"),
    message:
        "join the tables of all pairs"
    script:
        "../workflow/scripts/tables.py"


# Apart from the others, which must not wait for a benchmark, and be lost with it.
rule benchmark_table:
    input:
        benchmarks=benchmark_results([*VARIANTS, "expo-aligned"]),
    output:
        benchmarks=report(
            "results/benchmarks.csv",
            caption="captions/benchmarks.rst",
            category="Tables",
        ),
    log:
        "results/logs/benchmark_table.log",
    benchmark:
        "results/logs/benchmark_table.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        code=code.rule("benchmark_table"),
    message:
        "join the benchmarks of all pairs"
    script:
        "../workflow/scripts/benchmark_table.py"


# Tables 1, 2 and that of Appendix D, in the paper's form.
rule paper_tables:
    input:
        benchmarks="results/benchmarks.csv",
    output:
        tables=PAPER_TABLES,
    log:
        "results/logs/paper_tables.log",
    benchmark:
        "results/logs/paper_tables.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        code=code.rule("paper_tables"),
    message:
        "write the tables in the paper's form"
    script:
        "../workflow/scripts/paper_tables.py"


rule figure:
    input:
        results=lambda wildcards: figure_inputs(FIGURES[wildcards.figure]),
    output:
        svg="results/figures/{figure}.svg",
        png=report(
            "results/figures/{figure}.png",
            caption="captions/figure.rst",
            category="Figures",
        ),
    log:
        "results/logs/figure/{figure}.log",
    benchmark:
        "results/logs/figure/{figure}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        figure=lambda wildcards: inert(FIGURES[wildcards.figure].canonical()),
        paper=lambda wildcards: json.dumps(marks(FIGURES[wildcards.figure])),
        paper_rewards=PAPER_REWARDS,
        caption=lambda wildcards: inert(captions()[wildcards.figure]),
        code=code.figure(),
    message:
        "draw figure {wildcards.figure}"
    script:
        "../workflow/scripts/figure.py"


# The tables of the paper's Appendices E and F, and every published number beside a run's own.
rule appendices:
    input:
        alphas=of_pairs("alphas.csv"),
        benchmarks=benchmark_results(VARIANTS) if REPEATED else [],
    output:
        tables=APPENDICES,
    log:
        "results/logs/appendices.log",
    benchmark:
        "results/logs/appendices.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        pairs=json.dumps(appendix_pairs()),
        paper=json.dumps(REPEATED),
        note=REWARDS_NOTE,
        code=code.rule("appendices"),
    message:
        "write the tables of Appendices E and F, and the paper's numbers beside this run's"
    script:
        "../workflow/scripts/appendices.py"


rule report:
    input:
        summary="results/summary.csv",
        alphas="results/alphas.csv",
        benchmarks="results/benchmarks.csv",
        best=of_pairs("best.json"),
        tables=[table for table in APPENDICES if table.endswith(".csv")],
    output:
        page="results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/logs/report.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        # a function: in a plain text Snakemake would take braces for wildcards
        figures=lambda wildcards: json.dumps(captions()),
        note=REWARDS_NOTE,
        code=code.rule("report"),
    message:
        "write results/report.html"
    script:
        "../workflow/scripts/report.py"
