"""Measure reward and quality in the plane through an SFT model and two aligned ones."""

from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.logs import job_log

if TYPE_CHECKING:
    from snakemake.script import snakemake

with job_log(snakemake.log[0], snakemake.threads) as say:
    from expoflow.config import GenerateConfig, PlaneConfig, ScoreConfig, SelectConfig
    from expoflow.records import Manifest, Prompt, read_json, read_jsonl
    from expoflow.scoring import judge_model
    from expoflow.theory import plane

    params = snakemake.params
    plane.measure(
        PlaneConfig.model_validate_json(params.config),
        [Path(path) for path in snakemake.input.recipes],
        read_json(snakemake.input.sft, Manifest),
        [read_json(path, Manifest) for path in snakemake.input.aligned],
        read_jsonl(snakemake.input.prompts, Prompt)[: params.limit],
        judge_model(snakemake.input.reward_model, params.judge_usage),
        Path(snakemake.output.plane),
        alphas=params.alphas,
        generate=GenerateConfig.model_validate_json(params.generate),
        score=ScoreConfig.model_validate_json(params.score),
        select=SelectConfig.model_validate_json(params.select),
        vocabulary=params.vocabulary,
        usage=params.usage,
        say=say,
    )
