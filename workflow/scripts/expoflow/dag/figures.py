"""Which results a figure is drawn from: the input of its rule."""

from collections.abc import Iterable

from expoflow.config.figures import KINDS, FigureConfig


def inputs(figure: FigureConfig) -> list[str]:
    """The results that a figure reads, in the order of its kind's `reads`."""
    return [path for name in KINDS[figure.kind].reads for path in _paths(figure, name)]


def _paths(figure: FigureConfig, name: str) -> Iterable[str]:
    """The files of one sort of results."""
    match name:
        case "alphas":
            return [f"results/pairs/{pair}/alphas.csv" for pair in figure.pairs]
        case "theory":
            return [f"results/pairs/{pair}/theory.json" for pair in figure.pairs]
        case "plane":
            return [f"results/planes/{figure.plane}.csv"]
        case "cosines":
            return ["results/cosines.csv"]
        case "generations":
            return _of_benchmarks(figure, "generations.jsonl")
        case "benchmarks":
            return _of_benchmarks(figure, "json")
    raise ValueError(f"no figure can read {name}")


def _of_benchmarks(figure: FigureConfig, suffix: str) -> list[str]:
    return [
        f"results/pairs/{pair}/benchmarks/{variant}/{benchmark}.{suffix}"
        for pair in figure.pairs
        for benchmark in figure.benchmarks()
        for variant in figure.variants
    ]
