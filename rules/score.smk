# The reward of every response.
rule score:
    input:
        generations="results/pairs/{pair}/alpha={alpha}/{prompts}.generations.jsonl",
        prompts="results/prompts/{prompts}.jsonl",
        reward_model=manifest(CONFIG.reward_model),
    output:
        rewards="results/pairs/{pair}/alpha={alpha}/{prompts}.rewards.csv",
    log:
        "results/logs/score/{pair}/alpha={alpha}.{prompts}.log",
    benchmark:
        "results/logs/score/{pair}/alpha={alpha}.{prompts}.tsv"
    conda:
        "../envs/expoflow.yaml"
    resources:
        **engine_resources(judge),
    params:
        config=CONFIG.score.canonical(),
        usage=usage(judge),
        code=code("score"),
    message:
        "{wildcards.pair}: score alpha {wildcards.alpha}"
    script:
        "../workflow/scripts/score.py"
