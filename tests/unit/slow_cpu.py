"""A program: a pair in bfloat16 on a CPU that is slow in it, and the same weights in float32; prints JSON of what both give."""

import json
import sys
from pathlib import Path

import torch
from expoflow.config.stages import GenerateConfig
from expoflow.engines.memory import weight_bytes
from expoflow.engines.model import Model, Request
from expoflow.engines.transformers import TransformersEngine
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors_of
from expoflow.scoring import rewards
from expoflow.system import processor

REQUESTS = [Request([3, *range(5, 5 + length)], seed=length) for length in (4, 9, 6)]
ROWS = [[3, 5, 9, 2], [4, 4, 8]]


def main(sft: Path, aligned: Path, wide: Path, untyped: Path, judge: Path, wide_judge: Path) -> None:
    config = GenerateConfig(prompts="dev", temperature=0, max_tokens=12)
    engine = TransformersEngine(Model(folder=aligned))
    found = {"slow": processor.is_slow("bfloat16"), "engine": str(engine.model.dtype)}
    found["written"] = sorted(each for step in engine.written(REQUESTS, config) for each in step)
    found["logps"] = sorted(each for step in engine.logps([([3, 4], [5, 6, 7])]) for each in step)
    found["bytes"] = [weight_bytes(Model(folder=each), cpu=True) for each in (aligned, wide, untyped)]
    found["in place"] = []
    for alpha in (0.5, 2.0, -0.3):
        streamed = Streamed(sft=sft, aligned=aligned, alpha=alpha)
        engine.move(Model(folder=aligned, streamed=streamed))
        state = engine.model.state_dict()
        same = all(torch.equal(state[name], each.float()) for name, each in tensors_of(streamed))
        found["in place"].append((engine.parents is not None, same))
    other = TransformersEngine(Model(folder=wide))
    found["written in float32"] = sorted(each for step in other.written(REQUESTS, config) for each in step)
    found["logps in float32"] = sorted(each for step in other.logps([([3, 4], [5, 6, 7])]) for each in step)
    for name, folder in (("scores", judge), ("scores in float32", wide_judge)):
        scorer = rewards.load(Model(folder=folder))
        found[name] = sorted(each for batch in scorer.logits(ROWS) for each in batch)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
