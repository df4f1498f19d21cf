"""Compare computing in float32, as expoflow does, with bfloat16, on a CPU that is slow in bfloat16.

    ATEN_CPU_CAPABILITY=default ONEDNN_MAX_CPU_ISA=AVX2 python bench/slow_processor.py WORK

The model has 135 million parameters in bfloat16. With these variables any x86 CPU behaves like one
without instructions for 16-bit types. Prints the seconds of generation and of scoring, in turn, and
whether greedy responses equal those of the same weights in float32.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import torch
from expoflow.config.stages import GenerateConfig
from expoflow.engines.model import Model, Request
from expoflow.engines.transformers import TransformersEngine
from expoflow.miniature.tokenizer import tokenizer
from expoflow.scoring import rewards
from expoflow.system import processor
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

SHAPE = dict(
    hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9, num_key_value_heads=3,
    vocab_size=49152, tie_word_embeddings=True, max_position_embeddings=2048,
)  # fmt: skip
IDS = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), 0)


def save(kind: type, folder: Path, dtype: torch.dtype, **more: int) -> Path:
    """Return a model of this shape with random weights, the same ones in every type."""
    if not folder.exists():
        torch.manual_seed(0)
        model = kind(LlamaConfig(**SHAPE, **IDS, **more)).to(torch.bfloat16).to(dtype)
        model.save_pretrained(folder)
        tokenizer().save_pretrained(folder)
    return folder


def timed(work: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds and the result."""
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--length", type=int, default=128, help="tokens of a prompt")
    parser.add_argument("--tokens", type=int, default=16)
    given = parser.parse_args()
    stored = save(LlamaForCausalLM, given.work / "model", torch.bfloat16)
    wide = save(LlamaForCausalLM, given.work / "wide", torch.float32)
    judge = save(LlamaForSequenceClassification, given.work / "judge", torch.bfloat16, num_labels=1)
    print(f"bfloat16 is slow here: {processor.is_slow('bfloat16')}")
    prompts = [[1 + (7 * row + at) % 900 for at in range(given.length + row)] for row in range(given.prompts)]
    requests = [Request(row, seed=at) for at, row in enumerate(prompts)]
    config = GenerateConfig(prompts="dev", temperature=0, max_tokens=given.tokens)

    def generate(folder: Path, dtype: str | None) -> tuple[float, object]:
        engine = TransformersEngine(Model(folder=folder), dtype=dtype)
        return timed(lambda: sorted(each for step in engine.written(requests, config) for each in step))

    def score(dtype: str) -> tuple[float, object]:
        scorer = rewards.load(Model(folder=judge), dtype=dtype)
        return timed(lambda: sorted(each for batch in scorer.logits(prompts) for each in batch))

    here, own, right = generate(stored, None), generate(stored, "bfloat16"), generate(wide, None)
    print(f"generation: {here[0]:.2f} s, in bfloat16 {own[0]:.2f} s: {own[0] / here[0]:.1f} times as long")
    print(f"greedy responses are those of float32: {here[1] == right[1]}")
    here, own = score("keep"), score("bfloat16")
    print(f"scoring: {here[0]:.2f} s, in bfloat16 {own[0]:.2f} s: {own[0] / here[0]:.1f} times as long")


if __name__ == "__main__":
    main()
