"""Benchmarks: sft, aligned and expo on prompts that took no part in choosing alpha."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from expoflow import engines, store
from expoflow.adapter import is_adapter
from expoflow.benchmarks import reward
from expoflow.config import GenerateConfig, ScoreConfig, SelectConfig
from expoflow.evaluate import evaluate
from expoflow.pair import aligned_folder
from expoflow.recipe import Recipe
from expoflow.records import (
    BenchmarkResult,
    Manifest,
    Metric,
    Prompt,
    Scored,
    provenance,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)


def run(
    pair: str,
    variant: str,
    benchmark: str,
    *,
    model: Path,
    base: Path | None = None,
    prompts: Path,
    reward_model: Path,
    config: GenerateConfig,
    score: ScoreConfig,
    usage: str,
    judge_usage: str,
    code: str,
    result: Path,
    generations: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Generate and score one variant's responses, and write the benchmark's result.

    `model` is the manifest of sft or aligned, or the recipe.json of an exported folder; `base` the manifest
    of sft where `model` is aligned's, which may be an adapter; `usage` and
    `judge_usage` as `ModelConfig.usage` gives them for the model and the reward model. Responses and
    scores are kept in the store by content: a rerun with the same model, prompts, settings and `code`
    (digest of what generates and scores) does neither.
    """
    sft = None
    if variant == "expo":
        recipe = read_json(model, Recipe)
        folder, content = model.parent, recipe.content_digest()
    else:
        manifest = read_json(model, Manifest)
        folder, content = store.model_folder(manifest), manifest.sha256s()
        if is_adapter(folder):
            sft = read_json(base, Manifest)
            content = [sft.sha256s(), content]
    asked = read_jsonl(prompts, Prompt)
    judge = read_json(reward_model, Manifest)
    key = {
        "model": content,
        "prompts": hashlib.sha256(prompts.read_bytes()).hexdigest(),
        "usage": usage,
        "generate": config.model_dump(exclude={"prompts", "engine"}),
        "engine": engines.chosen(config.engine),
        "reward_model": judge.sha256s(),
        "judge_usage": judge_usage,
        "score": score.model_dump(),
        "code": code,
    }
    part = generations.with_name(f".{generations.name}.part")

    def make() -> list[Scored]:
        whole = aligned_folder(sft, manifest, code) if sft else folder
        runs = engines.Model(folder=whole, **json.loads(usage))
        responses = engines.generate(runs, asked, config, part, store.digest(key), say)
        rewards = engines.Model(folder=store.model_folder(judge), **json.loads(judge_usage))
        return evaluate(asked, responses, rewards, score)

    scored, kept = store.cached("benchmarks", key, make, Scored)
    write_jsonl(generations, scored)
    part.unlink(missing_ok=True)
    metrics = reward.measure(asked, scored)
    settings = {name: key[name] for name in ("generate", "engine", "score")}
    settings |= {"model": model.as_posix(), "reward_model": judge.model}
    write_json(
        result,
        BenchmarkResult(
            pair=pair,
            variant=variant,
            benchmark=benchmark,
            prompts=prompts.stem,
            metrics=metrics,
            provenance=provenance("torch", "transformers") | settings,
        ),
    )
    say(f"{pair}: {variant}: {_words(metrics)}{' (kept responses)' if kept else ''}")


def compare(
    pair: str,
    benchmark: str,
    *,
    prompts: Path,
    expo: Path,
    aligned: Path,
    config: SelectConfig,
    result: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Write the paired difference expo - aligned from both variants' scored generations."""
    asked = read_jsonl(prompts, Prompt)
    metrics = reward.compare(asked, read_jsonl(expo, Scored), read_jsonl(aligned, Scored), config)
    write_json(
        result,
        BenchmarkResult(
            pair=pair,
            variant="expo-aligned",
            benchmark=benchmark,
            prompts=prompts.stem,
            metrics=metrics,
            provenance=provenance("scipy"),
        ),
    )
    say(f"{pair}: expo - aligned: {_words(metrics)}")


def _words(metrics: list[Metric]) -> str:
    shown = [m for m in metrics if m.metric in ("reward", "quality", "win_rate")]
    return ", ".join(
        f"{m.metric} {m.value:.3f}" + (f" [{m.low:.3f}, {m.high:.3f}]" if m.low is not None else "")
        for m in shown
    )
