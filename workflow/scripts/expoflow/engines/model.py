"""The model that an engine takes, and what every engine can do."""

import importlib.util
import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.config.engine import EngineConfig
from expoflow.config.sources import DATE
from expoflow.config.stages import GenerateConfig
from expoflow.errors import CheckpointError
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.files import hashing
from expoflow.files.records import Record
from expoflow.paths import RECIPE
from expoflow.system import gpus

# Keys of a config.json that do not change the architecture.
INCIDENTAL = ("_name_or_path", "transformers_version", "use_cache")


class Model(Record):
    """The model that an engine runs, as plain data that can be sent to another process.

    `folder` has config and tokenizer, and also the weights unless they are `streamed`.
    `chat_template` (the template itself) and `pad_token` (a reward model's) override the folder's;
    `stop` adds token ids that end a response. `system` and `date` are those of `engines.chat.Chat`;
    `engine` holds the engine's settings for this model.
    """

    folder: Path
    streamed: Streamed | None = None
    chat_template: str | None = None
    stop: tuple[int, ...] = ()
    system: str = "keep"
    date: str = DATE
    pad_token: str | None = None
    trust_remote_code: bool = False
    engine: EngineConfig = EngineConfig()

    @classmethod
    def used(
        cls, name: str | None, folder: Path, usage: Mapping[str, Any], streamed: Streamed | None = None
    ) -> "Model":
        """Return the model that the config calls `name`, with the settings in `usage`.

        `usage` is `Config.usage` as data. $EXPOFLOW_ENGINE overrides its engine's settings.
        """
        free = json.loads(os.environ.get("EXPOFLOW_ENGINE", "{}")).get(name, {})
        return cls(folder=folder, streamed=streamed, **{**usage, "engine": usage.get("engine", {}) | free})


@dataclass(frozen=True)
class Pictures:
    """A prompt's images, and the text that its template writes, with one placeholder per image.

    `images` are the bytes of files; `token_ids` are those of `text`.
    """

    images: list[bytes]
    text: str
    token_ids: list[int]


@dataclass(frozen=True)
class Request:
    """Prompt token ids, the seed of the request's random numbers, and the prompt's name in errors.

    If the prompt has `pictures`, `token_ids` has as many tokens per image as the model uses for it.
    """

    token_ids: list[int]
    seed: int
    prompt_id: str = ""
    pictures: Pictures | None = None


@dataclass(frozen=True)
class Completion:
    """A response: its text, its number of tokens without the stop token, and `stop` or `length`.

    `stop_token` is the token that ended it; None if it was cut off.
    """

    text: str
    tokens: int
    finish_reason: str
    stop_token: int | None = None


class Engine(Protocol):
    """Something that runs a model."""

    name: str
    """`transformers` or `vllm`."""
    tokenizer: Any
    context: int
    """Most tokens that prompt and response may have together; a response is cut off there."""

    def move(self, model: Model) -> None:
        """Switch to another model's weights, tokenizer, template and stop tokens.

        It must have the same architecture.
        """

    def generate(
        self, requests: Sequence[Request], config: GenerateConfig, done: Collection[int] = ()
    ) -> Iterator[list[tuple[int, Completion]]]:
        """Answer the requests whose index is not in `done`, each independently of the others.

        After every decoding step, yields the (index, completion) that it finished, perhaps none.
        The generator may be closed (`.close()`) at any time; unfinished requests are then dropped.
        Raises CheckpointError (`no_token`) at the first token whose logits are NaN or infinite.
        """

    def logps(
        self, rows: Sequence[tuple[list[int], list[int]]], pictures: Sequence[Pictures | None] = ()
    ) -> Iterator[list[tuple[int, float]]]:
        """Yield the log-probability of given responses.

        `rows` are (prompt token ids, response token ids), neither empty. `pictures` are those of
        every row's prompt, if any prompt has some. Yields (index, sum) as they are ready; the sum
        is over the response's tokens, in nats, at temperature 1. It is NaN or infinite if a logit
        is.
        """

    def close(self) -> None:
        """Free the model's memory."""


def chosen(engine: str) -> str:
    """Return the engine that `generate.engine` or `score.engine` selects on this machine."""
    if engine != "auto":
        return engine
    return "vllm" if importlib.util.find_spec("vllm") and gpus.gpus() else "transformers"


def foreseen(engine: str) -> str:
    """Return the engine that a job will use for `engine`.

    `auto` stays `auto` if that is open: a job may have a GPU although this process has none.
    """
    undecided = engine == "auto" and importlib.util.find_spec("vllm") and not gpus.gpus()
    return "auto" if undecided else chosen(engine)


def engine_key(model: Model, engine: str) -> str:
    """Return a digest that is equal for all models that one engine can run one after the other.

    It covers the engine, its settings, the architecture, and how images are prepared.
    """
    config = read_json_file(model.folder / "config.json")
    config = {name: value for name, value in config.items() if name not in INCIDENTAL}
    settings = model.engine.model_dump(exclude_none=True)
    processors = [hashing.sha256(path) for path in sorted(model.folder.glob("*processor_config.json"))]
    return hashing.json_digest([engine, settings, config, model.trust_remote_code, processors])


def require_transformers(model: Model) -> None:
    """Raise CheckpointError if a model's engine settings need something that transformers lacks."""
    if reason := model.engine.foreign():
        raise CheckpointError(
            f"{model.folder}: {reason}; set generate.engine and score.engine: vllm, or remove it"
        )


def not_finite(model: Model, what: str) -> CheckpointError:
    """Return the error for a model for which `what` is NaN or infinite.

    The alpha is the streamed one, or that of the recipe in the model's folder.
    """
    made = model.streamed
    alpha = made.alpha if made else read_json_file(model.folder / RECIPE).get("alpha")
    at = "" if alpha is None else f" (alpha {alpha:g})"
    if alpha in (None, 0, -1):
        weights = model.folder if not made else made.aligned if alpha == 0 else made.sft
        remedy = f"the weights in {weights} hold NaN or Inf, or overflow in their type: save or download them again"
    else:
        remedy = "take a smaller alpha, or set extrapolate.dtype: float32; if alpha 0 fails too, a model is damaged"
    return CheckpointError(f"model '{model.folder}'{at}: {what} NaN or infinite; {remedy}")


def no_token(model: Model, request: Request, token: int | None = None) -> CheckpointError:
    """Return the error for a model that has no finite logits for a token of a response.

    `token` counts from 1; None if it is not known which.
    """
    at = "a token" if token is None else f"token {token}"
    return not_finite(model, f"the logits for {at} of the response to prompt {request.prompt_id} are")
