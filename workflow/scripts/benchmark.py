"""Benchmark one variant of a pair."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.benchmarks import run
    from expoflow.config import GenerateConfig, ScoreConfig

    run(
        snakemake.wildcards.pair,
        snakemake.wildcards.variant,
        snakemake.wildcards.benchmark,
        model=Path(snakemake.input.model),
        base=Path(snakemake.input.base[0]) if snakemake.input.base else None,
        prompts=Path(snakemake.input.prompts),
        reward_model=Path(snakemake.input.reward_model),
        config=GenerateConfig.model_validate_json(snakemake.params.generate),
        score=ScoreConfig.model_validate_json(snakemake.params.score),
        usage=snakemake.params.usage,
        judge_usage=snakemake.params.judge_usage,
        code=snakemake.params.responses,
        result=Path(snakemake.output.result),
        generations=Path(snakemake.output.generations),
        say=say,
    )
