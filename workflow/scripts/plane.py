"""Measure reward and quality in the plane through an SFT model and two aligned ones."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import GenerateConfig, ScoreConfig, SelectConfig
    from expoflow.config.theory import PlaneConfig
    from expoflow.files.records import read_json
    from expoflow.results import Manifest, read_prompts
    from expoflow.scoring.rewards import reward_model
    from expoflow.theory import plane

    params = snakemake.params
    plane.measure_plane(
        PlaneConfig.model_validate_json(params.config),
        [Path(path) for path in snakemake.input.recipes],
        read_json(snakemake.input.sft, Manifest),
        [read_json(path, Manifest) for path in snakemake.input.aligned],
        read_prompts(snakemake.input.prompts)[: params.limit],
        reward_model(snakemake.input.reward_model, params.reward_model_usage),
        Path(snakemake.output.plane),
        alphas=params.alphas,
        generate=GenerateConfig.model_validate_json(params.generate),
        score=ScoreConfig.model_validate_json(params.score),
        select=SelectConfig.model_validate_json(params.select),
        vocabulary=params.vocabulary,
        usage=params.usage,
        say=say,
    )
