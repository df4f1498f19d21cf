"""Check from headers and configs that the two models of a pair fit together."""

from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads):
    from dataclasses import asdict

    from expoflow.checkpoints.manifests import model_folder
    from expoflow.config.stages import ExtrapolateConfig
    from expoflow.extrapolation.pair import require_different
    from expoflow.extrapolation.preflight import open_pair
    from expoflow.files.records import read_json, write_json
    from expoflow.results import Manifest

    sft, aligned = (read_json(path, Manifest) for path in snakemake.input)
    require_different(sft, aligned)
    config = ExtrapolateConfig.model_validate_json(snakemake.params.config)
    pair = open_pair(model_folder(sft), model_folder(aligned), config.vocabulary)
    for finding in pair.findings:
        print(f"{finding.level}: {finding.message}")
    pair.require()
    write_json(snakemake.output[0], {"findings": [asdict(finding) for finding in pair.findings]})
