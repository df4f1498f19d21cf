"""Attacks: mutations of valid configs, prompt files, templates, tokenizer files and checkpoints.

Every outcome is right, or one of our errors with a reason; never another exception, a hang, or a model with a weight that is
not in its file. `EXPOFLOW_FUZZ=2000 pytest tests/unit/test_fuzz.py` tries so many inputs in all, a fifth of each kind; without
it there are 200.
"""

import gzip
import json
import os
import shutil
from random import Random

import chat_forms
import pytest
import torch
import yaml
from expoflow import checks
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checks import machine
from expoflow.checks.models import Question, examine
from expoflow.config import Config
from expoflow.data.prompts import read
from expoflow.engines import tokenizer as tokenizers
from expoflow.engines.chat import Chat, plain, with_system
from expoflow.engines.model import Model
from expoflow.engines.transformers import TransformersEngine
from expoflow.errors import ConfigError, ExpoflowError
from expoflow.miniature.tokenizer import tokenizer
from expoflow.miniature.world import prompts
from expoflow.results import Message, Prompt
from expoflow.scoring import rewards
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from mutations import as_json, mutated_bytes, mutated_json, mutated_text
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification

KINDS = 5
EACH = max(1, int(os.environ.get("EXPOFLOW_FUZZ", "200")) // KINDS)
RANDOM = st.randoms(use_true_random=False)


def attack(number):
    """So many examples of one kind, the same in every run."""

    def decorated(test):
        few = settings(
            max_examples=EACH,
            deadline=None,
            database=None,
            suppress_health_check=[*HealthCheck],
            print_blob=True,
        )
        return seed(number)(few(given(random=RANDOM)(test)))

    return decorated


def refused(error: ExpoflowError) -> None:
    """One of our errors: it says something, and nothing of Python."""
    text = str(error)
    assert text.strip()
    assert "Traceback" not in text
    assert "object at 0x" not in text


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A language model, a reward model, and a folder to work in."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("fuzz")
    small = {
        "vocab_size": len(tokenizer()), "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2,
        "num_key_value_heads": 2, "num_hidden_layers": 2, "max_position_embeddings": 64, "tie_word_embeddings": False,
        "pad_token_id": 0, "eos_token_id": tokenizer().eos_token_id,
    }  # fmt: skip
    LlamaForCausalLM(LlamaConfig(**small)).save_pretrained(folder / "lm")
    LlamaForSequenceClassification(LlamaConfig(**small, num_labels=1)).save_pretrained(folder / "rm")
    for name in ("lm", "rm"):
        tokenizer().save_pretrained(folder / name)
    (folder / "p.jsonl").write_text('{"prompt": "a"}\n{"prompt": "b"}\n')
    return folder


def config(saved) -> dict:
    return {
        "models": {
            "sft": {"path": str(saved / "lm"), "stop": [3], "system": "merge"},
            "dpo": {"path": str(saved / "lm"), "resources": {"gpus": 1}},
            "rm": {"path": str(saved / "rm"), "pad_token": "<pad>"},
        },
        "pairs": {
            "one": {"sft": "sft", "aligned": "dpo", "alphas": [0.1, 0.3], "generate": {"max_tokens": 9}}
        },
        "prompts": {"dev": {"file": str(saved / "p.jsonl")}, "test": {"miniature": "test", "subset": 5}},
        "reward_model": "rm",
        "date": "2026-01-31",
        "generate": {"temperature": 0.7, "too_long": "skip"},
        "select": {"confidence": 0.9},
        "benchmarks": {"reward": {"prompts": "test"}},
    }


@attack(1)
def test_configs(saved, random: Random):
    data = mutated_json(config(saved), random)
    text = yaml.safe_dump(data, allow_unicode=True)
    if random.random() < 0.3:
        text = mutated_text(text, random)
    path = saved / "config.yaml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    try:
        checks.plain_yaml.check_files([path])
        read_back = yaml.safe_load(path.read_text(encoding="utf-8"))
        made = checks.load(read_back if isinstance(read_back, dict) else {}, [path])
        machine.check_sources(made)
    except ConfigError as error:
        refused(error)
    else:
        assert (
            Config.model_validate_json(made.model_dump_json(by_alias=True, exclude_none=True)).pairs
            == made.pairs
        )


ROWS = [
    {"prompt": "What is a llama?", "n": 1},
    {
        "prompt": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Why?", "tool_calls": None},
        ]
    },
    {
        "prompt": [
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": "c"},
        ]
    },
    {"prompt": [{"role": "user", "content": [{"type": "text", "text": "parts"}]}]},
]


@attack(2)
def test_prompt_files(saved, random: Random):
    rows = mutated_json(ROWS, random)
    packed = random.random() < 0.2
    name = random.choice(["q.jsonl", "q.json", "q.JSONL", "q.csv", "q.txt"]) + ".gz" * packed
    if ".csv" in name:
        data = "prompt,n\n" + "".join(f'"{row!s}",1\n' for row in rows)
    else:
        data = "".join(as_json(row) + "\n" for row in rows) if "l" in name.lower() else as_json(rows)
    data = data.encode(errors="surrogatepass")
    if random.random() < 0.5:
        data = mutated_bytes(data, random)
    data = gzip.compress(data, mtime=0) if packed else data
    if packed and random.random() < 0.5:
        data = mutated_bytes(data, random)
    path = saved / name
    path.write_bytes(data)
    try:
        found = read([path], "prompt")
    except ExpoflowError as error:
        refused(error)
    else:
        assert len({each.prompt_id for each in found}) == len(found) > 0
        for message in (message for prompt in found for message in prompt.messages):
            assert message.role in ("user", "assistant", "system", "tool")
            assert message.content.strip() or message.role != "user"
        assert all(any(each.role == "user" for each in prompt.messages) for prompt in found)
    finally:
        path.unlink()


CONVERSATIONS = [
    Prompt(prompt_id="one", messages=[Message(role="user", content="apples first")]),
    Prompt(prompt_id="two", messages=[Message(role="user", content="pears second")]),
    Prompt(
        prompt_id="three",
        messages=[
            Message(role="system", content="plums third"),
            Message(role="user", content="cherries fourth"),
            Message(role="assistant", content="figs fifth"),
            Message(role="user", content="dates sixth"),
        ],
    ),
]


def reaches(chat: Chat) -> None:
    """Every conversation whose template takes it has its words in its tokens, and none are alike."""
    rows = chat.all_token_ids((prompt.messages, None) for prompt in CONVERSATIONS)
    assert len({tuple(row) for row in rows}) == len(rows)
    for prompt, row in zip(CONVERSATIONS, rows, strict=True):
        assert row
        for message in with_system(plain(prompt.messages), chat.system):
            assert message["content"] in chat.text(prompt.messages)
    bos = chat.tokenizer.bos_token_id
    assert all(row[:2] != [bos, bos] for row in rows)


@attack(3)
def test_templates(random: Random):
    form = random.choice(chat_forms.FORMS)
    made = chat_forms.tokenizer(form)
    made.chat_template = mutated_text(form.template, random)
    if random.random() < 0.5:
        made.chat_template = mutated_text(made.chat_template, random)
    chat = Chat(made, "fuzz", system=random.choice(["keep", "merge", "drop"]))
    try:
        reaches(chat)
        chat.turn_end()
    except ExpoflowError as error:
        refused(error)


def copied(source, target):
    shutil.rmtree(target, ignore_errors=True)
    return shutil.copytree(source, target)


def asked(folder, *, language: bool) -> Question:
    return Question(
        name="fuzz",
        model=Model(folder=folder),
        engine="transformers" if language else None,
        scored_by=None if language else "transformers",
        weights=True,
        prompts={"dev": prompts("dev", 0)[:3]},
        too_long="error",
    )


@attack(4)
def test_tokenizer_files(saved, random: Random):
    folder = copied(saved / "lm", saved / "copy")
    names = [path.name for path in sorted(folder.iterdir()) if tokenizers.FILES.fullmatch(path.name)]
    path = folder / random.choice([*names, "generation_config.json"])
    data = path.read_bytes() if path.exists() else b"{}"
    if path.suffix == ".json" and random.random() < 0.7:
        data = as_json(mutated_json(json.loads(data), random)).encode()
    else:
        data = mutated_bytes(data, random)
    path.write_bytes(data)
    if random.random() < 0.1:
        path.unlink()
    model = Model(folder=folder)
    try:
        chat = Chat.of(tokenizers.tokenizer(model), model)
        rows = chat.all_token_ids((prompt.messages, None) for prompt in prompts("dev", 0)[:4])
        assert len({tuple(row) for row in rows}) == len(rows)
        assert all(isinstance(token, int) and token >= 0 for token in tokenizers.stop_ids(model))
    except ExpoflowError as error:
        refused(error)
    looked_at = examine(asked(folder, language=True))
    assert all(": " in line for line in looked_at.problems)


def mutated_checkpoint(folder, random: Random) -> None:
    """Change config.json, names, shapes, or the bytes of the weights."""
    weights = folder / "model.safetensors"
    kind = random.choice(["config", "config", "names", "names", "tensors", "bytes", "header"])
    if kind == "config":
        text = (folder / "config.json").read_text()
        changed = (
            as_json(mutated_json(json.loads(text), random))
            if random.random() < 0.8
            else mutated_text(text, random)
        )
        (folder / "config.json").write_bytes(changed.encode(errors="surrogatepass"))
    elif kind in ("names", "tensors"):
        tensors = load_file(weights)
        for _ in range(random.randint(1, 2)):
            name = random.choice(sorted(tensors))
            if kind == "names":
                other = random.choice(
                    [f"module.{name}", f"{name}s", name.replace("0", "7"), "score.weight", "lm_head.weight"]
                )
                tensors[other] = tensors.pop(name)
            else:
                tensors[name] = random.choice(
                    [
                        tensors[name][:-1],
                        tensors[name].to(torch.int8),
                        tensors[name][:0],
                        tensors[name].half(),
                        torch.ones(3, 2),
                    ]
                ).contiguous()
        save_file(tensors, weights, metadata={"format": "pt"})
    elif kind == "bytes":
        weights.write_bytes(mutated_bytes(weights.read_bytes(), random))
    else:
        data = weights.read_bytes()
        length = int.from_bytes(data[:8], "little")
        header = as_json(mutated_json(json.loads(data[8 : 8 + length]), random)).encode()
        weights.write_bytes(len(header).to_bytes(8, "little") + header + data[8 + length :])


def whole(model: torch.nn.Module, folder) -> None:
    """Every parameter of a loaded model has the values of its file."""
    stored = load_file(folder / "model.safetensors")
    names = {name: rewards.reward_heads.renamed(stored).get(name, name) for name in stored}
    places = {names[name]: tensor for name, tensor in stored.items()}
    state = model.state_dict(keep_vars=True)
    tied = {parameter.data_ptr() for name, parameter in state.items() if name in places}
    for name, parameter in state.items():
        if name in places:
            assert torch.equal(parameter.detach(), places[name].to(parameter.dtype)), name
        else:
            assert parameter.data_ptr() in tied, name


@attack(5)
def test_checkpoints(saved, random: Random):
    language = random.random() < 0.6
    folder = copied(saved / ("lm" if language else "rm"), saved / "copy")
    mutated_checkpoint(folder, random)
    looked_at = examine(asked(folder, language=language))
    try:
        loaded = (TransformersEngine if language else rewards.load)(Model(folder=folder))
    except ExpoflowError as error:
        refused(error)
        said = looked_at.problems  # what a load refuses was said before any job
        assert said
    else:
        open_checkpoint(folder)
        whole(loaded.model, folder)
