"""Results of a run of two pairs, with all that its page can show, and a job that failed."""

import random
from pathlib import Path

from expoflow.columns import ALPHA_COLUMNS, REWARD_COLUMNS
from expoflow.files.atomic import write_text
from expoflow.files.records import write_csv, write_json
from expoflow.paths import Results
from expoflow.reporting import tables
from expoflow.reporting.pages.provenance import Told
from expoflow.results import BenchmarkResult, Best, Certificate, File, Manifest, Metric

GRIDS = {"mild": ["-1", "0", "0.3", "0.5"], "strong": ["-1", "0", "0.5", "1"]}
CHOSEN = {"mild": "0.3", "strong": "0"}
PROMPTS = 30
DIFFERENCES = {  # metric: value, low, high
    "reward": (0.4, 0.3, 0.5),
    "length": (20, 15, 25),
    "quality": (0.02, -0.1, 0.12),
    "unfinished": (0.2, 0.1, 0.3),
}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30" fill="red"/></svg>'
CAPTION = "</script><script>alert(1)</script> & <b>bold</b>"


def write_run(folder: Path) -> tuple[Results, Told]:
    """The results of such a run in `folder`, and what its page is told."""
    results = Results(folder)
    rewards = [row for pair in GRIDS for row in _rewards(pair)]
    write_csv(folder / "all.csv", rewards, REWARD_COLUMNS)
    for pair in GRIDS:
        write_csv(results.alphas(pair), _alphas(pair, rewards), ALPHA_COLUMNS)
        best = _best(pair)
        write_json(results.best(pair), best)
        write_json(results.certificate(pair), _certificate(best))
    places = [
        [place(pair) for pair in GRIDS] for place in (results.alphas, results.best, results.certificate)
    ]
    tables.write_sweeps(results, places[0], places[1], [folder / "all.csv"], places[2])
    tables.write_benchmarks(results.table("benchmarks"), [*_benchmarks(results)])
    for model, size in (("sft", 4_000_000), ("dpo", 4_000_000), ("rm", 15_000_000_000)):
        write_json(results.manifest(model), _manifest(model, size))
    _leave_times(folder)
    write_text(results.figure("sweep", "svg"), SVG)
    pairs = {pair: {"sft": "sft", "aligned": "dpo"} for pair in GRIDS}
    told = Told(
        figures={"sweep": CAPTION, "absent": "never drawn"},
        pairs=pairs,
        reward_model="rm",
        confidence=dict.fromkeys(GRIDS, 0.95),
        config={"seed": 7, "models": {"rm": {"hub": "org/<rm>"}}},
        again="expoflow run --config 'my config.yaml'",
    )
    return results, told


def _rewards(pair: str) -> list[dict]:
    chance = random.Random(pair)
    return [
        {
            "pair": pair,
            "alpha": alpha,
            "prompts": "dev",
            "prompt_id": f"{prompt:016x}",
            "sample": 0,
            "reward": 1 + 2 * float(alpha) + chance.gauss(0, 0.3),
            "response_tokens": 40 + round(10 * float(alpha)) + prompt % 3,
            "finish_reason": "stop",
            "engine": "transformers",
            "quality": 2 - float(alpha) + chance.gauss(0, 0.1),
        }
        for alpha in GRIDS[pair]
        for prompt in range(PROMPTS)
    ]


def _alphas(pair: str, rewards: list[dict]) -> list[dict]:
    rows = []
    for alpha in GRIDS[pair]:
        own = [row for row in rewards if (row["pair"], row["alpha"]) == (pair, alpha)]
        mean = {
            key: sum(row[key] for row in own) / PROMPTS for key in ("reward", "quality", "response_tokens")
        }
        gain = 2 * float(alpha)
        ends = {"gain_low": gain - 0.2, "gain_high": gain + 0.2} if float(alpha) >= 0 else {}
        rows.append(
            {
                "pair": pair,
                "alpha": alpha,
                "reward": mean["reward"],
                "gain": gain,
                **ends,
                "gain_pointwise_low": gain - 0.1,
                "gain_pointwise_high": gain + 0.1,
                "length": mean["response_tokens"],
                "unfinished": 0,
                "degenerate": 0.1,
                "chosen": alpha == CHOSEN[pair],
                "quality": mean["quality"],
                "nll": 1.5 if pair == "mild" else None,
            }
        )
    return rows


def _best(pair: str) -> Best:
    left_out = f"alpha {GRIDS[pair][-1]} left out: 90% of its responses are degenerate"
    known = {"pair": pair, "chosen_share": 0.9, "edge": False, "prompts": PROMPTS}
    if pair == "strong":
        return Best(alpha="0", certified=False, reason="no alpha is better", **known)
    return Best(
        alpha="0.3",
        certified=True,
        reward=1.6,
        gain=0.6,
        gain_low=0.4,
        gain_high=0.8,
        optimism=0.02,
        reason=f"largest mean reward of 3 alphas; {left_out}",
        warnings=[left_out],
        others={"nll": "0.5"},
        **known,
    )


def _certificate(best: Best) -> Certificate:
    numbers = {"gain": 0.4, "low": 0.3, "high": 0.5} if best.alpha != "0" else {}
    return Certificate(
        pair=best.pair,
        alpha=best.alpha,
        choice=best.digest(),
        held_out=True,
        certified=best.alpha != "0",
        measure="reward",
        confidence=0.95,
        chosen_on="dev",
        judged_on="test",
        prompts=100,
        looks=1,
        **numbers,
    )


def _benchmarks(results: Results):
    """The reward benchmark of mild, and MT-Bench of it without ExPO, whose job failed."""
    for variant in ("sft", "aligned", "expo", "expo-aligned"):
        metrics = [
            Metric(metric=name, value=value, standard_error=0.05, n=100)
            if variant != "expo-aligned"
            else Metric(metric=name, value=value, n=100, low=low, high=high, p_value=0.01)
            for name, (value, low, high) in DIFFERENCES.items()
        ]
        if variant == "expo-aligned":
            metrics.append(Metric(metric="win_rate", value=0.7, n=100, low=0.6, high=0.8, p_value=0.01))
        yield _benchmark(results, variant, "reward", metrics)
    for variant in ("sft", "aligned"):
        yield _benchmark(results, variant, "mt_bench", [Metric(metric="score", value=7.5, n=80)])
    yield from (results.benchmark("mild", variant, "mt_bench") for variant in ("expo", "expo-aligned"))


def _benchmark(results: Results, variant: str, benchmark: str, metrics: list[Metric]) -> Path:
    path = results.benchmark("mild", variant, benchmark)
    known = {"pair": "mild", "variant": variant, "benchmark": benchmark, "prompts": "test", "provenance": {}}
    write_json(path, BenchmarkResult(**known, metrics=metrics))
    return path


def _manifest(model: str, size: int) -> Manifest:
    hub = {"hub": "org/<rm>"} if model == "rm" else {"train": {"recipe": model, "data": "miniature"}}
    return Manifest(
        model=model,
        source=hub,
        revision="abc123" if model == "rm" else None,
        folder=f"results/models/{model}",
        files={"model.safetensors": File(size=size, sha256="0" * 64)},
        license={"license": "apache-2.0"} if model == "rm" else None,
        provenance={"expoflow": "0.1.0", "python": "3.11.7"},
    )


def _leave_times(folder: Path) -> None:
    head = "s\th:m:s\tmax_rss\tmax_vms"
    for name, seconds, memory in (
        ("generate/mild/alpha=0.dev", 100, "900.5"),
        ("generate/mild/alpha=0.3.dev", 25, "1000.2"),
        ("tables", 0.4, "-"),
        ("report", 1000, "5"),
    ):
        write_text(folder / f"logs/{name}.tsv", f"{head}\n{seconds}\t0:00:01\t{memory}\t1\n")
    write_text(folder / "logs/cut.tsv", "s\n")
    write_text(folder / "costs/mt_bench.json", '{"spent": 1.234}   \n')
