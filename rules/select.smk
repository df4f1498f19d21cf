# The choice of alpha, and its evidence.
rule select:
    input:
        rewards=of_grid("{folder}/{prompts}.rewards.csv"),
        likelihoods=likelihoods,
        recipes=of_grid("{folder}/model/recipe.json"),
    output:
        alphas="results/pairs/{pair}/alphas.csv",
        best="results/pairs/{pair}/best.json",
    log:
        "results/logs/select/{pair}.log",
    benchmark:
        "results/logs/select/{pair}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        config=section("select"),
        labelled_by=lambda wildcards: CONFIG.labellers(
            CONFIG.pairs[wildcards.pair].aligned
        ),
        reward_model=CONFIG.reward_model,
        seed=lambda wildcards: CONFIG.section(wildcards.pair, "generate").seed,
        code=code.rule("select"),
    message:
        "{wildcards.pair}: choose alpha"
    script:
        "../workflow/scripts/select.py"
