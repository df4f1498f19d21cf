"""Compare scoring by length under a token budget with the authors' way, a pipeline with batch 8.

    python bench/score.py [--responses 400] [--repeats 3]

The authors' way is a text-classification pipeline. CPU seconds are measured, or wall seconds if a
GPU does the work. The reward model has random weights (Llama, by default 4 layers of 256). The
lengths of the responses are distributed like those of zephyr-7b-alpha on AlpacaEval: log-normal,
with a median of 245 tokens and a standard deviation of the logarithm of 0.96.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import numpy as np
import torch
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model
from expoflow.miniature.tokenizer import tokenizer
from expoflow.miniature.world import prompts
from expoflow.scoring import rewards
from transformers import LlamaConfig, LlamaForSequenceClassification, pipeline


def make(folder: Path, hidden: int, layers: int) -> None:
    """Return a reward model with random weights, in float32 on a CPU and bfloat16 on a GPU."""
    words = tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=hidden, intermediate_size=hidden * 11 // 4, num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        max_position_embeddings=4096, num_labels=1, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    model = LlamaForSequenceClassification(config)
    (model.bfloat16() if torch.cuda.is_available() else model).save_pretrained(folder)
    words.save_pretrained(folder)


def clock() -> float:
    """Return CPU seconds if the CPU does the work, or else wall seconds."""
    return time.perf_counter() if torch.cuda.is_available() else time.process_time()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--responses", type=int, default=400)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    random = np.random.default_rng(0)
    asked = prompts("train", 0)[: arguments.responses]
    words = [word for prompt in asked for word in prompt.messages[0].content.split()]
    lengths = np.clip(random.lognormal(5.5, 0.96, len(asked)), 5, 3000).astype(int)
    texts = [" ".join(random.choice(words, length)) for length in lengths]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make(folder, arguments.hidden, arguments.layers)
        model = rewards.load(Model(folder=folder))
        authors = pipeline(
            "text-classification", model=str(folder), function_to_apply="none", device=model.device
        )
        times: dict[str, list[float]] = {"expoflow": [], "the authors' way": []}
        for _ in range(arguments.repeats):
            began = clock()
            rows = [
                Chat(model.tokenizer).token_ids(p.messages, text)
                for p, text in zip(asked, texts, strict=True)
            ]
            ours = dict(pair for batch in model.logits(rows) for pair in batch)
            times["expoflow"].append(clock() - began)
            began = clock()
            conversations = [
                authors.tokenizer.apply_chat_template(
                    [
                        {"role": "user", "content": p.messages[0].content},
                        {"role": "assistant", "content": text},
                    ],
                    tokenize=False,
                )
                for p, text in zip(asked, texts, strict=True)
            ]
            theirs = authors(conversations, batch_size=8, add_special_tokens=False)
            times["the authors' way"].append(clock() - began)
        differences = [abs(ours[index] - row["score"]) for index, row in enumerate(theirs)]
    tokens = sum(map(len, rows))
    for name, seconds in times.items():
        print(f"{name}: {statistics.median(seconds):.1f} s for {tokens} tokens of {len(rows)} responses")
    ratio = statistics.median(times["the authors' way"]) / statistics.median(times["expoflow"])
    print(f"ratio {ratio:.1f}; largest difference of a score {max(differences):.1e}")


if __name__ == "__main__":
    main()
