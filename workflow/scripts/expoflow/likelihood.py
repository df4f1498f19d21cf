"""How likely models find given responses: what chooses alpha without a reward model.

Responses are scored as texts: tokenized again behind the prompt's chat template, without the token that ends
them, so that both engines and all alphas are asked the same.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expoflow import serving
from expoflow.config import SelectConfig
from expoflow.engines import Model, chosen, engine_key
from expoflow.records import Generation, Prompt, Record, write_csv
from expoflow.serving import Task

MODELS = {  # by criterion: under which responses are scored
    "reward": (),
    "nll": ("aligned",),
    "implicit": ("sft", "aligned", "own"),
}
COLUMNS = (
    "pair",
    "alpha",
    "prompts",
    "prompt_id",
    "sample",
    "tokens",
    "logp_sft",
    "logp_aligned",
    "logp_own",
)


def scored_under(select: SelectConfig) -> tuple[str, ...]:
    """Names of the models under which responses are scored for what chooses alpha and what is compared with it."""
    return max((MODELS[name] for name in (select.by, *select.others())), key=len)


class Ask(Record):
    """The arguments of a "likelihood" task: generations, their prompts, and the models by name."""

    models: dict[str, Model]
    engine: str
    prompts: list[Prompt]
    generations: list[Generation]


def likelihoods(
    models: Mapping[str, Model], prompts: Sequence[Prompt], generations: Sequence[Generation], engine: str
) -> list[dict[str, Any]]:
    """For every generation, in order: `tokens` of its response, and `logp_{name}` (nats) under every model."""
    answered = {each.prompt_id for each in generations}
    prompts = [prompt for prompt in prompts if prompt.prompt_id in answered]
    asked = Ask(models=models, engine=chosen(engine), prompts=prompts, generations=generations)
    key = engine_key(next(iter(models.values())), asked.engine)
    task = Task(kind="likelihood", key=key, arguments=asked.model_dump(mode="json"))
    rows: list[dict[str, Any]] = [{} for _ in generations]
    for scored in serving.run(lambda: task):
        for each in scored:
            rows[each["index"]] |= {"tokens": each["tokens"], f"logp_{each['model']}": each["logp"]}
    return rows


def write(
    path: Path,
    generations: Sequence[Generation],
    rows: Sequence[Mapping[str, Any]],
    labels: Mapping[str, str],
) -> None:
    """Write one alpha's likelihoods.csv; `labels` are pair, alpha and prompts."""
    named = [{"prompt_id": each.prompt_id, "sample": each.sample} for each in generations]
    write_csv(path, ({**labels, **name, **row} for name, row in zip(named, rows, strict=True)), COLUMNS)
