"""Write a prompt set as JSON lines."""

from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config import PromptsConfig
    from expoflow.prompts import load
    from expoflow.records import write_jsonl

    prompts = load(PromptsConfig.model_validate_json(snakemake.params.source), snakemake.params.seed)
    write_jsonl(snakemake.output.prompts, prompts)
    say(f"prompts {snakemake.wildcards.prompts}: {len(prompts)}")
