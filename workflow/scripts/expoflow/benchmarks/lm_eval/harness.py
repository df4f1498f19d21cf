"""Call lm-eval on one checkpoint, for its answers to the documents of tasks.

A killed run goes on where it stopped. lm-eval's own cache (--use_cache) keeps pickles and does not
record the model that they came from. `Resuming` therefore reports the answers, for a part file that
names the model and the settings.
"""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lm_eval
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM, hash_args
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager
from transformers import AutoTokenizer

from expoflow.benchmarks.lm_eval.answers import ASKED, Asked, Kept
from expoflow.checkpoints.loading import read_config, require_loadable
from expoflow.config.harness import Harness
from expoflow.engines.chat import Chat
from expoflow.engines.memory import free_memory, headers, loaded_in, require_gpus
from expoflow.engines.model import Model, require_transformers
from expoflow.errors import CheckpointError
from expoflow.results import Message
from expoflow.system import progress

LARGEST_BATCH = 64


class Resuming(LM):
    """A language model that reports its answers as they come and does not ask `kept` ones again.

    `chat` writes the conversations.
    """

    def __init__(self, model: LM, chat: Chat, kept: Sequence[Kept], tell: Callable[[Kept], None]):
        super().__init__()
        self.model, self.chat, self.tell = model, chat, tell
        self.answers = {row.request: row.answer for row in kept}
        model.set_cache_hook(self)

    def add_partial(self, kind: str, arguments: Sequence[Any], answer: Any) -> None:
        """lm-eval's hook for a new answer."""
        request = hash_args(kind, arguments)
        if request not in self.answers:
            self.answers[request] = answer
            self.tell(Kept(request=request, answer=answer))

    def _ask(self, kind: str, requests: list[Instance]) -> list[Any]:
        missing = [each for each in requests if hash_args(kind, each.args) not in self.answers]
        print(f"{kind}: {len(requests)} requests, {len(requests) - len(missing)} are already answered")
        progress.report(len(self.answers), len(self.answers) + len(missing), "answers")
        if missing:
            for each, answer in zip(missing, getattr(self.model, kind)(missing), strict=True):
                self.add_partial(kind, each.args, answer)
        return [self.answers[hash_args(kind, each.args)] for each in requests]

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        """(log-likelihood of the continuation, whether it is the greedy one) for every request."""
        return self._ask("loglikelihood", requests)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """The text up to a stop string, for every request."""
        return self._ask("generate_until", requests)

    def loglikelihood_rolling(self, requests: list[Instance]) -> list[float]:
        """No task needs this."""
        raise NotImplementedError

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text for the model.

        lm-eval itself leaves out system messages if a template refuses them.
        """
        return self.chat.text(
            [Message(**turn) for turn in chat_history],
            add_generation_prompt=add_generation_prompt,
            continue_final_message=not add_generation_prompt,
        )

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The text of the template."""
        return self.model.chat_template(chat_template)

    @property
    def tokenizer_name(self) -> str:
        """For lm-eval's own fingerprints."""
        return self.model.tokenizer_name


def evaluate(model: LM, asked: Asked) -> dict[str, Any]:
    """lm-eval's results, with samples, for a group that contains all requested tasks."""
    with tempfile.TemporaryDirectory() as folder:
        text = yaml.safe_dump({"group": ASKED, "task": list(asked.members)})
        (Path(folder) / f"{ASKED}.yaml").write_text(text, encoding="utf-8")
        return lm_eval.simple_evaluate(
            model,
            tasks=[ASKED],
            task_manager=TaskManager(include_defaults=False, include_path=[*asked.include, folder]),
            num_fewshot=asked.num_fewshot,
            limit=asked.config.limit,
            apply_chat_template=asked.chat_template,
            fewshot_random_seed=asked.config.seed,
            bootstrap_iters=0,
        )


def language_model(model: Model, config: Harness) -> LM:
    """The checkpoint behind lm-eval's interface.

    All backends add a BOS exactly if the model's tokenizer does. By default the hf backend does so
    and the others do not.
    """
    folder, remote = str(model.folder.absolute()), model.trust_remote_code
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=remote)
    settings = read_config(model.folder, remote)
    if config.backend != "completions":  # a server has already loaded it
        require_loadable(model.folder, headers(model), remote=remote)
    length = min(config.context, getattr(settings, "max_position_embeddings", config.context))
    length = model.engine.shortened(length)
    bos = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    common = {"pretrained": folder, "trust_remote_code": remote, "add_bos_token": bos}
    if config.backend == "vllm":
        more = model.engine.model_dump(exclude={"max_model_len"}, exclude_none=True)
        loaded = get_model("vllm")(
            **{"max_model_len": length, "batch_size": "auto", "seed": config.seed, **common, **more},
            dtype="auto" if config.dtype == "keep" else config.dtype,
            tensor_parallel_size=require_gpus(model, vllm=True),
        )
    elif config.backend == "completions":
        loaded = _served(folder, config, length, common)
    else:
        import torch

        require_transformers(model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        size = batch_size(config, settings, length, device)
        print(f"hf: {device}, batch size {size}, at most {length} tokens")
        own = loaded_in(settings, headers(model).values(), model.folder, device)
        dtype = own if config.dtype == "keep" else config.dtype
        loaded = get_model("hf")(**common, dtype=dtype, device=device, max_length=length, batch_size=size)
    if model.chat_template:
        loaded.tokenizer.chat_template = model.chat_template
    return loaded


def _served(folder: str, config: Harness, length: int, common: dict[str, Any]) -> LM:
    """A model that a server has loaded under its folder's name, as `vllm serve FOLDER` does."""
    import requests

    base = config.base_url.rstrip("/")
    try:
        answer = requests.get(f"{base}/models", timeout=30)
        answer.raise_for_status()
        served = [each["id"] for each in answer.json()["data"]]
    except (requests.RequestException, KeyError, ValueError) as error:
        raise CheckpointError(
            f"{base}: no OpenAI-compatible server answers ({type(error).__name__}); start it: vllm serve {folder}"
        ) from None
    if folder not in served:
        raise CheckpointError(
            f"{base}: serves {', '.join(served)}, not {folder}; start it: vllm serve {folder}"
        )
    return get_model("local-completions")(
        **common | {"pretrained": None},
        model=folder,
        base_url=f"{base}/completions",
        tokenizer_backend="huggingface",
        max_length=length,
        num_concurrent=config.concurrency,
        batch_size=1,
        seed=config.seed,
    )


def batch_size(config: Harness, settings: Any, length: int, device: str) -> int | str:
    """The number of sequences per batch.

    On a GPU lm-eval finds the largest batch that fits by trying. On a CPU a batch that is too large
    kills the process, so the batch gets a quarter of the free memory. A token needs its logits
    three times in float32 (logits, log-softmax, a copy), and about 16 numbers of the hidden size
    per layer.
    """
    if config.batch_size != "auto":
        return config.batch_size
    if device == "cuda":
        return "auto"
    token = 4 * (3 * settings.vocab_size + 16 * settings.hidden_size * settings.num_hidden_layers)
    return max(1, min(LARGEST_BATCH, free_memory() // 4 // (token * length)))
