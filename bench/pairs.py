"""Generated pairs for the benchmarks: Llama-shaped bf16 checkpoints, written shard by shard."""

import json
import math
import struct
from pathlib import Path

SIZES = {  # hidden, intermediate, layers, vocabulary, shards
    "tiny": (256, 256, 1, 256, 1),
    "small": (512, 1408, 8, 32000, 1),
    "1.1B": (2048, 5632, 22, 32000, 5),
    "3.2B": (3072, 8192, 28, 64000, 5),
    "6.7B": (4096, 11008, 32, 32000, 5),
}
BLOCK = 1 << 22


def tensors(hidden: int, intermediate: int, layers: int, vocab: int) -> list[tuple[str, tuple[int, ...]]]:
    names = [("model.embed_tokens.weight", (vocab, hidden))]
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes = {
            "q": (hidden, hidden),
            "k": (hidden // 4, hidden),
            "v": (hidden // 4, hidden),
            "o": (hidden, hidden),
        }
        names += [(f"{prefix}self_attn.{name}_proj.weight", shape) for name, shape in shapes.items()]
        names += [(f"{prefix}mlp.{name}_proj.weight", (intermediate, hidden)) for name in ("gate", "up")]
        names.append((prefix + "mlp.down_proj.weight", (hidden, intermediate)))
        names += [(prefix + f"{name}_layernorm.weight", (hidden,)) for name in ("input", "post_attention")]
    return [*names, ("model.norm.weight", (hidden,)), ("lm_head.weight", (vocab, hidden))]


def make(folder: Path, size: str, device: str = "cpu") -> tuple[Path, Path]:
    """Make (sft, aligned) under `folder` on `device`, 1% of the weights apart, if missing."""
    hidden, intermediate, layers, vocab, count = SIZES[size]
    names = tensors(hidden, intermediate, layers, vocab)
    total = sum(math.prod(shape) for _, shape in names)
    shards, filled = [[]], 0
    for name, shape in names:
        if filled >= total / count * len(shards):
            shards.append([])
        shards[-1].append((name, shape))
        filled += math.prod(shape)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": hidden // 64,
        "num_key_value_heads": hidden // 256, "max_position_embeddings": 4096, "vocab_size": vocab, "dtype": "bfloat16", "tie_word_embeddings": False,
    }  # fmt: skip
    for role in ("sft", "aligned"):
        target = folder / role
        if (target / "config.json").is_file():
            continue
        target.mkdir(parents=True, exist_ok=True)
        weight_map = {}
        for number, shard in enumerate(shards, start=1):
            file = (
                f"model-{number:05d}-of-{len(shards):05d}.safetensors" if count > 1 else "model.safetensors"
            )
            _write(target / file, shard, role, number, device)
            weight_map |= dict.fromkeys((name for name, _ in shard), file)
        if count > 1:
            index = {"metadata": {"total_size": 2 * total}, "weight_map": weight_map}
            (target / "model.safetensors.index.json").write_text(json.dumps(index))
        vocabulary = {f"word{at}": at for at in range(vocab)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": "word0"}
        (target / "tokenizer.json").write_text(
            json.dumps({"version": "1.0", "added_tokens": [], "model": model})
        )
        template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
        (target / "tokenizer_config.json").write_text(
            json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": template})
        )
        (target / "config.json").write_text(json.dumps(config))
    return folder / "sft", folder / "aligned"


def _write(path: Path, shard: list[tuple[str, tuple[int, ...]]], role: str, seed: int, device: str) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(BLOCK, generator=generator).to(device) * 0.02
    step = torch.randn(BLOCK, generator=generator).to(device) * 2e-4
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, shape in shard:
        stop = at + 2 * math.prod(shape)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for number, (_, shape) in enumerate(shard):
            elements = math.prod(shape)
            for start in range(0, elements, BLOCK):
                values = base.roll(number * 977 + start // 7)
                if role == "aligned":
                    values = values + step.roll(number * 31 + start // 13)
                written = values[: elements - start].bfloat16().view(torch.uint8)
                file.write(memoryview(written.cpu().numpy()))
