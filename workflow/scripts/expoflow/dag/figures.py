"""The results that a figure is drawn from: the input of its rule."""

from collections.abc import Callable
from pathlib import Path

from expoflow.config.figures import KINDS, FigureConfig
from expoflow.paths import RESULTS


def inputs(figure: FigureConfig) -> list[Path]:
    """The results that a figure reads, in the order of its kind's `reads`. Raises ValueError for an
    unknown name."""
    return [path for name in KINDS[figure.kind].reads for path in _paths(figure, name)]


def _paths(figure: FigureConfig, name: str) -> list[Path]:
    """The files of one kind of results."""
    match name:
        case "alphas":
            return [RESULTS.alphas(pair) for pair in figure.pairs]
        case "certificates":
            return [RESULTS.certificate(pair) for pair in figure.pairs]
        case "theory":
            return [RESULTS.theory(pair) for pair in figure.pairs]
        case "plane":
            return [RESULTS.plane(figure.plane)]
        case "cosines":
            return [RESULTS.table("cosines")]
        case "generations":
            return _of_benchmarks(figure, RESULTS.benchmark_rows)
        case "benchmarks":
            return _of_benchmarks(figure, RESULTS.benchmark)
    raise ValueError(f"no figure can read {name}")


def _of_benchmarks(figure: FigureConfig, place: Callable[[str, str, str], Path]) -> list[Path]:
    return [
        place(pair, variant, benchmark)
        for pair in figure.pairs
        for benchmark in figure.benchmarks()
        for variant in figure.variants
    ]
