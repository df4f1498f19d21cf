# The reward of every response, if there is a reward model, and its likelihood under the pair's own
# models.
include: "inputs/score.smk"


rule score:
    input:
        generations="results/pairs/{pair}/alpha={alpha}/{prompts}.generations.jsonl",
        prompts="results/prompts/{prompts}.jsonl",
        reward_model=REWARD_MODEL,
    output:
        rewards="results/pairs/{pair}/alpha={alpha}/{prompts}.rewards.csv",
    log:
        "results/logs/score/{pair}/alpha={alpha}.{prompts}.log",
    benchmark:
        "results/logs/score/{pair}/alpha={alpha}.{prompts}.tsv"
    conda:
        "../envs/expoflow.yaml"
    resources:
        **sweep_resources(*REWARD_MODELS),
    params:
        config=CONFIG.score.canonical(),
        usage=REWARD_MODEL_USAGE,
        code=code.rule("score"),
    message:
        "{wildcards.pair}: score alpha {wildcards.alpha}"
    script:
        "../workflow/scripts/score.py"


rule likelihood:
    input:
        generations="results/pairs/{pair}/alpha={alpha}/{prompts}.generations.jsonl",
        prompts="results/prompts/{prompts}.jsonl",
        sft=member("sft"),
        aligned=member("aligned"),
        recipes=lambda wildcards: [
            f"{alpha_folder(wildcards.pair, criteria.MODELS[name] or wildcards.alpha)}/model/recipe.json"
            for name in scored_under(wildcards)
        ],
    output:
        likelihoods="results/pairs/{pair}/alpha={alpha}/{prompts}.likelihoods.csv",
    log:
        "results/logs/likelihood/{pair}/alpha={alpha}.{prompts}.log",
    benchmark:
        "results/logs/likelihood/{pair}/alpha={alpha}.{prompts}.tsv"
    # before any score, because it needs the engine that generates
    priority: 5
    conda:
        "../envs/expoflow.yaml"
    resources:
        **sweep_resources(of_pair("aligned")),
    params:
        models=scored_under,
        engine=lambda wildcards: CONFIG.section(wildcards.pair, "generate").engine,
        usage=usage(of_pair("aligned")),
        code=code.rule("likelihood"),
    message:
        "{wildcards.pair}: likelihood of alpha {wildcards.alpha}'s responses"
    script:
        "../workflow/scripts/likelihood.py"
