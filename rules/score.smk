# The reward of every response, where there is a reward model, and how likely the pair's own models find it.
from expoflow.selection import criteria


def likelihoods(wildcards):
    """Input function: the likelihoods that the pair's alpha is chosen by, or compared by; else none."""
    if not scored_under(wildcards):
        return []
    return of_grid("{folder}/{prompts}.likelihoods.csv")(wildcards)


def scored_under(wildcards):
    """Names of the models under which the pair's responses are scored."""
    return criteria.scored_under(CONFIG.section(wildcards.pair, "select"))


def all_rewards():
    return [
        f"{alpha_folder(pair, alpha)}/{sweep_prompts(pair)}.rewards.csv"
        for pair in CONFIG.pairs
        for alpha in CONFIG.pairs[pair].grid()
    ]


# Snakemake remakes a deleted file only if it is asked for.
RESULTS_OF_ALL += all_rewards()


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
        **engine_resources(*REWARD_MODELS),
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
    conda:
        "../envs/expoflow.yaml"
    resources:
        **engine_resources(of_pair("aligned")),
    params:
        models=scored_under,
        engine=lambda wildcards: CONFIG.section(wildcards.pair, "generate").engine,
        usage=usage(of_pair("aligned")),
        code=code.rule("likelihood"),
    message:
        "{wildcards.pair}: likelihood of alpha {wildcards.alpha}'s responses"
    script:
        "../workflow/scripts/likelihood.py"
