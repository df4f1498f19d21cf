"""Compute how likely models find given responses; this chooses alpha without a reward model.

Responses are scored as texts. They are tokenized again after the prompt's chat template, and the
token that ended them is appended. So both engines and all alphas score the same input. The
likelihood of an empty response is that of its last token.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expoflow.columns import LIKELIHOOD_COLUMNS
from expoflow.engines.answering import Loaded
from expoflow.engines.model import Model, chosen, engine_key, not_finite
from expoflow.engines.vision import place
from expoflow.files.records import Record, write_csv
from expoflow.hosts import client
from expoflow.hosts.task import Held, Task
from expoflow.results import Generation, Prompt


def answer(held: Held, arguments: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Run a `LikelihoodTask`; yield {model, index, tokens, logp} as they are ready.

    It shares its engine with the "generate" tasks. Raises CheckpointError for a log-probability
    that is NaN or infinite.
    """
    task = LikelihoodTask.model_validate(arguments)
    places = {prompt.prompt_id: place for place, prompt in enumerate(task.prompts)}
    for name, model in task.models.items():
        loaded = held.get("generate", engine_key(model, task.engine), lambda: Loaded(model, task.engine))  # noqa: B023
        loaded.move(model)
        read = loaded.read(task.prompts)
        asked = [read[places[each.prompt_id]][0] for each in task.generations]
        pictures = [read[places[each.prompt_id]][1] for each in task.generations]
        responses = token_ids(loaded.engine.tokenizer, task.generations, place(model.folder))
        room = loaded.engine.context - 1  # vLLM generates a token after what it scores
        rows = [
            (prompt, ids[: max(room - len(prompt), 0)]) for prompt, ids in zip(asked, responses, strict=True)
        ]
        filled = [index for index, (_, response) in enumerate(rows) if response]
        yield [
            {"model": name, "index": index, "tokens": 0, "logp": 0.0}
            for index, (_, response) in enumerate(rows)
            if not response
        ]
        for scored in loaded.engine.logps(
            [rows[index] for index in filled], [pictures[index] for index in filled]
        ):
            for at, logp in scored:
                if not math.isfinite(logp):
                    each = task.generations[filled[at]]
                    words = f"the log-probability of response {each.sample} to prompt {each.prompt_id} is"
                    raise not_finite(model, words)
            yield [
                {"model": name, "index": filled[at], "tokens": len(rows[filled[at]][1]), "logp": logp}
                for at, logp in scored
            ]


def token_ids(tokenizer: Any, generations: Sequence[Generation], image: int | None = None) -> list[list[int]]:
    """Return the tokens of every response, with the token that ended it unless it was cut off.

    A file of an older expoflow lacks that token; the tokenizer's eos is used then. `image` is the
    token that stands for an image. A response that contains its text shows no image, so it is
    tokenized without that token.
    """
    texts = [each.response for each in generations]
    rows = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    for at, ids in enumerate(rows):
        if image in ids:
            rows[at] = tokenizer(texts[at], add_special_tokens=False, split_special_tokens=True)["input_ids"]
    ends = [tokenizer.eos_token_id if each.stop_token is None else each.stop_token for each in generations]
    return [
        [*ids, end] if each.finish_reason == "stop" and end is not None else [*ids]
        for each, ids, end in zip(generations, rows, ends, strict=True)
    ]


class LikelihoodTask(Record):
    """The arguments of a "likelihood" task: models by name, generations and their prompts."""

    models: dict[str, Model]
    engine: str
    prompts: list[Prompt]
    generations: list[Generation]


def likelihoods(
    models: Mapping[str, Model], prompts: Sequence[Prompt], generations: Sequence[Generation], engine: str
) -> list[dict[str, Any]]:
    """Return `tokens` and `logp_{name}` (nats, under every model) of each generation, in order.

    Both include the token that ended the response. Raises CheckpointError for a log-probability
    that is not finite.
    """
    answered = {each.prompt_id for each in generations}
    prompts = [prompt for prompt in prompts if prompt.prompt_id in answered]
    asked = LikelihoodTask(models=models, engine=chosen(engine), prompts=prompts, generations=generations)
    key = engine_key(next(iter(models.values())), asked.engine)
    task = Task(kind="likelihood", key=key, arguments=asked.model_dump(mode="json"))
    rows: list[dict[str, Any]] = [{} for _ in generations]
    for scored in client.run(lambda: task):
        for each in scored:
            rows[each["index"]] |= {"tokens": each["tokens"], f"logp_{each['model']}": each["logp"]}
    return rows


def write_likelihoods(
    path: Path,
    generations: Sequence[Generation],
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
) -> None:
    """Write one alpha's likelihoods.csv; `labels` has pair, alpha and prompts."""
    named = [{"prompt_id": each.prompt_id, "sample": each.sample} for each in generations]
    write_csv(
        path, ({**labels, **name, **row} for name, row in zip(named, rows, strict=True)), LIKELIHOOD_COLUMNS
    )
