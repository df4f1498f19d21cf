# Measurements of why extrapolation works, only if the config has the section `theory`.
include: "inputs/theory.smk"


wildcard_constraints:
    plane=only(CONFIG.theory.planes),


rule theory:
    input:
        recipe="results/pairs/{pair}/alpha=0/model/recipe.json",
        sft=member("sft"),
        aligned=member("aligned"),
        prompts=lambda wildcards: theory_prompts(wildcards.pair),
        preferences=[
            file for file in [CONFIG.theory.preferences] if file != "miniature"
        ],
        reward_model=[manifest(CONFIG.reward_model)] if CONFIG.reward_model else [],
    output:
        theory="results/pairs/{pair}/theory.json",
    log:
        "results/logs/theory/{pair}.log",
    benchmark:
        "results/logs/theory/{pair}.tsv"
    conda:
        "../envs/expoflow.yaml"
    resources:
        **engine_resources(of_pair("aligned"), *REWARD_MODELS),
    params:
        config=CONFIG.theory.canonical(exclude={"planes"}),
        alphas=lambda wildcards: CONFIG.pairs[wildcards.pair].grid(),
        generate=section("generate", include={"seed"}),
        score=CONFIG.score.canonical(),
        select=bootstrap,
        vocabulary=CONFIG.extrapolate.vocabulary,
        seed=CONFIG.seed,
        # the annotator of the miniature's held-out preferences
        annotator=MiniatureDpo.model_construct().settings(),
        usage=usage(of_pair("aligned")),
        reward_model_usage=REWARD_MODEL_USAGE,
        code=code.theory(CONFIG.theory),
    message:
        "{wildcards.pair}: measure how far the first order holds"
    script:
        "../workflow/scripts/theory.py"


rule cosines:
    input:
        sft=lambda wildcards: [manifest(sft) for sft in CONFIG.kin()],
        aligned=lambda wildcards: [
            each
            for pairs in CONFIG.kin().values()
            for each in members("aligned", pairs)
        ],
    output:
        cosines="results/cosines.csv",
    log:
        "results/logs/cosines.log",
    benchmark:
        "results/logs/cosines.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        families=CONFIG.kin(),
        vocabulary=CONFIG.extrapolate.vocabulary,
        code=code.rule("cosines"),
    message:
        "measure the angles between the deltas of all pairs"
    script:
        "../workflow/scripts/cosines.py"


rule plane:
    input:
        recipes=of_plane("results/pairs/{pair}/alpha=0/model/recipe.json"),
        sft=lambda wildcards: manifest(CONFIG.pairs[plane_pair(wildcards)].sft),
        aligned=lambda wildcards: members(
            "aligned", CONFIG.theory.planes[wildcards.plane].pairs
        ),
        prompts=lambda wildcards: theory_prompts(plane_pair(wildcards)),
        reward_model=REWARD_MODEL,
    output:
        plane="results/planes/{plane}.csv",
    log:
        "results/logs/plane/{plane}.log",
    benchmark:
        "results/logs/plane/{plane}.tsv"
    conda:
        "../envs/expoflow.yaml"
    resources:
        **engine_resources(plane_aligned, reward_model),
    params:
        config=lambda wildcards: CONFIG.theory.planes[wildcards.plane].canonical(),
        alphas=lambda wildcards: [
            max(map(float, CONFIG.pairs[pair].grid()))
            for pair in CONFIG.theory.planes[wildcards.plane].pairs
        ],
        limit=CONFIG.theory.limit,
        generate=lambda wildcards: CONFIG.section(
            plane_pair(wildcards), "generate"
        ).canonical(exclude={"samples", "engine"}),
        score=CONFIG.score.canonical(),
        select=bootstrap,
        vocabulary=CONFIG.extrapolate.vocabulary,
        usage=usage(plane_aligned),
        reward_model_usage=REWARD_MODEL_USAGE,
        code=code.rule("plane"),
    message:
        "plane {wildcards.plane}: reward and quality around three models"
    script:
        "../workflow/scripts/plane.py"
