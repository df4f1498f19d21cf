# Only if the config has `limit`: the first entries of every set take the place of the whole set.


rule first_prompts:
    input:
        whole="results/whole/prompts/{prompts}.jsonl",
    output:
        first="results/prompts/{prompts}.jsonl",
    log:
        "results/logs/first_prompts/{prompts}.log",
    benchmark:
        "results/logs/first_prompts/{prompts}.tsv"
    localrule: True
    conda:
        "../envs/expoflow.yaml"
    params:
        limit=CONFIG.limit,
        code=code.rule("first"),
    message:
        f"rehearsal: take the first {CONFIG.limit} of prompts {{wildcards.prompts}}"
    script:
        "../workflow/scripts/first.py"


# The questions of a benchmark that comes with its own questions.
use rule first_prompts as first_questions with:
    input:
        whole=whole_questions,
    output:
        first="results/benchmarks/first/{pair}.{benchmark}.json",
    log:
        "results/logs/first_questions/{pair}.{benchmark}.log",
    benchmark:
        "results/logs/first_questions/{pair}.{benchmark}.tsv"
    message:
        f"{{wildcards.pair}}: rehearsal: take the first {CONFIG.limit} questions of {{wildcards.benchmark}}"


use rule first_prompts as first_preferences with:
    input:
        whole="results/whole/benchmarks/preferences.jsonl",
    output:
        first="results/benchmarks/preferences.jsonl",
    log:
        "results/logs/first_preferences.log",
    benchmark:
        "results/logs/first_preferences.tsv"
    message:
        f"rehearsal: take the first {CONFIG.limit} preferences"
