"""What the tests of vLLM share: a pair of miniature models, the prompts, and how an engine is asked."""

from dataclasses import dataclass
from pathlib import Path

from expoflow.config.base import spell
from expoflow.config.stages import GenerateConfig
from expoflow.engines.model import Completion, Engine, Model, Request
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.miniature.world import prompts

ALPHAS = (0, 0.5, 20)
PROMPTS = prompts("dev", 0)[:150]
GREEDY = GenerateConfig(temperature=0, presence_penalty=0, frequency_penalty=0, max_tokens=30)


@dataclass(frozen=True)
class Pair:
    """Two checkpoints, and the folder for what is made of them."""

    sft: Path
    aligned: Path
    root: Path

    def stored(self, alpha: float, options: Options | None = None, name: str = "stored") -> Model:
        """theta2 as an ordinary checkpoint."""
        folder = self.root / name / spell(alpha)
        if not folder.exists():
            extrapolate(self.sft, self.aligned, {spell(alpha): folder}, options)
        return Model(folder=folder)

    def streamed(self, alpha: float, options: Options | None = None) -> Model:
        """theta2 as a folder without weights and what its weights are."""
        folder = self.root / "streamed" / spell(alpha)
        if not folder.exists():
            extrapolate(self.sft, self.aligned, {spell(alpha): folder}, write_weights=False)
        weights = Streamed(sft=self.sft, aligned=self.aligned, alpha=alpha, options=options or Options())
        return Model(folder=folder, streamed=weights)


def answer(
    engine: Engine, requests: list[Request], config: GenerateConfig = GREEDY, done=()
) -> list[Completion]:
    """The completions in order of the requests."""
    completions = dict(each for step in engine.generate(requests, config, done) for each in step)
    assert completions.keys() == set(range(len(requests))) - set(done)
    return [completions[index] for index in sorted(completions)]
