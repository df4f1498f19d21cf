"""Check that the two models of a pair fit together, from headers, configs and sampled weights."""

from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from dataclasses import asdict

    from expoflow.checkpoints.manifests import model_folder
    from expoflow.config.stages import ExtrapolateConfig
    from expoflow.extrapolation.likeness import looked_at
    from expoflow.extrapolation.pair import require_different
    from expoflow.extrapolation.preflight import open_pair
    from expoflow.files.records import read_json, write_json
    from expoflow.results import Manifest

    sft, aligned = (read_json(path, Manifest) for path in snakemake.input)
    require_different(sft, aligned)
    config = ExtrapolateConfig.model_validate_json(snakemake.params.config)
    pair = open_pair(model_folder(sft), model_folder(aligned), config.vocabulary)
    pair.require()
    pair, likeness = looked_at(pair, snakemake.params.unrelated)
    pair.require()
    for finding in pair.findings:
        tell = say if (finding.level, finding.check) == ("warning", "likeness") else print
        tell(f"{snakemake.wildcards.pair}: {finding.level}: {finding.message}")
    findings = [asdict(finding) for finding in pair.findings]
    write_json(snakemake.output[0], {"findings": findings, "likeness": likeness.figures()})
