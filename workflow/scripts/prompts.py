"""Write a prompt set as JSON lines."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.config.sources import PromptsConfig
    from expoflow.data.prompts import load
    from expoflow.files.records import write_jsonl

    name, target = snakemake.wildcards.prompts, Path(snakemake.output.prompts)
    source, files, origin = PromptsConfig.model_validate_json(snakemake.params.source), (), ""
    if source.hub:
        from expoflow.hub import download

        commit, files = download.dataset(source)
        note = target.with_name(f".{name}.commit.json")
        download.remember_commit(note, f"prompts {name}", source.hub, source.revision, commit, say)
        origin = f" of {source.hub}, {source.split}, {commit}"
    prompts = load(source, snakemake.params.seed, files, say)
    write_jsonl(target, prompts)
    say(f"prompts {name}: {len(prompts)}{origin}")
