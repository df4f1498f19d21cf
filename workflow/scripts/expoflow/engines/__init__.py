"""Engines: a checkpoint folder in, responses out; one interface whatever runs the model."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from expoflow.config import GenerateConfig
from expoflow.records import Generation, Prompt


@dataclass(frozen=True)
class Request:
    """Prompt token ids, and the seed of the request's own random numbers."""

    token_ids: list[int]
    seed: int


@dataclass(frozen=True)
class Completion:
    """A response: its text, its tokens without the stop token, and `stop` or `length`."""

    text: str
    tokens: int
    finish_reason: str


class Engine(Protocol):
    """What runs a model."""

    tokenizer: Any

    def generate(self, requests: Sequence[Request], config: GenerateConfig) -> list[Completion]:
        """Answer every request, in order; an answer does not depend on the other requests."""


def request_seed(seed: int, sample: int, prompt_id: str) -> int:
    """Seed of one request: 32 bits of a sha256 over seed + sample and the prompt's id.

    One seed for all prompts would give all of them the same random numbers: where the first token's
    distribution hardly depends on the prompt, all responses would then begin alike, and an interval
    over prompts would be far too narrow: on the miniature the mean reward of 200 prompts then has a
    standard deviation of 0.69 from seed to seed instead of 0.08 (bench/seeds.py).
    """
    return int.from_bytes(hashlib.sha256(f"{seed + sample}:{prompt_id}".encode()).digest()[:4])


def respond(engine: Engine, prompts: Sequence[Prompt], config: GenerateConfig) -> list[Generation]:
    """`config.samples` responses to every prompt, in the order of prompts, then samples."""
    from expoflow.chat import token_ids

    asked = [(prompt, sample) for prompt in prompts for sample in range(config.samples)]
    seeds = [request_seed(config.seed, sample, prompt.prompt_id) for prompt, sample in asked]
    ids = {prompt.prompt_id: token_ids(engine.tokenizer, prompt.messages) for prompt in prompts}
    requests = [Request(ids[prompt.prompt_id], seed) for (prompt, _), seed in zip(asked, seeds, strict=True)]
    completions = engine.generate(requests, config)
    return [
        Generation(
            prompt_id=prompt.prompt_id,
            sample=sample,
            seed=seed,
            response=completion.text,
            response_tokens=completion.tokens,
            finish_reason=completion.finish_reason,
        )
        for (prompt, sample), seed, completion in zip(asked, seeds, completions, strict=True)
    ]


def load(folder: Path, config: GenerateConfig, weights: Iterable[tuple[str, Any]] | None = None) -> Engine:
    """The engine that `config` asks for, with the checkpoint in `folder`.

    `weights` are (name, tensor) pairs for a folder that holds none of its own.
    """
    from expoflow.engines.transformers import TransformersEngine

    return TransformersEngine(folder, weights)
