"""A program: two workers, each with a half of a model whose layers keep their weights, move from alpha to alpha.

For each alpha it prints, of every worker, whether it has both models of the pair, and whether its weights have the bits of
what it reads; at last when one of them has no memory for that.
"""

import os
import sys
from pathlib import Path

from expoflow.engines.model import Model
from expoflow.engines.vllm import VllmEngine
from expoflow.extrapolation.streamed_checkpoint import Streamed
from vllm import _custom_ops

os.environ["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # functions for the workers
_custom_ops._supports_onednn = False  # in the workers too, which run this file


def main(sft: Path, aligned: Path) -> None:
    def told(worker) -> tuple[bool, bool]:
        import torch

        model, config = worker.model_runner.get_model(), worker.vllm_config
        live = [each.detach().clone() for each in model.parameters()]
        worker._load(config.model_config.model, config.load_config.model_loader_extra_config)
        return worker._expo_parents is not None, all(map(torch.equal, live, model.parameters()))

    def spoil(worker) -> None:
        import torch
        from expoflow.engines import in_place

        def full(*given) -> None:
            raise torch.OutOfMemoryError("no memory left in one of them")

        if worker.rank == 1:
            in_place.Parents.write = full

    def at(alpha: float) -> Model:
        return Model(folder=aligned, streamed=Streamed(sft=sft, aligned=aligned, alpha=alpha))

    engine = VllmEngine(at(2.0), gpus=2)
    for alpha in (0.5, 20, -0.4, 0, 1.0):
        engine.move(at(alpha))
        print("told", alpha, *engine.engine.collective_rpc(told), flush=True)
    engine.engine.collective_rpc(spoil)
    engine.move(at(3.0))
    print("told", 3.0, *engine.engine.collective_rpc(told), flush=True)
    engine.close()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
