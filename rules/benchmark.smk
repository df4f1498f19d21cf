# sft, aligned and expo on prompts that took no part in choosing alpha.
rule benchmark:
    input:
        model=lambda wildcards: variant_file(wildcards.pair, wildcards.variant),
        # aligned may be an adapter, which is no model without its base
        base=lambda wildcards: [variant_file(wildcards.pair, "sft")]
        * (wildcards.variant == "aligned"),
        prompts=benchmark_prompts,
        reward_model=manifest(CONFIG.reward_model),
    output:
        result="results/pairs/{pair}/benchmarks/{variant}/{benchmark}.json",
        generations="results/pairs/{pair}/benchmarks/{variant}/{benchmark}.generations.jsonl",
    log:
        "results/logs/benchmark/{pair}/{variant}.{benchmark}.log",
    benchmark:
        "results/logs/benchmark/{pair}/{variant}.{benchmark}.tsv"
    conda:
        "../envs/expoflow.yaml"
    resources:
        **engine_resources(of_variant, judge),
    params:
        generate=section("generate", exclude={"prompts"}),
        score=CONFIG.score.canonical(),
        usage=usage(of_variant),
        judge_usage=usage(judge),
        code=code("benchmark"),
        # what the kept responses and their scores depend on
        responses=digest([*ROOTS["generate"], *ROOTS["score"]]),
    message:
        "{wildcards.pair}: benchmark {wildcards.benchmark} of {wildcards.variant}"
    script:
        "../workflow/scripts/benchmark.py"


rule compare:
    input:
        prompts=benchmark_prompts,
        expo="results/pairs/{pair}/benchmarks/expo/{benchmark}.generations.jsonl",
        aligned="results/pairs/{pair}/benchmarks/aligned/{benchmark}.generations.jsonl",
    output:
        result="results/pairs/{pair}/benchmarks/expo-aligned/{benchmark}.json",
    log:
        "results/logs/compare/{pair}/{benchmark}.log",
    benchmark:
        "results/logs/compare/{pair}/{benchmark}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        config=section("select"),
        code=code("compare"),
    message:
        "{wildcards.pair}: compare expo with aligned on {wildcards.benchmark}"
    script:
        "../workflow/scripts/compare.py"
