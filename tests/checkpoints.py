"""Tiny real checkpoints: Llama weights, config and tokenizer, written by safetensors as transformers would."""

import json
import math
import struct
from pathlib import Path

import torch
from expoflow.checkpoints.header import FLOATS
from safetensors.torch import load_file, save_file

HIDDEN, INTER, LAYERS = 32, 64, 2


def shapes(
    vocab: int = 320, hidden: int = HIDDEN, layers: int = LAYERS, tied: bool = False, inter: int = INTER
) -> dict[str, tuple]:
    result = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        result |= {prefix + f"self_attn.{name}_proj.weight": (hidden, hidden) for name in "qkvo"}
        result |= {prefix + f"mlp.{name}_proj.weight": (inter, hidden) for name in ("gate", "up")}
        result[prefix + "mlp.down_proj.weight"] = (hidden, inter)
        result[prefix + "input_layernorm.weight"] = (hidden,)
        result[prefix + "post_attention_layernorm.weight"] = (hidden,)
    result["model.norm.weight"] = (hidden,)
    return result if tied else result | {"lm_head.weight": (vocab, hidden)}


def weights(dtype: torch.dtype = torch.bfloat16, seed: int = 0, **kwargs) -> dict[str, torch.Tensor]:
    """theta0 is seed 0; a larger seed adds its own small step to it, as alignment does."""
    start, step = torch.Generator().manual_seed(0), torch.Generator().manual_seed(seed)
    result = {}
    for name, shape in shapes(**kwargs).items():
        value = torch.randn(shape, generator=start, dtype=torch.float64) * 0.02 + ("norm" in name)
        if seed:
            value += torch.randn(shape, generator=step, dtype=torch.float64) * 1e-3
        result[name] = value.to(dtype)
    return result


def config(vocab: int = 320, hidden: int = HIDDEN, layers: int = LAYERS, tied: bool = False, **more) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": INTER, "num_hidden_layers": layers, "num_attention_heads": 4,
        "num_key_value_heads": 4, "vocab_size": vocab, "tie_word_embeddings": tied, "dtype": "bfloat16", **more,
    }  # fmt: skip


def save(
    folder: Path, tensors: dict[str, torch.Tensor], *, shards: int = 1, tokens: int | None = 320, **settings
) -> Path:
    """Write weights in that many files, config.json from `settings`, and a tokenizer of `tokens` words."""
    folder.mkdir(parents=True)
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        weight_map = {}
        for number in range(shards):
            file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
            names = list(tensors)[number::shards]
            save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
            weight_map |= dict.fromkeys(names, file)
        index = {
            "metadata": {"total_size": sum(each.nbytes for each in tensors.values())},
            "weight_map": weight_map,
        }
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(config(**settings)))
    if tokens:
        write_tokenizer(folder, [f"word{at}" for at in range(tokens)])
    return folder


def write_tokenizer(folder: Path, words: list[str]) -> None:
    vocab = {word: at for at, word in enumerate(words)}
    model = {"type": "WordLevel", "vocab": vocab, "unk_token": words[0]}
    (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}))


def write_raw(path: Path, header: dict | bytes, data: bytes = b"") -> Path:
    """A safetensors file with whatever header, right or wrong."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def write_holes(folder: Path, gigabytes: float) -> Path:
    """A bf16 checkpoint of zeros that takes no room: a file whose data are holes."""
    inter = int(gigabytes * 1e9 / 2 / (3 * LAYERS * HIDDEN))
    header, at = {}, 0
    for name, shape in shapes(inter=inter).items():
        size = 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, at + size]}
        at += size
    path = write_raw(folder / "model.safetensors", header)
    with open(path, "r+b") as out:
        out.truncate(path.stat().st_size + at)
    (folder / "config.json").write_text(json.dumps(config(intermediate_size=inter)))
    return folder


def load(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a folder, by safetensors' own reader."""
    return {
        name: each for file in sorted(folder.glob("*.safetensors")) for name, each in load_file(file).items()
    }


def bits(tensor: torch.Tensor) -> torch.Tensor:
    """The bytes of a tensor, for comparisons that see NaN and -0.0."""
    return tensor.contiguous().flatten().view(torch.uint8)


def same_bits(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return list(one) == list(two) and all(
        one[name].dtype == two[name].dtype and torch.equal(bits(one[name]), bits(two[name])) for name in one
    )


TORCH_NAMES = {getattr(torch, name): code for name, code in FLOATS.items()}
