# Joint tables, figures and the page.
include: "inputs/report.smk"


rule tables:
    input:
        alphas=of_pairs("alphas.csv"),
        best=of_pairs("best.json"),
        rewards=all_rewards(),
        certificates=of_pairs("certificate.json"),
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
        **REHEARSAL,
        code=code.rule("tables"),
    message:
        "join the tables of all pairs"
    script:
        "../workflow/scripts/tables.py"


# Separate from the other tables, which must not wait for a benchmark or be lost if it fails.
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
        **REHEARSAL,
        code=code.rule("benchmark_table"),
    message:
        "join the benchmarks of all pairs"
    script:
        "../workflow/scripts/benchmark_table.py"


# Tables 1 and 2 and the table of Appendix D, in the paper's form.
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
        **REHEARSAL,
        confidence=json.dumps(CONFIDENCE),
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
        **REHEARSAL,
        figure=lambda wildcards: inert(FIGURES[wildcards.figure].canonical()),
        paper=lambda wildcards: json.dumps(marks(FIGURES[wildcards.figure])),
        paper_rewards=PAPER_REWARDS,
        caption=lambda wildcards: inert(captions()[wildcards.figure]),
        code=code.figure(),
    message:
        "draw figure {wildcards.figure}"
    script:
        "../workflow/scripts/figure.py"


# The tables of the paper's Appendices E and F, and every published number beside this run's.
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
        **REHEARSAL,
        pairs=json.dumps(appendix_pairs()),
        paper=json.dumps(REPEATED),
        note=REWARDS_NOTE,
        confidence=json.dumps(CONFIDENCE),
        code=code.rule("appendices"),
    message:
        "write the tables of Appendices E and F, and the paper's numbers beside this run's"
    script:
        "../workflow/scripts/appendices.py"


rule report:
    input:
        summary="results/summary.csv",
        alphas=of_pairs("alphas.csv"),
        rewards="results/rewards.csv",
        benchmarks="results/benchmarks.csv",
        best=of_pairs("best.json"),
        certificates=of_pairs("certificate.json"),
        tables=[table for table in PRINTED if table.endswith(".csv")],
        figures=PLOTS,
        models=PAIRS_MODELS,
    output:
        page="results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/logs/report.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        # functions, because Snakemake would take braces in a plain text for wildcards
        figures=lambda wildcards: json.dumps(captions()),
        pairs=lambda wildcards: json.dumps(told_of_pairs()),
        reward_model=CONFIG.reward_model,
        confidence=json.dumps(CONFIDENCE),
        note=REWARDS_NOTE,
        code=code.page("report", answers=False),
    message:
        "write results/report.html"
    script:
        "../workflow/scripts/report.py"
