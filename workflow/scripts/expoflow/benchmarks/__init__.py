"""Benchmarks: sft, aligned and expo on prompts that took no part in choosing alpha."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from expoflow import engines, store
from expoflow.benchmarks import reward
from expoflow.config import GenerateConfig, SelectConfig
from expoflow.evaluate import evaluate
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
    prompts: Path,
    reward_model: Path,
    config: GenerateConfig,
    code: str,
    result: Path,
    generations: Path,
    say: Callable[[str], None] = print,
) -> None:
    """Generate and score one variant's responses, and write the benchmark's result.

    `model` is the manifest of sft or aligned, or the recipe.json of an exported folder. Responses and
    scores are kept in the store by content: a rerun with the same model, prompts, settings and `code`
    (digest of what generates and scores) does neither.
    """
    if variant == "expo":
        recipe = read_json(model, Recipe)
        folder, content = model.parent, recipe.content_digest()
    else:
        manifest = read_json(model, Manifest)
        folder, content = store.model_folder(manifest), manifest.sha256s()
    asked = read_jsonl(prompts, Prompt)
    judge = read_json(reward_model, Manifest)
    key = {
        "model": content,
        "prompts": hashlib.sha256(prompts.read_bytes()).hexdigest(),
        "generate": config.model_dump(exclude={"prompts"}),
        "reward_model": judge.sha256s(),
        "code": code,
    }

    def make() -> list[Scored]:
        responses = engines.respond(engines.load(folder, config), asked, config)
        return evaluate(asked, responses, store.model_folder(judge))

    scored, kept = store.cached("benchmarks", key, make, Scored)
    write_jsonl(generations, scored)
    metrics = reward.measure(asked, scored)
    settings = {"model": model.as_posix(), "generate": key["generate"], "reward_model": judge.model}
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
