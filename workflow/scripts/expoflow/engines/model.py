"""A model as an engine takes it, and what every engine can do."""

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

# What of a config.json does not make another architecture.
INCIDENTAL = ("_name_or_path", "transformers_version", "use_cache")


class Model(Record):
    """What an engine runs; plain data, so that it can be sent to another process.

    `folder` has config and tokenizer, and the weights too unless they are `streamed`. `chat_template` (the
    template itself), `stop` (further token ids) and `pad_token` (a reward model's) override what the folder says;
    `system` and `date` are those of `engines.chat.Chat`, `engine` is how an engine is set up for it.
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
        """A model that the config calls `name`, run as `usage` says (`Config.usage`, as data), and $EXPOFLOW_ENGINE of its engine."""
        free = json.loads(os.environ.get("EXPOFLOW_ENGINE", "{}")).get(name, {})
        return cls(folder=folder, streamed=streamed, **{**usage, "engine": usage.get("engine", {}) | free})


@dataclass(frozen=True)
class Pictures:
    """The images of a prompt, and the prompt as its template writes it, with one place for each image.

    `images` are the bytes of files, `token_ids` those of `text`.
    """

    images: list[bytes]
    text: str
    token_ids: list[int]


@dataclass(frozen=True)
class Request:
    """Prompt token ids, the seed of the request's own random numbers, and what an error calls the prompt.

    A prompt with `pictures` has in `token_ids` as many tokens for an image as the model sees of it.
    """

    token_ids: list[int]
    seed: int
    prompt_id: str = ""
    pictures: Pictures | None = None


@dataclass(frozen=True)
class Completion:
    """A response: its text, its tokens without the stop token, and `stop` or `length`.

    `stop_token` is the token that ended it; None if it was cut off.
    """

    text: str
    tokens: int
    finish_reason: str
    stop_token: int | None = None


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
        closed (`.close()`) at any time: what is under way is then given up. Raises CheckpointError,
        `no_token`, at the first token whose logits are NaN or infinite.
        """

    def logps(
        self, rows: Sequence[tuple[list[int], list[int]]], pictures: Sequence[Pictures | None] = ()
    ) -> Iterator[list[tuple[int, float]]]:
        """Log-probability of given responses: rows of (prompt token ids, response token ids), neither empty.

        `pictures` are those of every row's prompt, if any has some. Yields as they get ready (index, sum over the response's
        tokens, in nats, at temperature 1); the sum is NaN or infinite if a logit is.
        """

    def close(self) -> None:
        """Free the model's memory."""


def chosen(engine: str) -> str:
    """The engine that `generate.engine` or `score.engine` stands for on this machine."""
    if engine != "auto":
        return engine
    return "vllm" if importlib.util.find_spec("vllm") and gpus.gpus() else "transformers"


def foreseen(engine: str) -> str:
    """What `auto` stands for in a job; itself if that is open, for a job may have a GPU where this process has none."""
    undecided = engine == "auto" and importlib.util.find_spec("vllm") and not gpus.gpus()
    return "auto" if undecided else chosen(engine)


def engine_key(model: Model, engine: str) -> str:
    """What models have in common that one engine can run one after the other: engine, its settings, architecture, and how images
    are prepared.
    """
    config = read_json_file(model.folder / "config.json")
    config = {name: value for name, value in config.items() if name not in INCIDENTAL}
    settings = model.engine.model_dump(exclude_none=True)
    processors = [hashing.sha256(path) for path in sorted(model.folder.glob("*processor_config.json"))]
    return hashing.json_digest([engine, settings, config, model.trust_remote_code, processors])


def require_transformers(model: Model) -> None:
    """Raise CheckpointError for a model of whose engine the config wants what transformers cannot do."""
    if reason := model.engine.foreign():
        raise CheckpointError(
            f"{model.folder}: {reason}; set generate.engine and score.engine: vllm, or remove it"
        )


def not_finite(model: Model, what: str) -> CheckpointError:
    """The error of a model for which `what` is NaN or infinite; a recipe in its folder says the alpha."""
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
    """The error of a model that has no logits for a token of a response, counted from 1 if it is known which."""
    at = "a token" if token is None else f"token {token}"
    return not_finite(model, f"the logits for {at} of the response to prompt {request.prompt_id} are")
