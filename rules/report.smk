# Joint tables, figures and the page.
rule tables:
    input:
        alphas=of_pairs("alphas.csv"),
        best=of_pairs("best.json"),
        rewards=all_rewards(),
        benchmarks=benchmark_results([*VARIANTS, "expo-aligned"]),
    output:
        alphas=report(
            "results/alphas.csv", caption="captions/alphas.rst", category="Tables"
        ),
        rewards="results/rewards.csv",
        benchmarks=report(
            "results/benchmarks.csv",
            caption="captions/benchmarks.rst",
            category="Tables",
        ),
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
        code=code("tables"),
    message:
        "join the tables of all pairs"
    script:
        "../workflow/scripts/tables.py"


rule figure:
    input:
        alphas="results/alphas.csv",
        generations=[
            path.replace(".json", ".generations.jsonl")
            for path in benchmark_results(VARIANTS)
        ],
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
        caption=lambda wildcards: CAPTIONS[wildcards.figure],
        code=code("figure"),
    message:
        "draw figure {wildcards.figure}"
    script:
        "../workflow/scripts/figure.py"


rule report:
    input:
        summary="results/summary.csv",
        alphas="results/alphas.csv",
        benchmarks="results/benchmarks.csv",
        best=of_pairs("best.json"),
    output:
        page="results/report.html",
    log:
        "results/logs/report.log",
    benchmark:
        "results/logs/report.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        figures=",".join(CAPTIONS),
        code=code("report"),
    message:
        "write results/report.html"
    script:
        "../workflow/scripts/report.py"
