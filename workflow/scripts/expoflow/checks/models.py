"""What a config's models are asked before any job: does the engine know them, do their weights have places, do prompts reach them?

It runs in a process of its own, for it imports torch and transformers: the head reads a Snakefile without them. The headers of
weight files, config.json and tokenizer files are all that it reads of a model.
"""

import json
import sys
from collections.abc import Iterator, Mapping

from expoflow.checkpoints import loading
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.findings import quantised
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError, DataError, ExpoflowError
from expoflow.files.records import Record
from expoflow.results import Message, Prompt

RESPONSE = "Yes."  # to whatever is asked: for a reward model's template
ANYTHING = Message(role="user", content="Is there a template?")  # for prompts that are not here yet


class Question(Record):
    """A model of the config by its `name`, and what it is used for.

    `engine` runs it as a language model (`auto` if its job is to choose), `scored_by` as a reward model; None for what it is
    not. `weights`: its files are whole checkpoints in safetensors, whose headers can be read. `prompts` are the first ones of
    every set that it is given, and `too_long` what is done to those that leave no room. `images` is what a reward model does
    with those that have some.
    """

    name: str
    model: Model
    engine: str | None
    scored_by: str | None
    weights: bool
    prompts: dict[str, list[Prompt]]
    too_long: str
    images: str = "text"


class Answer(Record):
    """What is wrong with a model, and what is worth saying, one line each."""

    problems: list[str]
    notes: list[str]


def examine(question: Question) -> Answer:
    """Everything about a model that can be known without its weights."""
    problems, notes = [], []
    try:
        notes += _examined(question)
    except ExpoflowError as error:
        problems += str(error).splitlines()
    except Exception as error:  # files of a user's: nothing of theirs may end in a traceback
        problems.append(f"{question.model.folder}: {type(error).__name__}: {error}; correct its files")
    where = f"models.{question.name}"
    return Answer(
        problems=[f"{where}: {line}" for line in problems], notes=[f"{where}: {line}" for line in notes]
    )


def _examined(question: Question) -> Iterator[str]:
    """Notes; raises ExpoflowError for what is wrong."""
    from expoflow.engines.support import context, require_supported
    from expoflow.scoring.rewards import reward_config

    model = question.model
    checkpoint = open_checkpoint(model.folder) if question.weights else None
    tensors = checkpoint.tensors if checkpoint else None
    if checkpoint and (question.engine or not checkpoint.config.get("quantization_config")):
        for finding in quantised(checkpoint, "it"):
            raise CheckpointError(f"{model.folder}: {finding.message}")
    config = loading.read_config(model.folder, model.trust_remote_code)
    if question.engine:
        require_supported(config, model.folder, question.engine, model.trust_remote_code)
        if tensors is not None:
            role = "language model" if question.engine == "transformers" else "any model"
            loading.require_loadable(model.folder, tensors, role, model.trust_remote_code)
        yield from _prompts(question, question.prompts, model.engine.shortened(context(config)), None)
    if question.scored_by:
        config = reward_config(model, config, tensors, question.scored_by)
        if tensors is not None:
            loading.require_loadable(model.folder, tensors, "reward model", model.trust_remote_code)
        yield from _unseen(question)
        told = {name: [each.text() for each in prompts] for name, prompts in question.prompts.items()}
        yield from _prompts(question, told, model.engine.shortened(context(config)), RESPONSE)


def _unseen(question: Question) -> Iterator[str]:
    """What a reward model does not see of the prompts."""
    from expoflow.scoring.rewards import UNSEEN

    for name, prompts in question.prompts.items():
        if shown := next((each.prompt_id for each in prompts if each.has_images()), None):
            text = f"'{name}': {UNSEEN} (the first: {shown})"
            if question.images == "refuse":
                raise DataError(f"{text}; set score.images: text, or remove reward_model")
            yield f"{text}; it scores their text"


def _prompts(
    question: Question, sets: Mapping[str, list[Prompt]], context: int, response: str | None
) -> Iterator[str]:
    """Prompts as the model's own template and tokenizer make them."""
    from expoflow.engines import tokenizer
    from expoflow.engines.chat import Chat

    if not sets:  # of its package nothing is used
        return
    chat = Chat.of(tokenizer.tokenizer(question.model), question.model, images=response is None)
    for name, prompts in sets.items():
        if not prompts:
            chat.token_ids([ANYTHING], response)
        rows = chat.all_token_ids((prompt.messages, response) for prompt in prompts)
        if long := [prompt for prompt, row in zip(prompts, rows, strict=True) if len(row) >= context]:
            text = (
                f"{len(long)} of {len(prompts)} prompts of '{name}' have {context} tokens or more, the model's context"
                f" (the first: {long[0].prompt_id})"
            )
            if response is not None:
                yield f"{text}; they are cut"
            elif question.too_long == "error":
                raise CheckpointError(f"{text}; remove them, or set generate.too_long to skip or truncate")
            else:
                yield f"{text}; generate.too_long: {question.too_long}"


def main() -> None:
    """Answer the questions on stdin, a JSON list, by a JSON list on stdout."""
    questions = [Question.model_validate(each) for each in json.load(sys.stdin)]
    answers, sys.stdout = sys.stdout, sys.stderr  # what libraries print is no answer
    json.dump([examine(each).model_dump() for each in questions], answers)
