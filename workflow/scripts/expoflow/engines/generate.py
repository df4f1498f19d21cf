"""Engines: a model and prompts in, responses out; one interface whatever runs the model.

This module is a job's side of it and imports no torch; `engines.answering` is the side that holds the model.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from expoflow.config.stages import GenerateConfig
from expoflow.engines.model import Model, chosen, engine_key
from expoflow.files.records import Record
from expoflow.files.resumable import Part
from expoflow.hosts.shares import run_shares
from expoflow.hosts.task import Task
from expoflow.results import Generation, Prompt

# Requests of the smallest share that a further GPU is given. An engine answers about as many at a time (vLLM's max_num_seqs),
# so fewer take as long as the longest response of them, and are done before a further engine has been started.
LEAST = 256


class GenerateTask(Record):
    """The arguments of a "generate" task: what `engines.answering.generate` is asked for.

    With a `share` only the prompts of these prompt_ids are answered; `done` are the (prompt_id, sample) that are not needed
    any more.
    """

    model: Model
    engine: str
    prompts: list[Prompt]
    config: GenerateConfig
    share: tuple[str, ...] | None = None
    done: tuple[tuple[str, int], ...] = ()


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

    def task(share: Sequence[str] | None) -> Task:
        done = tuple((row.prompt_id, row.sample) for row in kept.rows)
        asked = GenerateTask(
            model=model, engine=engine, prompts=prompts, config=config, share=share, done=done
        )
        return Task(kind="generate", key=engine_key(model, engine), arguments=asked.model_dump(mode="json"))

    done = Counter(row.prompt_id for row in kept.rows)
    missing = [prompt.prompt_id for prompt in prompts if done[prompt.prompt_id] < config.samples]
    most = (len(prompts) * config.samples - len(kept.rows)) // LEAST
    run_shares(task, missing, most, lambda rows: kept.add([Generation.model_validate(row) for row in rows]))
    order = {prompt.prompt_id: place for place, prompt in enumerate(prompts)}
    return sorted(kept.rows, key=lambda row: (order[row.prompt_id], row.sample))


def request_seed(seed: int, sample: int, prompt_id: str) -> int:
    """Seed of one request: 32 bits of a sha256 over seed + sample and the prompt's id.

    One seed for all prompts would give all of them the same random numbers: where the first token's
    distribution hardly depends on the prompt, all responses would then begin alike, and an interval
    over prompts would be far too narrow: on the miniature the mean reward of 200 prompts then has a
    standard deviation of 0.69 from seed to seed instead of 0.08 (bench/seeds.py).
    """
    return int.from_bytes(hashlib.sha256(f"{seed + sample}:{prompt_id}".encode()).digest()[:4])
