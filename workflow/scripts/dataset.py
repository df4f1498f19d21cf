"""Write a dataset's manifest; download a dataset of the hub into the hub's cache."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads, offline=False) as say:
    from expoflow.checkpoints import manifests
    from expoflow.config.sources import DataConfig
    from expoflow.files.records import write_json

    name, target = snakemake.wildcards.dataset, Path(snakemake.output.manifest)
    source = DataConfig.model_validate_json(snakemake.params.source)
    commit, files = None, [Path(source.file)] if source.file else []
    if source.hub:
        from expoflow.hub import download

        commit, files = download.dataset(source)
        note = target.with_name(f".{name}.commit.json")
        download.remember_commit(note, f"dataset {name}", source.hub, source.revision, commit, say)
    write_json(target, manifests.dataset(name, source, commit, files))
