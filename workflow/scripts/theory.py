"""Measure how small a pair's delta is, and how far the first-order approximation holds."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.system.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config.stages import GenerateConfig, ScoreConfig, SelectConfig
    from expoflow.config.theory import TheoryConfig
    from expoflow.files.records import read_json
    from expoflow.results import Manifest
    from expoflow.scoring.rewards import reward_model
    from expoflow.theory import first_order

    params = snakemake.params
    first_order.measure_pair(
        snakemake.wildcards.pair,
        Path(snakemake.input.recipe),
        read_json(snakemake.input.sft, Manifest),
        read_json(snakemake.input.aligned, Manifest),
        Path(snakemake.input.prompts),
        next((reward_model(path, params.reward_model_usage) for path in snakemake.input.reward_model), None),
        Path(snakemake.output.theory),
        first_order.Measurement(
            TheoryConfig.model_validate_json(params.config),
            GenerateConfig.model_validate_json(params.generate),
            ScoreConfig.model_validate_json(params.score),
            SelectConfig.model_validate_json(params.select),
            params.alphas,
            params.vocabulary,
            params.seed,
        ),
        params.usage,
        say,
    )
