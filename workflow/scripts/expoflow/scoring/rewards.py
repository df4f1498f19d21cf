"""Rewards: the reward model's raw logit for (prompt, response)."""

import gc
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from expoflow.checkpoints import loading, manifests, reward_heads
from expoflow.checkpoints.checkpoint import open_checkpoint, read_json_file
from expoflow.checkpoints.pickles import converted
from expoflow.config.stages import ScoreConfig
from expoflow.engines import tokenizer
from expoflow.engines.chat import Chat
from expoflow.engines.memory import loaded_in, require_gpus
from expoflow.engines.model import Model, chosen, require_transformers
from expoflow.engines.support import context
from expoflow.errors import CheckpointError, DataError
from expoflow.files import hashing
from expoflow.files.records import Record, read_json
from expoflow.hosts import client
from expoflow.hosts.task import Held, Task
from expoflow.results import Generation, Manifest, Prompt

if TYPE_CHECKING:
    import torch


# Tokens, padding included, that are scored at a time: a CPU slows down beyond the size of its
# caches.
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
UNSEEN = "prompts have images, which the reward model does not see"
BEGINNING = 60  # characters of a response that an error shows


class ScoreTask(Record):
    """The arguments of a "score" task."""

    reward_model: Model
    engine: str
    dtype: str
    prompts: list[Prompt]
    generations: list[Generation]


class Scorer(Protocol):
    """Something that computes logits."""

    tokenizer: Any
    context: int

    def logits(self, rows: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, float]]]:
        """Yield the logit of every row of token ids, as (index, logit), as they are ready."""

    def close(self) -> None:
        """Free the model's memory."""


def reward_model(manifest: Path, usage: str) -> Model:
    """Return the reward model of a manifest; `usage` is as `Config.usage` returns it."""
    made = read_json(manifest, Manifest)
    return Model.used(made.model, manifests.model_folder(made), json.loads(usage))


def score_responses(
    reward_model: Model, prompts: Sequence[Prompt], generations: Sequence[Generation], config: ScoreConfig
) -> list[float]:
    """Return the reward of every generation, in order; `prompts` has their prompts in any order.

    A conversation longer than the reward model's context is cut at its end, and the log says how
    many were cut. `score.images` decides on prompts with images: either their text is scored and
    the log says so, or they raise DataError. Raises CheckpointError for a reward that is NaN or
    infinite.
    """
    if shown := sum(prompt.has_images() for prompt in prompts):
        if config.images == "refuse":
            raise DataError(
                f"{shown} of {len(prompts)} {UNSEEN}; set score.images: text, or remove reward_model"
            )
        print(f"warning: {shown} of {len(prompts)} {UNSEEN}: it scores their text")
        prompts = [prompt.text() for prompt in prompts]
    engine = chosen(config.engine)
    if config.engine == "auto" and engine == "vllm":
        tensors = open_checkpoint(converted(reward_model.folder)).tensors
        engine = "transformers" if reward_heads.renamed(tensors) else engine  # unknown to vLLM
    task = ScoreTask(
        reward_model=reward_model, engine=engine, dtype=config.dtype, prompts=prompts, generations=generations
    )
    arguments = task.model_dump(mode="json")
    result: dict[int, float] = {}
    for rows in client.run(lambda: Task(kind="score", key=_key(task), arguments=arguments)):
        result |= {row["index"]: row["reward"] for row in rows}
    found = [result[index] for index in range(len(generations))]
    _require_finite(found, task)
    return found


def _require_finite(found: Sequence[float], task: ScoreTask) -> None:
    """Raise CheckpointError if a reward is NaN or infinite: no mean is meaningful then."""
    bad = [index for index, reward in enumerate(found) if not math.isfinite(reward)]
    if not bad:
        return
    remedy = "take another reward_model" + ", or download it again" * (len(bad) == len(found))
    config = read_json_file(task.reward_model.folder / "config.json")
    own = config.get("dtype", config.get("torch_dtype"))
    if (own if task.dtype == "keep" else task.dtype) != "float32":
        remedy = f"set score.dtype: float32 if it overflows in 16 bits, or {remedy}"
    first = task.generations[bad[0]]
    raise CheckpointError(
        f"reward model '{task.reward_model.folder}': {len(bad)} of {len(found)} rewards are NaN or infinite: {found[bad[0]]}"
        f" for prompt {first.prompt_id}, sample {first.sample}, response {first.response[:BEGINNING]!r}; {remedy}"
    )


def answer(held: Held, arguments: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Run a `ScoreTask`; yield {index, reward} as they are ready."""
    task = ScoreTask.model_validate(arguments)
    scorer: Scorer = held.get("score", _key(task), lambda: load(task.reward_model, task.engine, task.dtype))
    messages = {prompt.prompt_id: prompt.messages for prompt in task.prompts}
    chat = Chat.of(scorer.tokenizer, task.reward_model)
    rows = chat.all_token_ids((messages[each.prompt_id], each.response) for each in task.generations)
    if cut := sum(len(row) > scorer.context for row in rows):
        print(
            f"warning: {cut} of {len(rows)} conversations cut to the reward model's {scorer.context} tokens"
        )
    for logits in scorer.logits([chat.cut(row, scorer.context) for row in rows]):
        yield [{"index": index, "reward": logit} for index, logit in logits]


def load(reward_model: Model, engine: str = "transformers", dtype: str = "keep") -> Scorer:
    """Load the reward model by transformers or vLLM.

    Raises CheckpointError if the model does not have exactly one logit, or has no padding token.
    """
    reward_model = reward_model.model_copy(update={"folder": converted(reward_model.folder)})
    folder, remote = reward_model.folder, reward_model.trust_remote_code
    tensors = open_checkpoint(folder).tensors
    config = reward_config(reward_model, loading.read_config(folder, remote), tensors, engine)
    architecture = loading.require_loadable(folder, tensors, "reward model", remote)
    devices = require_gpus(reward_model, vllm=engine == "vllm")
    if engine == "vllm":
        from expoflow.scoring.rewards_vllm import VllmRewardModel

        return VllmRewardModel(reward_model, config, dtype, devices)
    return RewardModel(reward_model, architecture, config, tensors, dtype)


def reward_config(
    reward_model: Model, config: Any, tensors: Mapping[str, Any] | None, engine: str = "transformers"
) -> Any:
    """Return a reward model's config, as transformers reads it, with the user's padding token.

    `tensors` are those of its files by name, with shapes; None if they are unknown. Raises
    CheckpointError if the model does not have exactly one logit, has no padding token, or cannot be
    loaded by `engine`.
    """
    folder = reward_model.folder
    config = loading.reward_config(config, folder, tensors or {})
    if engine == "vllm" and (head := next(iter(reward_heads.renamed(tensors or {})), None)):
        raise CheckpointError(
            f"reward model {folder}: vLLM does not know its head {head}; set score.engine: transformers"
        )
    padding = config.pad_token_id
    if padding is not None and 0 <= padding < config.get_text_config().vocab_size:
        return config
    loaded = tokenizer.tokenizer(reward_model)
    if reward_model.pad_token is None:
        has = f"; its tokenizer has {loaded.pad_token!r}" if loaded.pad_token else ""
        raise CheckpointError(
            f"reward model {folder}: its config.json has pad_token_id {padding}, so it cannot score batches; give its"
            f" padding token as `pad_token:` of the model{has}"
        )
    config.pad_token_id = loaded.get_vocab().get(reward_model.pad_token)
    if config.pad_token_id is None:
        raise CheckpointError(
            f"reward model {folder}: its tokenizer has no token {reward_model.pad_token!r}; correct `pad_token:` of the model"
        )
    return config


class RewardModel:
    """A sequence classifier with one logit from a checkpoint folder.

    It keeps its own type unless `dtype` names another. `architecture` is its class, `config` is as
    `reward_config` returns it, and `tensors` are the headers of its files' tensors by name.
    """

    def __init__(
        self,
        reward_model: Model,
        architecture: Any,
        config: Any,
        tensors: Mapping[str, Any],
        dtype: str = "keep",
    ):
        import torch

        require_transformers(reward_model)
        folder, self.engine = reward_model.folder, reward_model.engine
        self.tokenizer = tokenizer.tokenizer(reward_model)
        mapping = {f"^{re.escape(name)}$": head for name, head in reward_heads.renamed(tensors).items()}
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model, report = architecture.from_pretrained(
            folder,
            config=config,
            dtype=loaded_in(config, tensors.values(), folder, self.device) if dtype == "keep" else dtype,
            key_mapping=mapping or None,
            **loading.REPORT,
        )
        loading.require_whole(report, folder, "reward model")
        self.model = model.eval().to(self.device)
        self.masks = not _reads_no_padding(self.model)

    @property
    def context(self) -> int:
        """Most tokens that a conversation may have.

        The config of an encoder may count positions that no token can use, so its tokenizer's limit
        counts too.
        """
        most = self.engine.shortened(context(self.model.config))
        return min(most, self.tokenizer.model_max_length) if self.tokenizer.sep_token else most

    def logits(self, rows: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, float]]]:
        """Yield the logit of every row of token ids, in batches by length under a token budget."""
        budget, seqs = BATCH_TOKENS[self.device], self.engine.max_num_seqs or len(rows)
        pending = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        while pending:
            size = 1
            while size < min(len(pending), seqs) and (size + 1) * len(rows[pending[size]]) <= budget:
                size += 1
            batch, pending = pending[:size], pending[size:]
            yield list(zip(batch, self._forward([rows[i] for i in batch]).double().tolist(), strict=True))

    def close(self) -> None:
        """Free the model's memory."""
        import torch

        del self.model
        if self.device == "cuda":
            gc.collect()
            torch.cuda.empty_cache()

    def _forward(self, rows: list[Sequence[int]]) -> "torch.Tensor":
        """Return the logits of one right-padded batch, shape (len(rows),)."""
        import torch

        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.model.config.pad_token_id)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        given = {"input_ids": ids.to(self.device)}
        if self.masks:
            lengths = torch.tensor([len(tokens) for tokens in rows])
            given["attention_mask"] = (torch.arange(longest) < lengths[:, None]).long().to(self.device)
        with torch.inference_mode():
            return self.model(**given, use_cache=False).logits[:, 0]


def _reads_no_padding(model: Any) -> bool:
    """Whether padding on the right changes no logit.

    Then no mask is needed and the fastest attention can be used. Two conditions must hold.
    Transformers' own head reads the last token that is not padding. No token depends on later ones:
    hidden states stay the same, bit for bit, if later tokens change.
    """
    import torch
    from transformers.modeling_layers import GenericForSequenceClassification

    if type(model).forward is not GenericForSequenceClassification.forward:
        return False
    ids = torch.arange(1, 17, device=model.device)[None] % model.config.get_text_config().vocab_size
    other = torch.cat([ids[:, :8], ids[:, 8:].flip(1)], dim=1)
    with torch.inference_mode():
        one, two = (
            model.base_model(input_ids=each, use_cache=False).last_hidden_state[:, :8]
            for each in (ids, other)
        )
    return torch.equal(one, two)


def _key(task: ScoreTask) -> str:
    """Return a digest that changes if another reward model must be loaded."""
    config = read_json_file(task.reward_model.folder / "config.json")
    state = [
        (path.name, path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(task.reward_model.folder.glob("*.safetensors"))
    ]
    model = task.reward_model.model_dump(mode="json")
    return hashing.json_digest([model, config, state, task.engine, task.dtype])
