# Responses of one alpha to the prompts that choose alpha.
rule generate:
    input:
        recipe="results/pairs/{pair}/alpha={alpha}/model/recipe.json",
        sft=member("sft"),
        aligned=member("aligned"),
        prompts="results/prompts/{prompts}.jsonl",
    output:
        generations="results/pairs/{pair}/alpha={alpha}/{prompts}.generations.jsonl",
    log:
        "results/logs/generate/{pair}/alpha={alpha}.{prompts}.log",
    benchmark:
        "results/logs/generate/{pair}/alpha={alpha}.{prompts}.tsv"
    # before any score, because engine and reward model take turns on a GPU
    priority: 10
    conda:
        "../envs/expoflow.yaml"
    resources:
        **sweep_resources(of_pair("aligned")),
    params:
        config=section("generate"),
        usage=usage(of_pair("aligned")),
        code=code.rule("generate"),
    message:
        "{wildcards.pair}: generate at alpha {wildcards.alpha}"
    script:
        "../workflow/scripts/generate.py"
