"""A trained pair on a hub, as its owner would have put it there."""

import json
from pathlib import Path

from expoflow.config.sources import ModelConfig
from expoflow.files.records import read_json
from expoflow.results import Manifest
from expoflow.training.train import train
from safetensors.torch import load_file, save_file
from server import Hub


def train_on(hub: Hub, folder: Path, *, shards: int = 1, card: str | None = None) -> None:
    """Put org/sft and org/dpo, trained for a moment, on the hub, in that many files and with that README.md."""
    sft = {"recipe": "sft", "data": "miniature", "examples": 200, "epochs": 1}
    dpo = {"recipe": "dpo", "from": "sft", "data": "miniature", "examples": 100, "learning_rate": 3e-4}
    needed: dict[str, Manifest] = {}
    for name, recipe in (("sft", sft), ("dpo", dpo)):
        train(name, ModelConfig(train=recipe), needed, 7, folder / f"{name}.json")
        needed = {"base": read_json(folder / f"{name}.json", Manifest)}
    for name in ("sft", "dpo"):
        if shards > 1:
            shard(folder / name, shards)
        if card:
            (folder / name / "README.md").write_text(card)
        hub.add(f"org/{name}", folder / name)


def shard(folder: Path, count: int) -> None:
    """Divide the weights of a folder into `count` files with an index, as large models have them."""
    tensors, weight_map = load_file(folder / "model.safetensors"), {}
    for number in range(count):
        file, names = f"model-{number + 1:05d}-of-{count:05d}.safetensors", list(tensors)[number::count]
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    size = sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
