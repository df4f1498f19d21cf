"""Check a config's models before any job: does the engine support them, can all weights be loaded,
can prompts be encoded?

This runs in a process of its own because it imports torch and transformers, which the head of a run
does not. Of a model it reads only the headers of weight files, config.json and the tokenizer files.
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

RESPONSE = "Yes."  # the response to every prompt, to try a reward model's template
ANYTHING = Message(
    role="user", content="Is there a template?"
)  # instead of prompts that are not available yet


class Question(Record):
    """A model of the config by its `name`, and how it is used.

    `engine` runs it as a language model (`auto` if its job chooses), `scored_by` as a reward model.
    Either is None if it is not used that way. `weights`: its weights are in safetensors files, so
    their headers can be read. `prompts` are the first prompts of every set that the model reads.
    `too_long` says what happens to prompts that leave no room. `images` says what a reward model
    does with prompts that have images.
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
    """The problems of a model, and notes about it, one line each."""

    problems: list[str]
    notes: list[str]


def examine(question: Question) -> Answer:
    """Check everything about a model that can be known without its weights."""
    problems, notes = [], []
    try:
        notes += _examined(question)
    except ExpoflowError as error:
        problems += str(error).splitlines()
    except Exception as error:  # nothing in a user's files may end in a traceback
        problems.append(f"{question.model.folder}: {type(error).__name__}: {error}; correct its files")
    where = f"models.{question.name}"
    return Answer(
        problems=[f"{where}: {line}" for line in problems], notes=[f"{where}: {line}" for line in notes]
    )


def _examined(question: Question) -> Iterator[str]:
    """Yield notes. Raises ExpoflowError for a problem."""
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
    """Notes about images in prompts, which a reward model does not see."""
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
    """Notes about prompts that are too long, encoded by the model's own template and tokenizer."""
    from expoflow.engines import tokenizer
    from expoflow.engines.chat import Chat

    if not sets:  # nothing of its package is used
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
    """Read questions from stdin, a JSON list, and write the answers to stdout as a JSON list."""
    questions = [Question.model_validate(each) for each in json.load(sys.stdin)]
    answers, sys.stdout = sys.stdout, sys.stderr  # output of libraries must not get into the answers
    json.dump([examine(each).model_dump() for each in questions], answers)
