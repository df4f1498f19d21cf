"""Compare one seed for all prompts with a seed per prompt: how the mean reward varies.

    python bench/seeds.py            # after the default run, from its folder

An interval over prompts assumes that prompts are independent. One seed for all of them breaks that.
"""

import os
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}

import numpy as np
from expoflow.config.stages import GenerateConfig
from expoflow.engines.chat import Chat
from expoflow.engines.generate import request_seed
from expoflow.engines.model import Model, Request
from expoflow.engines.transformers import TransformersEngine
from expoflow.files.records import read_jsonl
from expoflow.results import Prompt
from expoflow.scoring import rewards

SEEDS = range(100, 116)


def main() -> None:
    results, config = Path("results"), GenerateConfig(max_tokens=64)
    engine = TransformersEngine(Model(folder=results / "models/mini-dpo20"))
    reward_model = rewards.load(Model(folder=results / "models/mini-reward"))
    prompts = read_jsonl(results / "prompts/dev.jsonl", Prompt)
    ids = [Chat(engine.tokenizer).token_ids(prompt.messages) for prompt in prompts]
    for kind in ("one seed for all prompts", "a seed per prompt"):
        means = []
        for seed in SEEDS:
            own = [request_seed(seed, 0, prompt.prompt_id) for prompt in prompts]
            seeds = own if kind == "a seed per prompt" else [seed] * len(prompts)
            requests = [Request(*pair) for pair in zip(ids, seeds, strict=True)]
            rows = [
                Chat(reward_model.tokenizer).token_ids(prompts[index].messages, completion.text)
                for finished in engine.generate(requests, config)
                for index, completion in finished
            ]
            means.append(np.mean([reward for batch in reward_model.logits(rows) for _, reward in batch]))
        print(
            f"{kind}: standard deviation of the mean reward over {len(SEEDS)} seeds {np.std(means, ddof=1):.3f}"
        )


if __name__ == "__main__":
    main()
