"""The side of an engine that holds the model.

It runs "generate" tasks, in an engine host or in the job itself.
"""

from collections.abc import Container, Iterable, Iterator
from typing import Any

from expoflow.config.stages import GenerateConfig
from expoflow.engines.chat import Chat
from expoflow.engines.generate import GenerateTask, request_seed
from expoflow.engines.memory import require_gpus
from expoflow.engines.model import Completion, Engine, Model, Pictures, Request, engine_key
from expoflow.errors import DataError
from expoflow.hosts.task import Held
from expoflow.results import Generation, Prompt


class Loaded:
    """An engine and the model that it currently holds."""

    def __init__(self, model: Model, engine: str):
        """Raise CheckpointError if the model does not fit into memory."""
        devices = require_gpus(model, vllm=engine == "vllm")
        if engine == "vllm":
            from expoflow.engines.vllm import VllmEngine

            self.engine: Engine = VllmEngine(model, devices)
        else:
            from expoflow.engines.transformers import TransformersEngine

            self.engine = TransformersEngine(model)
        self.model = model
        self._prompts: dict[str, tuple[list[int], Pictures | None]] = {}
        self._read_by: tuple[Any, ...] = ()

    def read(self, prompts: list[Prompt]) -> list[tuple[list[int], Pictures | None]]:
        """Return token ids and images of the prompts.

        Those of the last call are reused while the tokenizer and the model's settings are the same.
        """
        read_by = (self.engine.tokenizer, self.model.system, self.model.date)
        if self._read_by != read_by:
            self._prompts, self._read_by = {}, read_by
        new = [prompt for prompt in prompts if prompt.prompt_id not in self._prompts]
        chat = Chat.of(self.engine.tokenizer, self.model, images=True)
        rows = chat.all_token_ids((prompt.messages, None) for prompt in new)
        known = self._prompts | {
            prompt.prompt_id: (row, chat.pictures(prompt.messages))
            for prompt, row in zip(new, rows, strict=True)
        }
        self._prompts = {prompt.prompt_id: known[prompt.prompt_id] for prompt in prompts}
        return [*self._prompts.values()]

    def move(self, model: Model) -> None:
        """Load the weights of `model` into the engine, unless it holds them already."""
        if model != self.model:
            self.engine.move(model)
            self.model = model

    def close(self) -> None:
        """Free the model's memory."""
        self.engine.close()


def generate(held: Held, arguments: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Run a `GenerateTask`; yield Generation rows as they finish, in any order."""
    task = GenerateTask.model_validate(arguments)
    loaded = held.get(
        "generate", engine_key(task.model, task.engine), lambda: Loaded(task.model, task.engine)
    )
    loaded.move(task.model)
    engine, config = loaded.engine, task.config
    read = dict(zip((prompt.prompt_id for prompt in task.prompts), loaded.read(task.prompts), strict=True))
    share = set(read if task.share is None else task.share)
    rows = ((prompt, read[prompt.prompt_id][0]) for prompt in task.prompts)
    tokens = {prompt.prompt_id: ids for prompt, ids in _fitting(engine, rows, config, share)}
    if not tokens:
        raise DataError(
            f"none of {len(task.prompts)} prompts leaves room in the context of {engine.context} tokens; take other prompts"
        )
    asked = [
        (prompt_id, sample) for prompt_id in tokens if prompt_id in share for sample in range(config.samples)
    ]
    requests = [
        Request(
            tokens[prompt_id], request_seed(config.seed, sample, prompt_id), prompt_id, read[prompt_id][1]
        )
        for prompt_id, sample in asked
    ]
    finished = set(task.done)
    done = {index for index, each in enumerate(asked) if each in finished}
    for completions in engine.generate(requests, config, done):
        rows = []
        for index, completion in completions:
            generation = generated(engine, *asked[index], requests[index], completion)
            rows.append(generation.model_dump(mode="json"))
        yield rows


def generated(
    engine: Engine, prompt_id: str, sample: int, request: Request, completion: Completion
) -> Generation:
    """Return the record of a completion."""
    return Generation(
        prompt_id=prompt_id,
        sample=sample,
        seed=request.seed,
        response=completion.text,
        response_tokens=completion.tokens,
        finish_reason=completion.finish_reason,
        stop_token=completion.stop_token,
        engine=engine.name,
    )


def _fitting(
    engine: Engine, prompts: Iterable[tuple[Prompt, list[int]]], config: GenerateConfig, share: Container[str]
) -> Iterator[tuple[Prompt, list[int]]]:
    """Yield every prompt that leaves room for a response, with its token ids.

    A warning in the log names the prompts of `share` that were skipped or truncated.
    """
    context = engine.context
    skipped, cut = [], []
    for prompt, ids in prompts:
        if len(ids) < context:
            yield prompt, ids
        elif config.too_long == "error" or (config.too_long == "truncate" and prompt.has_images()):
            more = "" if prompt.has_images() else " or truncate"  # an image cannot be cut
            raise DataError(
                f"prompt {prompt.prompt_id} has {len(ids)} tokens, the model's context is {context}; "
                f"remove the prompt, or set generate.too_long to skip{more}"
            )
        elif config.too_long == "skip":
            skipped.append(prompt.prompt_id)
        else:
            # Keep the end, which asks for the response, and the first token, which is often the
            # BOS.
            room = context - min(config.max_tokens, context // 2)
            cut.append(prompt.prompt_id)
            yield prompt, ids[:1] + ids[len(ids) - room + 1 :]
    for what, ids in (("skipped", skipped), ("truncated", cut)):
        if ids := [prompt_id for prompt_id in ids if prompt_id in share]:
            print(f"warning: {len(ids)} prompts too long for the context {what}: {', '.join(ids)}")
