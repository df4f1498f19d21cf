"""Measure the angles between the deltas of pairs that share their SFT model."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from expoflow.files.records import read_json
    from expoflow.results import Manifest
    from expoflow.theory import deltas

    aligned = iter(snakemake.input.aligned)
    families = {}
    for (sft, pairs), path in zip(snakemake.params.families.items(), snakemake.input.sft, strict=True):
        base = read_json(path, Manifest)
        families[sft] = {
            pair: deltas.opened(base, read_json(next(aligned), Manifest), snakemake.params.vocabulary)
            for pair in pairs
        }
    deltas.write_cosines(Path(snakemake.output.cosines), deltas.cosines(families))
