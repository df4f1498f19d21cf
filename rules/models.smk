# Checkpoints: trained here, a folder of the user's, or from the hub.
# Nodes of a cluster often have no way out: the head process downloads.
localrules:
    download,


rule train:
    input:
        base=needed("base"),
        judge=needed("judge"),
    output:
        manifest="results/models/{model}.json",
    log:
        "results/logs/train/{model}.log",
    benchmark:
        "results/logs/train/{model}.tsv"
    wildcard_constraints:
        model=only(TRAINED),
    conda:
        "../envs/expoflow.yaml"
    params:
        model=lambda wildcards: CONFIG.models[wildcards.model].canonical(),
        seed=CONFIG.seed,
        code=lambda wildcards: digest(
            training.modules(CONFIG.models[wildcards.model]), SCRIPTS / "train.py"
        ),
    message:
        "train {wildcards.model}"
    script:
        "../workflow/scripts/train.py"


rule local:
    input:
        files=lambda wildcards: store.checkpoint_files(
            CONFIG.models[wildcards.model].path
        ),
    output:
        manifest="results/models/{model}.json",
    log:
        "results/logs/local/{model}.log",
    benchmark:
        "results/logs/local/{model}.tsv"
    wildcard_constraints:
        model=only(LOCAL),
    conda:
        "../envs/expoflow.yaml"
    params:
        model=lambda wildcards: CONFIG.models[wildcards.model].canonical(),
        code=code("local"),
    message:
        "hash the files of {wildcards.model}"
    script:
        "../workflow/scripts/local.py"


# No digest of code among the params: which bytes a commit stands for does not depend on it.
rule download:
    output:
        manifest="results/models/{model}.json",
    log:
        "results/logs/download/{model}.log",
    benchmark:
        "results/logs/download/{model}.tsv"
    wildcard_constraints:
        model=only(HUB),
    conda:
        "../envs/expoflow.yaml"
    params:
        model=lambda wildcards: CONFIG.models[wildcards.model].canonical(
            include={"hub", "revision"}
        ),
    message:
        "download {wildcards.model}"
    script:
        "../workflow/scripts/download.py"
