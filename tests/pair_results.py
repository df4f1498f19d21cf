"""Result files of pairs, as a run leaves them, with numbers that a test can know."""

from pathlib import Path

from expoflow.columns import ALPHA_COLUMNS
from expoflow.files.records import write_csv, write_json, write_jsonl
from expoflow.results import BenchmarkResult, Metric, Scored


def write_alphas(folder: Path, pair: str, rewards: dict[str, float], quality: bool = False) -> Path:
    """alphas.csv of `pair`: reward by alpha; the chosen alpha is that of the largest reward over alpha >= 0."""
    best = max((alpha for alpha in rewards if float(alpha) >= 0), key=lambda alpha: rewards[alpha])
    aligned = rewards["0"]
    rows = [
        {
            "pair": pair,
            "alpha": alpha,
            "reward": reward,
            "reward_low": reward - 0.1,
            "reward_high": reward + 0.2,
            "gain": reward - aligned,
            "gain_low": reward - aligned - 0.05,
            "gain_high": reward - aligned + 0.05,
            "p_value": 0.01,
            "length": 300 + 20 * float(alpha),
            "unfinished": 0.0,
            "effective_alpha": float(alpha),
            "chosen": alpha == best,
            "quality": reward + 1 if quality else None,
        }
        for alpha, reward in rewards.items()
    ]
    path = folder / "pairs" / pair / "alphas.csv"
    write_csv(path, rows, ALPHA_COLUMNS)
    return path


def write_benchmark(
    folder: Path, pair: str, variant: str, benchmark: str, metrics: dict[str, float], error: float = 0.5
) -> Path:
    """Result of a variant on a benchmark; every metric has the same standard error."""
    path = folder / "pairs" / pair / "benchmarks" / variant / f"{benchmark}.json"
    measured = [
        Metric(metric=name, value=value, standard_error=error, n=100) for name, value in metrics.items()
    ]
    result = {"pair": pair, "variant": variant, "benchmark": benchmark, "prompts": "test"}
    write_json(path, BenchmarkResult(**result, metrics=measured, provenance={}))
    return path


def write_generations(folder: Path, pair: str, variant: str, benchmark: str, rewards: list[float]) -> Path:
    """Scored responses of a variant on a benchmark, one for each of `rewards`."""
    path = folder / "pairs" / pair / "benchmarks" / variant / f"{benchmark}.generations.jsonl"
    rows = [
        Scored(
            prompt_id=f"{index:016x}",
            sample=0,
            seed=42,
            response="words",
            response_tokens=1,
            finish_reason="stop",
            engine="transformers",
            reward=reward,
        )
        for index, reward in enumerate(rewards)
    ]
    write_jsonl(path, rows)
    return path
