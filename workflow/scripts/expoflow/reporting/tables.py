"""The joint tables over all pairs: results/{alphas,rewards,benchmarks,summary}.csv."""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from expoflow.columns import ALPHA_COLUMNS, BENCHMARK_COLUMNS, REWARD_COLUMNS, SUMMARY_COLUMNS
from expoflow.config.base import ALPHA
from expoflow.errors import DataError
from expoflow.files.records import read_csv, read_json, require_own, write_csv
from expoflow.paths import ALPHAS, Results, of_benchmark, of_pair
from expoflow.results import BenchmarkResult, Best, read_certificate

# The columns of alphas.csv that the summary has for aligned and for expo.
COMPARED = [name.removesuffix("_expo") for name in SUMMARY_COLUMNS if name.endswith("_expo")]
# The columns that a table must have. Others are empty in a table of an earlier version.
SWEPT = ("pair", "alpha", "chosen", *COMPARED)
SCORED = ("pair", "alpha", "prompts", "prompt_id", "sample", "reward")
BENCHMARKED = ("pair", "variant", "benchmark", "metric", "value", "low", "high")


def write_sweeps(
    results: Results, alphas: list[Path], best: list[Path], rewards: list[Path], certificates: list[Path]
) -> None:
    """Write the tables of the sweeps into `results`, with rows in the order of the given files."""
    swept = read_sweeps(alphas)
    write_csv(results.table("alphas"), swept, ALPHA_COLUMNS)
    write_csv(results.table("rewards"), read(rewards, SCORED), REWARD_COLUMNS)
    write_csv(results.table("summary"), _summary_rows(best, certificates, swept), SUMMARY_COLUMNS)


def write_summary(table: Path, results: Results, pairs: list[str]) -> None:
    """Write summary.csv alone, for `pairs`, even if a certificate is missing."""
    best, certificates = map(results.best, pairs), map(results.certificate, pairs)
    swept = read_sweeps(map(results.alphas, pairs))
    write_csv(table, _summary_rows(best, certificates, swept), SUMMARY_COLUMNS)


def write_benchmarks(table: Path, results: list[Path]) -> None:
    """Write benchmarks.csv. A row without a metric shows the gap if a result is missing."""
    write_csv(table, _benchmark_rows(results), BENCHMARK_COLUMNS)


def read(paths: Iterable[Path], columns: Iterable[str] = ()) -> Iterator[dict[str, str]]:
    """The rows of CSV files with `columns`, file after file, with every value as text.

    Raises DataError if a file is missing or truncated, or lacks a column.
    """
    for path in paths:
        yield from read_csv(path, columns)


def read_sweeps(paths: Iterable[Path]) -> list[dict[str, str]]:
    """The rows of the pairs' alphas.csv.

    Raises DataError if a file does not name exactly one chosen alpha for its pair.
    """
    rows = []
    for path in paths:
        own = read_csv(path, SWEPT)
        chosen = [row["alpha"] for row in own if row["chosen"] == "1"]
        if (
            {row["pair"] for row in own} != {of_pair(path)}
            or len(chosen) != 1
            or not all(map(_is_alpha, own))
        ):
            raise DataError(
                f"{path}: does not say which alpha was chosen for pair {of_pair(path)}; delete it and run snakemake again"
            )
        rows += own
    return rows


def _is_alpha(row: dict[str, str]) -> bool:
    return re.fullmatch(ALPHA, row["alpha"]) is not None


def _certified(path: Path, best: Best) -> dict[str, Any]:
    """The summary's columns of a certificate; only that there is none if nothing was held out."""
    certificate = read_certificate(path, best)
    if certificate is None or not certificate.held_out:
        return {}
    return {
        "certificate": certificate.certified,
        "certificate_measure": certificate.measure,
        "certificate_gain": certificate.gain,
        "certificate_low": certificate.low,
        "certificate_high": certificate.high,
        "certificate_prompts": certificate.prompts,
        "judged_on": certificate.judged_on,
        "looks": certificate.looks,
    }


def _benchmark_rows(paths: list[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        place = dict(zip(("pair", "variant", "benchmark"), of_benchmark(path), strict=True))
        if not path.exists():
            yield place
            continue
        result = read_json(path, BenchmarkResult)
        require_own(path, dict(result), place)
        for metric in result.metrics:
            yield {
                "pair": result.pair,
                "variant": result.variant,
                "benchmark": result.benchmark,
                **metric.model_dump(),
            }


def _summary_rows(
    paths: Iterable[Path], certificates: Iterable[Path], swept: list[dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """For every pair: aligned beside expo on the prompts that chose alpha, and the certificate."""
    rows = {(row["pair"], row["alpha"]): row for row in swept}
    for path, certificate in zip(paths, certificates, strict=True):
        best = read_json(path, Best)
        require_own(path, dict(best), {"pair": of_pair(path)})
        if (best.pair, best.alpha) not in rows:
            raise DataError(
                f"{path}: alpha {best.alpha} was not tried according to {path.with_name(ALPHAS)}; delete both and run snakemake again"
            )
        aligned, expo = rows[best.pair, "0"], rows[best.pair, best.alpha]
        yield {
            "pair": best.pair,
            "best_alpha": best.alpha,
            "certified": best.certified,
            "gain": best.gain,
            "gain_low": best.gain_low,
            "gain_high": best.gain_high,
            "optimism": best.optimism,
            **_certified(certificate, best),
            **{f"{name}_aligned": aligned[name] for name in COMPARED},
            **{f"{name}_expo": expo[name] for name in COMPARED},
        }
