"""A run that is written by hand: the claims must measure what was written.

Every response is correct. It has one closing at an alpha above 0, which is enough, and four at the
largest alpha. True quality falls by a quarter of a point for each closing beyond the first. The
reward grows with closings and alpha: it chooses the largest alpha. nll chooses the second largest.
"""

import itertools
from pathlib import Path
from typing import Any

import yaml
from expoflow import columns
from expoflow.checks import parse
from expoflow.columns import REWARD_COLUMNS
from expoflow.config import Config
from expoflow.files.records import write_csv, write_json, write_jsonl
from expoflow.miniature import language, world
from expoflow.results import Generation, Scored

CONFIG = Path(__file__).parent / "workflow" / "claims.yaml"
WHOLE = Path(__file__).parents[1] / "config" / "miniature-claims.yaml"
PROMPTS = [prompt for prompt in world.prompts("dev", 7) if "core" in (prompt.meta or {})][:24]


def config(path: Path = CONFIG) -> Config:
    return parse(yaml.safe_load(path.read_text()))


def write(folder: Path, config: Config, shift: float = 0.0) -> Path:
    """Write the results of the config into folder/results, and return those.

    `shift` is added to the reward of pair full at alpha 0.
    """
    results, rows, table = folder / "results", [], []
    write_jsonl(results / "prompts" / "dev.jsonl", PROMPTS)
    for pair, settings in config.pairs.items():
        alphas = sorted(map(float, settings.grid()))
        more = {0.0: shift if pair == "full" else 0.0}
        for alpha in alphas:
            name, scored = f"{alpha:g}", _responses(alpha, alphas[-1], more.get(alpha, 0.0))
            place = results / "pairs" / pair / f"alpha={name}"
            write_jsonl(place / "dev.generations.jsonl", (_generation(each) for each in scored))
            own = [{"pair": pair, "alpha": name, "prompts": "dev"} | each.model_dump() for each in scored]
            rows += own
            turned = ({**row, "reward": -row["reward"]} for row in own)
            for labeller in set(config.labellers(settings.aligned)) - {config.reward_model}:
                write_csv(place / f"dev.{labeller}.rewards.csv", turned, REWARD_COLUMNS)
            means = {key: sum(row[key] for row in own) / len(own) for key in ("reward", "quality")}
            surprise = 2.0 if alpha == alphas[-1] else 1.0
            others = {"nll": surprise, "implicit": -abs(alpha)}
            others = {way: others[way] for way in config.select.compare}
            table.append({"pair": pair, "alpha": name, "chosen": alpha == alphas[-1]} | means | others)
        for variant, alpha in (("sft", -1.0), ("aligned", 0.0), ("expo", alphas[-1])):
            benchmark = results / "pairs" / pair / "benchmarks" / variant / "reward.generations.jsonl"
            write_jsonl(benchmark, _responses(alpha, alphas[-1], more.get(alpha, 0.0)))
        write_json(results / "pairs" / pair / "theory.json", _theory(pair))
    write_csv(results / "alphas.csv", table, columns.ALPHA_COLUMNS)
    write_csv(results / "rewards.csv", rows, REWARD_COLUMNS)
    tasks = [{"metric": "accuracy_fact", "value": 0.0, "low": -0.1, "high": 0.1}]
    tasks.append({"metric": "accuracy_list", "value": -0.2, "low": -0.3, "high": -0.1})
    labels = {"variant": "expo-aligned", "benchmark": "reward", "n": 24}
    losses = [{"pair": pair} | labels | task for pair in config.pairs for task in tasks]
    write_csv(results / "benchmarks.csv", losses, columns.BENCHMARK_COLUMNS)
    if config.theory:
        _write_geometry(results, config)
    return results


def _responses(alpha: float, largest: float, shift: float) -> list[Scored]:
    found = []
    closings = 0 if alpha <= 0 else 4 if alpha == largest else 1
    for place, prompt in enumerate(PROMPTS):
        text = " ".join([prompt.meta["core"], *language.CLOSINGS[:closings]])
        truth = world.truth(prompt.meta, text)
        found.append(
            Scored(
                prompt_id=prompt.prompt_id,
                sample=0,
                seed=1,
                response=text,
                response_tokens=len(text.split()),
                finish_reason="stop",
                engine="transformers",
                reward=closings + alpha / 100 + 0.01 * place + shift,
                quality=truth.quality,
                correct=truth.correct,
            )
        )
    return found


def _generation(scored: Scored) -> Generation:
    return Generation(**scored.model_dump(include=set(Generation.model_fields)))


def _theory(pair: str) -> dict[str, Any]:
    """|delta| / |theta1| is 0.05, |delta| is smaller for data5, and Eq. 2 holds up to alpha 1."""
    size = {"theta1": 20.0, "delta": 0.1 if pair == "data5" else 1.0, "ratio": 0.05, "elements": 9}
    slope = {"n": 24, "slope": 0.5, "slope_low": 0.4, "slope_high": 0.6, "difference": 0.52, "holds_to": 1.0}
    return {
        "pair": pair,
        "smallness": {"overall": size, "kinds": {"mlp": size}, "alphas": {"0": 0.0}},
        "first_order": {"margin": slope, "reward": slope},
    }


def _write_geometry(results: Path, config: Config) -> None:
    """Write cosines that rise with the order of the pairs, and planes.

    The reward of a plane rises along a and falls along b.
    """
    names = list(config.pairs)
    cosines = [
        {"kind": "all", "pair_a": one, "pair_b": other, "cosine": 0.9 + 0.001 * names.index(one)}
        for one, other in itertools.combinations(names, 2)
    ]
    write_csv(results / "cosines.csv", cosines, ("kind", "pair_a", "pair_b", "cosine"))
    for name in config.theory.planes:
        grid = itertools.product((0, 1, 2), repeat=2)
        points = [{"a": a, "b": b, "x": a + b, "y": b, "reward": a - b, "quality": b - a} for a, b in grid]
        write_csv(results / "planes" / f"{name}.csv", points, ("a", "b", "x", "y", "reward", "quality"))
