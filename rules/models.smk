# Checkpoints: trained here, from a folder of the user, or from the hub; and training data.
include: "inputs/models.smk"


# Nodes of a cluster often have no internet access, so the head process downloads.
localrules:
    dataset,
    download,


rule dataset:
    input:
        file=lambda wildcards: [
            file for file in [CONFIG.datasets[wildcards.dataset].file] if file
        ],
    output:
        manifest="results/datasets/{dataset}.json",
    log:
        "results/logs/dataset/{dataset}.log",
    benchmark:
        "results/logs/dataset/{dataset}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        source=lambda wildcards: CONFIG.datasets[wildcards.dataset].canonical(),
    message:
        "bring dataset {wildcards.dataset}"
    script:
        "../workflow/scripts/dataset.py"


rule train:
    input:
        base=needed("base"),
        reward_model=needed("reward_model"),
        data=lambda wildcards: [
            f"results/datasets/{name}.json"
            for name in [CONFIG.models[wildcards.model].dataset]
            if name
        ],
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
    threads: training_threads
    resources:
        **training_resources(),
    params:
        model=lambda wildcards: CONFIG.models[wildcards.model].result(),
        seed=CONFIG.seed,
        usages=lambda wildcards: CONFIG.usages(wildcards.model),
        code=lambda wildcards: code.training(CONFIG.models[wildcards.model]),
    message:
        "train {wildcards.model}"
    script:
        "../workflow/scripts/train.py"


rule local:
    input:
        files=lambda wildcards: manifests.checkpoint_files(
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
        code=code.rule("local"),
    message:
        "hash the files of {wildcards.model}"
    script:
        "../workflow/scripts/local.py"


# The params have no digest of code, because the files of a commit do not depend on code.
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
