# theta2 = theta1 + alpha * (theta1 - theta0), and the publishable checkpoint at the chosen alpha.
rule preflight:
    input:
        sft=member("sft"),
        aligned=member("aligned"),
    output:
        "results/pairs/{pair}/preflight.json",
    log:
        "results/logs/preflight/{pair}.log",
    benchmark:
        "results/logs/preflight/{pair}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        config=CONFIG.extrapolate.canonical(include={"vocabulary"}),
        unrelated=lambda wildcards: CONFIG.pairs[wildcards.pair].unrelated,
        code=code.rule("preflight"),
    message:
        "{wildcards.pair}: check that sft and aligned fit together"
    script:
        "../workflow/scripts/preflight.py"


rule extrapolate:
    input:
        sft=member("sft"),
        aligned=member("aligned"),
        preflight="results/pairs/{pair}/preflight.json",
    output:
        recipe="results/pairs/{pair}/alpha={alpha}/model/recipe.json",
    log:
        "results/logs/extrapolate/{pair}/alpha={alpha}.log",
    benchmark:
        "results/logs/extrapolate/{pair}/alpha={alpha}.tsv"
    conda:
        "../envs/expoflow.yaml"
    threads: file_threads(of_pair("aligned"))
    resources:
        **file_resources(of_pair("aligned")),
    params:
        config=CONFIG.extrapolate.canonical(),
        code=code.rule("extrapolate"),
    message:
        "{wildcards.pair}: extrapolate to alpha {wildcards.alpha}"
    script:
        "../workflow/scripts/extrapolate.py"


rule export:
    input:
        best="results/pairs/{pair}/best.json",
        sft=member("sft"),
        aligned=member("aligned"),
    output:
        recipe="results/pairs/{pair}/expo/recipe.json",
    log:
        "results/logs/export/{pair}.log",
    benchmark:
        "results/logs/export/{pair}.tsv"
    conda:
        "../envs/expoflow.yaml"
    threads: file_threads(of_pair("aligned"))
    resources:
        **file_resources(of_pair("aligned")),
    params:
        **REHEARSAL,
        config=CONFIG.extrapolate.canonical(exclude={"weights"}),
        code=code.rule("export"),
    message:
        "{wildcards.pair}: write the checkpoint at the chosen alpha"
    script:
        "../workflow/scripts/export.py"


RESULTS_OF_ALL += of_pairs("expo/recipe.json")
