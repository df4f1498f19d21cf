"""Generate responses: the job's side of an engine.

This module imports no torch; `engines.answering` is the side that holds the model.
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

# Requests in the smallest share that an additional GPU gets. An engine answers about this many at a
# time (vLLM's max_num_seqs). Fewer requests take only as long as their longest response and are
# done before another engine has started.
LEAST = 256


class GenerateTask(Record):
    """The arguments of a "generate" task, which `engines.answering.generate` runs.

    If `share` is given, only the prompts with these prompt_ids are answered. `done` lists the
    (prompt_id, sample) that are already answered.
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
    """Return `config.samples` responses to every prompt, in the order of prompts, then samples.

    Finished responses are kept in `part`, so a job that was killed resumes from them. `key`
    identifies what they depend on. The caller removes the file after it has written the responses.
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
    """Return the seed of one request: 32 bits of a sha256 over seed + sample and the prompt's id.

    One seed for all prompts would give all of them the same random numbers. If the first token's
    distribution hardly depends on the prompt, all responses would then begin alike, and an interval
    over prompts would be far too narrow. On the miniature, the mean reward of 200 prompts then has
    a standard deviation of 0.69 between seeds, instead of 0.08 (bench/seeds.py).
    """
    return int.from_bytes(hashlib.sha256(f"{seed + sample}:{prompt_id}".encode()).digest()[:4])
