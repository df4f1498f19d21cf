# The answers of every model of a pair's sweep, as a table and as a page to read.
include: "inputs/answers.smk"


localrules:
    answers,
    answers_page,


rule answers:
    input:
        prompts=lambda wildcards: f"results/prompts/{sweep_prompts(wildcards.pair)}.jsonl",
        generations=of_grid("{folder}/{prompts}.generations.jsonl"),
        rewards=of_grid("{folder}/{prompts}.rewards.csv"),
    output:
        answers="results/pairs/{pair}/answers.parquet",
    log:
        "results/logs/answers/{pair}.log",
    benchmark:
        "results/logs/answers/{pair}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        code=code.rule("answers"),
    message:
        "{wildcards.pair}: put all answers into one table"
    script:
        "../workflow/scripts/answers.py"


rule answers_page:
    input:
        unpack(read_answers),
        answers="results/pairs/{pair}/answers.parquet",
        best="results/pairs/{pair}/best.json",
        certificate="results/pairs/{pair}/certificate.json",
    output:
        page="results/pairs/{pair}/answers.html",
    log:
        "results/logs/answers_page/{pair}.log",
    benchmark:
        "results/logs/answers_page/{pair}.tsv"
    conda:
        "../envs/benchmarks.yaml"
    params:
        benchmarks=readable_benchmarks,
        judge=lambda wildcards: CONFIG.section(wildcards.pair, "select").judge,
        models=lambda wildcards: [
            CONFIG.pairs[wildcards.pair].sft,
            CONFIG.pairs[wildcards.pair].aligned,
        ],
        code=code.page("answers_page"),
    message:
        "{wildcards.pair}: write the page of answers"
    script:
        "../workflow/scripts/answers_page.py"
