"""Engines: a model and prompts in, responses out; one interface whatever runs the model.

This module is a job's side of it and imports no torch; `engines.serve` is the side that holds the model.
"""

import hashlib
import importlib.util
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from expoflow import serving, store
from expoflow.checkpoint import read_json_file
from expoflow.config import GenerateConfig
from expoflow.parts import Part
from expoflow.records import Generation, Prompt, Record
from expoflow.serving import Task
from expoflow.streaming import Streamed

# What of a config.json does not make another architecture.
INCIDENTAL = ("_name_or_path", "transformers_version", "use_cache")


class Model(Record):
    """What an engine runs; plain data, so that it can be sent to another process.

    `folder` has config and tokenizer, and the weights too unless they are `streamed`. `chat_template` (the
    template itself) and `stop` (token ids beside generation_config's) override what the folder says.
    """

    folder: Path
    streamed: Streamed | None = None
    chat_template: str | None = None
    stop: tuple[int, ...] = ()
    trust_remote_code: bool = False


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

    name: str
    """`transformers` or `vllm`."""
    tokenizer: Any
    context: int
    """Tokens that prompt and response may have together; where it ends, so does a response."""

    def move(self, model: Model) -> None:
        """Take the weights, tokenizer, template and stop tokens of another model of the same architecture."""

    def generate(
        self, requests: Sequence[Request], config: GenerateConfig, done: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer the requests whose index is not in `done`; an answer does not depend on the other requests.

        Yields after every decoding step what it finished, perhaps nothing, as (index, completion). May be
        closed (`.close()`) at any time: what is under way is then given up.
        """

    def logps(self, rows: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[tuple[int, float]]]:
        """Log-probability of given responses: rows of (prompt token ids, response token ids), neither empty.

        Yields as they get ready (index, sum over the response's tokens, in nats, at temperature 1).
        """

    def close(self) -> None:
        """Free the model's memory."""


class Generate(Record):
    """The arguments of a "generate" task: what `engines.serve.generate` is asked for.

    `done` are the (prompt_id, sample) that are not needed any more.
    """

    model: Model
    engine: str
    prompts: list[Prompt]
    config: GenerateConfig
    done: tuple[tuple[str, int], ...] = ()


def chosen(engine: str) -> str:
    """The engine that `generate.engine` or `score.engine` stands for on this machine."""
    if engine != "auto":
        return engine
    return "vllm" if importlib.util.find_spec("vllm") and serving.gpus() else "transformers"


def generate(
    model: Model,
    prompts: Sequence[Prompt],
    config: GenerateConfig,
    part: Path,
    key: str,
    told: Callable[[str], None] = print,
) -> list[Generation]:
    """`config.samples` responses to every prompt, in the order of prompts, then samples.

    Finished responses are kept in `part`, so that a job that was killed goes on where it was; `key` says
    what they depend on. The caller removes the file when the responses have been written.
    """
    engine = chosen(config.engine)
    kept = Part(part, f"{key} {engine}", Generation)
    if kept.rows:
        told(f"{len(kept.rows)} responses are there already, from a run that was cut off")

    def task() -> Task:
        done = tuple((row.prompt_id, row.sample) for row in kept.rows)
        asked = Generate(model=model, engine=engine, prompts=prompts, config=config, done=done)
        return Task(kind="generate", key=engine_key(model, engine), arguments=asked.model_dump(mode="json"))

    for rows in serving.run(task):
        kept.add([Generation.model_validate(row) for row in rows])
    order = {prompt.prompt_id: place for place, prompt in enumerate(prompts)}
    return sorted(kept.rows, key=lambda row: (order[row.prompt_id], row.sample))


def engine_key(model: Model, engine: str) -> str:
    """What models have in common that one engine can run one after the other: engine and architecture."""
    config = read_json_file(model.folder / "config.json")
    config = {name: value for name, value in config.items() if name not in INCIDENTAL}
    return store.digest([engine, config, model.trust_remote_code])


def request_seed(seed: int, sample: int, prompt_id: str) -> int:
    """Seed of one request: 32 bits of a sha256 over seed + sample and the prompt's id.

    One seed for all prompts would give all of them the same random numbers: where the first token's
    distribution hardly depends on the prompt, all responses would then begin alike, and an interval
    over prompts would be far too narrow: on the miniature the mean reward of 200 prompts then has a
    standard deviation of 0.69 from seed to seed instead of 0.08 (bench/seeds.py).
    """
    return int.from_bytes(hashlib.sha256(f"{seed + sample}:{prompt_id}".encode()).digest()[:4])
