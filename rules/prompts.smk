# Prompt sets, one JSON line per prompt. The head process fetches them (a localrule), as it does
# models of the hub.
include: "inputs/prompts.smk"


rule prompts:
    input:
        files=prompt_files,
    output:
        prompts=whole("results/prompts/{prompts}.jsonl"),
    log:
        "results/logs/prompts/{prompts}.log",
    benchmark:
        "results/logs/prompts/{prompts}.tsv"
    conda:
        "../envs/expoflow.yaml"
    params:
        source=lambda wildcards: CONFIG.prompts[wildcards.prompts].canonical(),
        seed=CONFIG.seed,
        code=lambda wildcards: code.prompts(CONFIG.prompts[wildcards.prompts]),
    message:
        "read prompts {wildcards.prompts}"
    script:
        "../workflow/scripts/prompts.py"
