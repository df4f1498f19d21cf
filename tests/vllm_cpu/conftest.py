"""A pair of miniature models, and what transformers answers greedily with each of its extrapolations."""

from functools import cache
from pathlib import Path

import pytest
import torch
from expoflow.engines.generate import request_seed
from expoflow.engines.model import Request
from expoflow.miniature.tokenizer import tokenizer
from expoflow.training.loop import dpo, reward, sft
from loops import run_loop
from miniatures import GREEDY, PROMPTS, Pair
from transformers import AutoModelForCausalLM

TIE = 1e-4


@pytest.fixture(scope="session")
def pair(tmp_path_factory) -> Pair:
    root = tmp_path_factory.mktemp("pair")
    run_loop(sft, root / "sft", seed=0, examples=1500, epochs=3, progress=lambda line: None)
    run_loop(
        dpo,
        root / "dpo",
        seed=0,
        base=root / "sft",
        examples=300,
        learning_rate=1e-4,
        progress=lambda line: None,
    )
    return Pair(root / "sft", root / "dpo", root)


@pytest.fixture(scope="session")
def reward_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("reward")
    run_loop(reward, folder, seed=0, examples=300, epochs=1, progress=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def requests() -> list[Request]:
    chat, ids = tokenizer(), []
    for prompt in PROMPTS:
        messages = [{"role": message.role, "content": message.content} for message in prompt.messages]
        ids.append(chat(chat.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)))
    return [
        Request(each["input_ids"], request_seed(42, 0, prompt.prompt_id))
        for each, prompt in zip(ids, PROMPTS, strict=True)
    ]


@pytest.fixture(scope="session")
def expected(pair, requests):
    """The responses, as token ids without the stop token, that transformers gives at an alpha."""

    @cache
    def generate(alpha: float) -> list[list[int]]:
        chat = tokenizer()
        model = AutoModelForCausalLM.from_pretrained(pair.stored(alpha).folder).eval()
        batch = chat.pad({"input_ids": [request.token_ids for request in requests]}, padding_side="left",
                         return_tensors="pt")  # fmt: skip
        rows = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            do_sample=False,
            max_new_tokens=GREEDY.max_tokens,
        )[:, batch["input_ids"].shape[1] :].tolist()
        eos = chat.eos_token_id
        return [row[: row.index(eos)] if eos in row else row for row in rows]

    return generate


@pytest.fixture(scope="session")
def same_as_transformers(pair, requests, expected):
    """Whether greedy responses, as texts, are transformers': 99 of 100, the others after a tie of two logits."""

    def check(alpha: float, texts: list[str]) -> None:
        chat = tokenizer()
        model = AutoModelForCausalLM.from_pretrained(pair.stored(alpha).folder).eval()
        others = 0
        for request, text, ours in zip(requests, texts, expected(alpha), strict=True):
            if text != chat.decode(ours, skip_special_tokens=True):
                others += 1
                theirs = chat(text)["input_ids"]
                same = 0
                while ours[same : same + 1] == theirs[same : same + 1]:
                    same += 1
                ids = torch.tensor([request.token_ids + ours[:same]])
                first, second = model(ids).logits[0, -1].topk(2).values.tolist()
                assert first - second < TIE, (text, chat.decode(ours))
        assert others <= len(texts) / 100

    return check
