# The paper's claims, measured on this run; expoflow claims makes a page of several runs.
# The included file has the reward models that labelled the training of a pair.
include: "inputs/claims.smk"


localrules:
    claims,


# The reward model that labelled a training also scores its responses. This shows if it is a worse
# judge than an independent reward model.
use rule score as score_by with:
    input:
        generations="results/pairs/{pair}/alpha={alpha}/{prompts}.generations.jsonl",
        prompts="results/prompts/{prompts}.jsonl",
        reward_model="results/models/{labeller}.json",
    output:
        rewards="results/pairs/{pair}/alpha={alpha}/{prompts}.{labeller}.rewards.csv",
    log:
        "results/logs/score/{pair}/alpha={alpha}.{prompts}.{labeller}.log",
    benchmark:
        "results/logs/score/{pair}/alpha={alpha}.{prompts}.{labeller}.tsv"
    wildcard_constraints:
        labeller=only(LABELLERS.values()),
    resources:
        **engine_resources(lambda wildcards: wildcards.labeller),
    params:
        config=CONFIG.score.canonical(),
        usage=usage(lambda wildcards: wildcards.labeller),
        code=code.rule("score"),
    message:
        "{wildcards.pair}: score alpha {wildcards.alpha} by {wildcards.labeller}"


rule claims:
    input:
        alphas="results/alphas.csv",
        rewards="results/rewards.csv",
        benchmarks="results/benchmarks.csv",
        responses=claim_inputs(),
        theory=MEASURED,
    output:
        claims="results/claims.csv",
        regrets="results/regrets.csv",
        styles="results/styles.csv",
    log:
        "results/logs/claims.log",
    benchmark:
        "results/logs/claims.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        **REHEARSAL,
        config=CONFIG.claims_basis(),
        code=code.rule("claims"),
    message:
        "measure the paper's claims"
    script:
        "../workflow/scripts/claims.py"
