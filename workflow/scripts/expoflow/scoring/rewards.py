"""Rewards: the reward model's raw logit for (prompt, response)."""

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from expoflow.checkpoints import manifests
from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.config.stages import ScoreConfig
from expoflow.engines.chat import all_token_ids
from expoflow.engines.model import Model, chosen
from expoflow.errors import CheckpointError
from expoflow.files import hashing
from expoflow.files.records import Record, read_json
from expoflow.hosts import client
from expoflow.hosts.task import Held, Task
from expoflow.results import Generation, Manifest, Prompt
from expoflow.system import gpus

if TYPE_CHECKING:
    import torch


# Tokens, padding included, that are scored at a time: more than fits a CPU's caches slows it down.
BATCH_TOKENS = {"cpu": 2048, "cuda": 32768}
BEGINNING = 60  # characters of a response that an error shows


class ScoreTask(Record):
    """The arguments of a "score" task."""

    reward_model: Model
    engine: str
    dtype: str
    prompts: list[Prompt]
    generations: list[Generation]


class Scorer(Protocol):
    """What computes logits."""

    tokenizer: Any
    context: int

    def logits(self, rows: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, float]]]:
        """The logit of every row of token ids, as (index, logit), as they get ready."""

    def close(self) -> None:
        """Free the model's memory."""


def reward_model(manifest: Path, usage: str) -> Model:
    """The reward model of a manifest; `usage` as `ModelConfig.usage` gives it."""
    return Model(folder=manifests.model_folder(read_json(manifest, Manifest)), **json.loads(usage))


def score_responses(
    reward_model: Model, prompts: Sequence[Prompt], generations: Sequence[Generation], config: ScoreConfig
) -> list[float]:
    """The reward of every generation, in order; `prompts` holds their prompts in any order.

    A conversation longer than the reward model's context is cut at its end, and the log says how many were. Raises
    CheckpointError for a reward that is NaN or infinite.
    """
    engine = chosen(config.engine)
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
    """Raise CheckpointError for rewards that are no numbers, whatever computed them: no mean has a meaning then."""
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
    """Do a task of the form `ScoreTask`: yields {index, reward} as they get ready."""
    task = ScoreTask.model_validate(arguments)
    scorer: Scorer = held.get("score", _key(task), lambda: load(task.reward_model, task.engine, task.dtype))
    messages = {prompt.prompt_id: prompt.messages for prompt in task.prompts}
    rows = all_token_ids(
        scorer.tokenizer, ((messages[each.prompt_id], each.response) for each in task.generations)
    )
    if cut := sum(len(row) > scorer.context for row in rows):
        print(
            f"warning: {cut} of {len(rows)} conversations cut to the reward model's {scorer.context} tokens"
        )
    for logits in scorer.logits([row[: scorer.context] for row in rows]):
        yield [{"index": index, "reward": logit} for index, logit in logits]


def load(reward_model: Model, engine: str = "transformers", dtype: str = "keep") -> Scorer:
    """The reward model, loaded by transformers or vllm.

    Raises CheckpointError for a model that has not exactly one logit, or no padding token.
    """
    folder, remote = reward_model.folder, reward_model.trust_remote_code
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=remote)
    if config.num_labels != 1:
        raise CheckpointError(
            f"reward model '{folder}' has {config.num_labels} logits; one with num_labels 1 is needed"
        )
    if config.pad_token_id is None:
        raise CheckpointError(f"reward model '{folder}' has no pad_token_id; set it in its config.json")
    if engine == "vllm":
        from expoflow.scoring.rewards_vllm import VllmRewardModel

        scorer: Scorer = VllmRewardModel(folder, dtype, remote, gpus.allotted())
    else:
        scorer = RewardModel(folder, dtype, remote)
    if reward_model.chat_template:
        scorer.tokenizer.chat_template = reward_model.chat_template
    return scorer


class RewardModel:
    """A sequence classifier with one logit from a checkpoint folder, in its own type unless `dtype` says else."""

    def __init__(self, folder: Path, dtype: str = "keep", trust_remote_code: bool = False):
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
        model = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype="auto" if dtype == "keep" else dtype, trust_remote_code=trust_remote_code
        )
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = model.eval().to(self.device)

    @property
    def context(self) -> int:
        """The most tokens that a conversation may have."""
        return self.model.config.max_position_embeddings

    def logits(self, rows: Sequence[Sequence[int]]) -> Iterator[list[tuple[int, float]]]:
        """The logit of every row of token ids, batch by batch; batches go by length under a token budget."""
        budget = BATCH_TOKENS[self.device]
        pending = sorted(range(len(rows)), key=lambda i: (len(rows[i]), i))
        while pending:
            size = 1
            while size < len(pending) and (size + 1) * len(rows[pending[size]]) <= budget:
                size += 1
            batch, pending = pending[:size], pending[size:]
            yield list(zip(batch, self._forward([rows[i] for i in batch]).double().tolist(), strict=True))

    def close(self) -> None:
        """Free the model's memory."""
        import torch

        del self.model
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _forward(self, rows: list[Sequence[int]]) -> "torch.Tensor":
        """Logits of one right-padded batch, shape (len(rows),)."""
        import torch

        longest = max(map(len, rows))
        ids = torch.full((len(rows), longest), self.model.config.pad_token_id)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for row, tokens in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        with torch.inference_mode():
            return self.model(
                input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False
            ).logits[:, 0]


def _key(task: ScoreTask) -> str:
    """What makes it another loaded reward model."""
    config = read_json_file(task.reward_model.folder / "config.json")
    state = [
        (path.name, path.stat().st_mtime_ns, path.stat().st_size)
        for path in sorted(task.reward_model.folder.glob("*.safetensors"))
    ]
    return hashing.json_digest(
        [
            str(task.reward_model.folder.absolute()),
            config,
            state,
            task.reward_model.chat_template,
            task.engine,
            task.dtype,
        ]
    )
