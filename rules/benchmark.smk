# sft, aligned and expo side by side: one rule per benchmark, one job per variant. Every job writes
# a result and its rows (one JSON line per item, .generations.jsonl). `compare` makes the
# differences from the rows.
include: "inputs/benchmark.smk"


localrules:
    alpaca_eval_data,
    lm_eval_data,
    mt_bench_data,
    open_llm_data,
    preferences,


# On prompts that took no part in choosing alpha.
rule benchmark_reward:
    input:
        unpack(files_of("reward")),
        model=variant_model,
        base=variant_base,
        reward_model=REWARD_MODEL,
    output:
        result="results/pairs/{pair}/benchmarks/{variant}/reward.json",
        rows="results/pairs/{pair}/benchmarks/{variant}/reward.generations.jsonl",
    log:
        "results/logs/benchmark/{pair}/{variant}.reward.log",
    benchmark:
        "results/logs/benchmark/{pair}/{variant}.reward.tsv"
    conda:
        "../envs/expoflow.yaml"
    resources:
        **engine_resources(of_variant, *REWARD_MODELS),
    params:
        usage=usage(of_variant),
        generate=section("generate", exclude={"prompts"}),
        score=CONFIG.score.canonical(),
        reward_model_usage=REWARD_MODEL_USAGE,
        code=code.benchmark("reward"),
        # the kept responses and their scores depend on this
        responses=code.responses("reward"),
    message:
        "{wildcards.pair}: benchmark reward of {wildcards.variant}"
    script:
        "../workflow/scripts/benchmark.py"


# A file of AlpacaEval's dataset on the hub, or of the miniature, if the config names no local file.
rule alpaca_eval_data:
    output:
        file="results/benchmarks/alpaca_eval.{source}/{file}",
    log:
        "results/logs/alpaca_eval_data/{source}.{file}.log",
    benchmark:
        "results/logs/alpaca_eval_data/{source}.{file}.tsv"
    wildcard_constraints:
        source=only(ALPACA_EVAL),
        file=only(AlpacaEvalBenchmark.HUB_FILES.values()),
    conda:
        "../envs/expoflow.yaml"
    params:
        source=lambda wildcards: ALPACA_EVAL[wildcards.source].source(),
        seed=CONFIG.seed,
        # a download does not depend on any code
        code=lambda wildcards: (
            code.benchmark_data("alpaca_eval", ALPACA_EVAL[wildcards.source])
            if ALPACA_EVAL[wildcards.source].made()
            else ""
        ),
    message:
        "fetch {wildcards.file} of AlpacaEval's dataset"
    script:
        "../workflow/scripts/benchmark_data.py"


use rule benchmark_reward as benchmark_alpaca_eval with:
    input:
        unpack(files_of("alpaca_eval")),
        model=variant_model,
        base=variant_base,
        reward_model=REWARD_MODEL,
    output:
        result="results/pairs/{pair}/benchmarks/{variant}/alpaca_eval.json",
        rows="results/pairs/{pair}/benchmarks/{variant}/alpaca_eval.generations.jsonl",
    log:
        "results/logs/benchmark/{pair}/{variant}.alpaca_eval.log",
    benchmark:
        "results/logs/benchmark/{pair}/{variant}.alpaca_eval.tsv"
    conda:
        "../envs/benchmarks.yaml"
    params:
        usage=usage(of_variant),
        config=settings_of("alpaca_eval"),
        generate=section("generate", exclude={"prompts"}),
        score=CONFIG.score.canonical(),
        reward_model_usage=REWARD_MODEL_USAGE,
        code=code.benchmark("alpaca_eval"),
        responses=code.responses("alpaca_eval"),
    message:
        "{wildcards.pair}: benchmark AlpacaEval of {wildcards.variant}"


# Questions, judge prompts and reference answers in one file, named after their source.
rule mt_bench_data:
    input:
        files=lambda wildcards: mt_bench_files(MT_BENCH[wildcards.source]),
    output:
        data="results/benchmarks/mt_bench.{source}.json",
    log:
        "results/logs/mt_bench_data/{source}.log",
    benchmark:
        "results/logs/mt_bench_data/{source}.tsv"
    wildcard_constraints:
        source=only(MT_BENCH),
    conda:
        "../envs/expoflow.yaml"
    params:
        source=lambda wildcards: MT_BENCH[wildcards.source].source(),
        seed=CONFIG.seed,
        code=lambda wildcards: code.benchmark_data(
            "mt_bench", MT_BENCH[wildcards.source]
        ),
    message:
        "read the files of MT-Bench"
    script:
        "../workflow/scripts/benchmark_data.py"


use rule benchmark_reward as benchmark_mt_bench with:
    input:
        unpack(files_of("mt_bench")),
        model=variant_model,
        base=variant_base,
    output:
        result="results/pairs/{pair}/benchmarks/{variant}/mt_bench.json",
        rows="results/pairs/{pair}/benchmarks/{variant}/mt_bench.generations.jsonl",
    log:
        "results/logs/benchmark/{pair}/{variant}.mt_bench.log",
    benchmark:
        "results/logs/benchmark/{pair}/{variant}.mt_bench.tsv"
    conda:
        "../envs/benchmarks.yaml"
    resources:
        **engine_resources(of_variant),
    params:
        usage=usage(of_variant),
        config=settings_of("mt_bench"),
        generate=section("generate", include={"engine", "too_long"}),
        code=code.benchmark("mt_bench"),
        responses=code.responses("mt_bench"),
    message:
        "{wildcards.pair}: benchmark MT-Bench of {wildcards.variant}"


# The datasets of the leaderboard's tasks: folders, and the hashes of their files.
rule open_llm_data:
    input:
        files=lambda wildcards: open_llm_files(OPEN_LLM[wildcards.source]),
    output:
        data="results/benchmarks/open_llm.{source}.json",
    log:
        "results/logs/open_llm_data/{source}.log",
    benchmark:
        "results/logs/open_llm_data/{source}.tsv"
    wildcard_constraints:
        source=only(OPEN_LLM),
    conda:
        "../envs/expoflow.yaml"
    params:
        source=lambda wildcards: OPEN_LLM[wildcards.source].source(),
        seed=CONFIG.seed,
        code=lambda wildcards: code.benchmark_data(
            "open_llm", OPEN_LLM[wildcards.source]
        ),
    message:
        "get the datasets of the Open LLM Leaderboard"
    script:
        "../workflow/scripts/benchmark_data.py"


use rule benchmark_reward as benchmark_open_llm with:
    input:
        unpack(files_of("open_llm")),
        model=variant_model,
        base=variant_base,
    output:
        result="results/pairs/{pair}/benchmarks/{variant}/open_llm.json",
        rows="results/pairs/{pair}/benchmarks/{variant}/open_llm.generations.jsonl",
    log:
        "results/logs/benchmark/{pair}/{variant}.open_llm.log",
    benchmark:
        "results/logs/benchmark/{pair}/{variant}.open_llm.tsv"
    conda:
        "../envs/benchmarks.yaml"
    resources:
        **engine_resources(of_variant),
    params:
        usage=usage(of_variant),
        config=settings_of("open_llm"),
        tasks=task_files(),
        code=code.benchmark("open_llm"),
        responses=code.responses("open_llm"),
    message:
        "{wildcards.pair}: benchmark Open LLM Leaderboard of {wildcards.variant}"


# The questions of lm-eval's tasks and their datasets: folders, and the hashes of their files.
rule lm_eval_data:
    input:
        files=lambda wildcards: lm_eval_files(LM_EVAL[wildcards.source]),
    output:
        data="results/benchmarks/lm_eval.{source}.json",
    log:
        "results/logs/lm_eval_data/{source}.log",
    benchmark:
        "results/logs/lm_eval_data/{source}.tsv"
    wildcard_constraints:
        source=only(LM_EVAL),
    conda:
        "../envs/expoflow.yaml"
    params:
        source=lambda wildcards: LM_EVAL[wildcards.source].source(),
        seed=CONFIG.seed,
        code=lambda wildcards: code.benchmark_data("lm_eval", LM_EVAL[wildcards.source]),
    message:
        "get the datasets of lm-eval's tasks"
    script:
        "../workflow/scripts/benchmark_data.py"


use rule benchmark_reward as benchmark_lm_eval with:
    input:
        unpack(files_of("lm_eval")),
        model=variant_model,
        base=variant_base,
    output:
        result="results/pairs/{pair}/benchmarks/{variant}/lm_eval.json",
        rows="results/pairs/{pair}/benchmarks/{variant}/lm_eval.generations.jsonl",
    log:
        "results/logs/benchmark/{pair}/{variant}.lm_eval.log",
    benchmark:
        "results/logs/benchmark/{pair}/{variant}.lm_eval.tsv"
    conda:
        "../envs/benchmarks.yaml"
    resources:
        **engine_resources(of_variant),
    params:
        usage=usage(of_variant),
        config=settings_of("lm_eval"),
        code=code.benchmark("lm_eval"),
        responses=code.responses("lm_eval"),
    message:
        "{wildcards.pair}: benchmark lm-eval of {wildcards.variant}"


# The choice of alpha is only as good as the reward model.
rule preferences:
    input:
        # functions, because Snakemake would take braces in a plain text for wildcards
        file=lambda wildcards: (
            [CONFIG.reward_check.file] if CONFIG.reward_check.file else []
        ),
    output:
        preferences=whole("results/benchmarks/preferences.jsonl"),
    log:
        "results/logs/preferences.log",
    benchmark:
        "results/logs/preferences.tsv"
    conda:
        "../envs/benchmarks.yaml"
    params:
        source=lambda wildcards: CONFIG.reward_check.canonical(),
        seed=CONFIG.seed,
        code=code.preferences(CONFIG.reward_check) if CONFIG.reward_check else "",
    message:
        "get the preferences that the reward model is checked on"
    script:
        "../workflow/scripts/preferences.py"


rule rewardbench:
    input:
        model=REWARD_MODEL,
        preferences="results/benchmarks/preferences.jsonl",
    output:
        result=f"results/models/{CONFIG.reward_model}.rewardbench.json",
        rows=f"results/models/{CONFIG.reward_model}.rewardbench.jsonl",
    log:
        "results/logs/rewardbench.log",
    benchmark:
        "results/logs/rewardbench.tsv"
    conda:
        "../envs/expoflow.yaml"
    resources:
        **engine_resources(*REWARD_MODELS),
    params:
        score=CONFIG.score.canonical(),
        select=CONFIG.select.canonical(include={"confidence", "resamples"}),
        usage=REWARD_MODEL_USAGE,
        source=lambda wildcards: CONFIG.reward_check.canonical(),
        code=code.rule("rewardbench"),
    message:
        f"check the reward model {CONFIG.reward_model} on preferences"
    script:
        "../workflow/scripts/rewardbench.py"


rule compare:
    input:
        unpack(compared_files),
    output:
        result="results/pairs/{pair}/benchmarks/expo-aligned/{benchmark}.json",
    log:
        "results/logs/compare/{pair}/{benchmark}.log",
    benchmark:
        "results/logs/compare/{pair}/{benchmark}.tsv"
    conda:
        f"../envs/{COMPARING}.yaml"
    params:
        config=section("select"),
        code=lambda wildcards: code.comparison(wildcards.benchmark),
    message:
        "{wildcards.pair}: compare expo with aligned on {wildcards.benchmark}"
    script:
        "../workflow/scripts/compare.py"


# The gain of the chosen alpha on prompts that took no part in the choice.
rule certify:
    input:
        unpack(held_out),
        best="results/pairs/{pair}/best.json",
        chose=lambda wildcards: f"results/prompts/{sweep_prompts(wildcards.pair)}.jsonl",
    output:
        certificate="results/pairs/{pair}/certificate.json",
    log:
        "results/logs/certify/{pair}.log",
    benchmark:
        "results/logs/certify/{pair}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        **REHEARSAL,
        config=section("select"),
        seed=lambda wildcards: CONFIG.section(wildcards.pair, "generate").seed,
        chosen_on=lambda wildcards: sweep_prompts(wildcards.pair),
        judged_on=lambda wildcards: CONFIG.judged_on(wildcards.pair),
        code=code.rule("certify"),
    message:
        "{wildcards.pair}: judge the choice on prompts that took no part in it"
    script:
        "../workflow/scripts/certify.py"
