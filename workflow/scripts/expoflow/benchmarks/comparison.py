"""The paired differences expo - aligned of one benchmark: the input of the rule and its output."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from expoflow.config import Config
from expoflow.config.stages import SelectConfig
from expoflow.files.records import Row, provenance, read_jsonl, write_json
from expoflow.results import BenchmarkResult, Metric


@dataclass(frozen=True)
class Comparison:
    """The argument of a benchmark's `run_comparison`: paired differences expo - aligned.

    `inputs` has the row files of both variants, `expo` and `aligned`, and the files of the
    benchmark.
    """

    pair: str
    benchmark: str
    config: Config
    inputs: Mapping[str, Path]
    result: Path
    say: Callable[[str], None] = print

    @cached_property
    def settings(self) -> Any:
        """The benchmark's section of the config, with the pair's overrides."""
        return getattr(self.config.section(self.pair, "benchmarks"), self.benchmark)

    @cached_property
    def select(self) -> SelectConfig:
        """The confidence level and the resamples of the intervals."""
        return self.config.section(self.pair, "select")

    def rows(self, variant: str, record: type[Row]) -> list[Row]:
        """The rows of `expo` or `aligned`."""
        return read_jsonl(self.inputs[variant], record)

    def write(self, metrics: list[Metric], prompts: str, **settings: Any) -> None:
        """Write the result, and print a line on it."""
        result = BenchmarkResult(
            pair=self.pair,
            variant="expo-aligned",
            benchmark=self.benchmark,
            prompts=prompts,
            metrics=metrics,
            provenance=provenance("scipy") | settings,
        )
        write_json(self.result, result)
        self.say(f"{self.pair}: {self.benchmark}: expo - aligned: {words(metrics)}")


def words(metrics: Sequence[Metric]) -> str:
    """A line on a benchmark: its first metric, and others that are always shown."""
    shown = [m for m in metrics if m.metric in ("quality", "win_rate", "lc_win_rate") or m is metrics[0]]
    return ", ".join(
        f"{m.metric} {m.value:.3f}" + (f" [{m.low:.3f}, {m.high:.3f}]" if m.low is not None else "")
        for m in shown
    )
