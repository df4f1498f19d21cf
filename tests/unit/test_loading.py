"""Loads are whole: a weight that is not in the files, or a tensor that has no place, is refused with its cause."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from expoflow.checkpoints import loading
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.engines.model import Model
from expoflow.engines.transformers import TransformersEngine
from expoflow.errors import CheckpointError
from expoflow.miniature.tokenizer import tokenizer
from expoflow.scoring import rewards
from safetensors.torch import load_file, save_file
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

SMALL = {
    "vocab_size": len(tokenizer()),
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "num_hidden_layers": 3,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A language model, `lm`, and a reward model, `rm`, whole."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("saved")
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(folder / "lm")
    LlamaForSequenceClassification(LlamaConfig(**SMALL, num_labels=1)).save_pretrained(folder / "rm")
    for name in ("lm", "rm"):
        tokenizer().save_pretrained(folder / name)
    return folder


def edited(source, target, edit=None, **settings):
    """A copy with other tensors, and other entries of config.json (None takes one out)."""
    shutil.copytree(source, target)
    if edit:
        tensors = edit(load_file(target / "model.safetensors"))
        save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((target / "config.json").read_text()) | settings
    (target / "config.json").write_text(json.dumps({k: v for k, v in config.items() if v is not None}))
    return target


def named(change):
    return lambda tensors: {change(name): tensor for name, tensor in tensors.items()}


def without(*parts):
    return lambda tensors: {
        name: tensor for name, tensor in tensors.items() if not any(part in name for part in parts)
    }


def tripled(tensors):
    more = {n.replace("layers.2", "layers.5"): t.clone() for n, t in tensors.items() if "layers.2" in n}
    return tensors | more


WRONG = {
    "compiled": (named(lambda n: f"_orig_mod.{n}"), {}, "_orig_mod.*torch.compile wrapped .*unwrap it"),
    "data parallel": (named(lambda n: f"module.{n}"), {}, r"named module\..*save the model inside it"),
    "merged too early": (named(lambda n: f"base_model.model.{n}"), {}, "peft wrapped"),
    "untied head": (
        without("lm_head"),
        {},
        "head lm_head.weight is not in its files .* tie_word_embeddings: true",
    ),
    "too many layers": (
        None,
        {"num_hidden_layers": 4},
        "more layers than its files: model.layers.3.*num_hidden_layers",
    ),
    "too few layers": (None, {"num_hidden_layers": 2}, "layers that its config.json does not, up to layer 2"),
    "strange layers": (tripled, {}, "up to layer 5"),
    "norm": (without("model.norm"), {}, "not in its files: model.norm.weight: 1 weights would be random"),
    "extra": (
        lambda t: t | {"more.x": torch.ones(2)},
        {},
        "does not know: more.x: they would be left out",
    ),
    "no elements": (
        lambda t: dict.fromkeys(t, torch.empty(0)),
        {},
        "has no elements: DeepSpeed ZeRO-3 saved the model without gathering its weights",
    ),
    "value head": (lambda t: t | {"v_head.x": torch.ones(2)}, {}, "v_head.x: the value head of TRL's PPO"),
    "other shape": (None, {"intermediate_size": 48}, "16x32 in its files and 16x48 by its config.json"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_language_model_that_is_not_whole_is_refused_by_header_and_by_the_engine(saved, tmp_path, case):
    edit, settings, words = WRONG[case]
    folder = edited(saved / "lm", tmp_path / "lm", edit, **settings)
    with pytest.raises(CheckpointError, match=words):
        loading.require_loadable(folder, open_checkpoint(folder).tensors)
    with pytest.raises(CheckpointError, match=words):
        TransformersEngine(Model(folder=folder))


def test_an_engine_does_not_move_to_a_model_that_lacks_a_weight(saved, tmp_path):
    engine = TransformersEngine(Model(folder=saved / "lm"))
    folder = edited(saved / "lm", tmp_path / "lm", without("layers.1.mlp.up_proj"))
    with pytest.raises(CheckpointError, match=r"layers\.1\.mlp\.up_proj\.weight: 1 weights would be random"):
        engine.move(Model(folder=folder))


def test_constants_that_old_files_store_are_no_surplus(saved, tmp_path):
    table = {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(4)}
    folder = edited(saved / "lm", tmp_path / "lm", lambda tensors: tensors | table)
    TransformersEngine(Model(folder=folder)).close()


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (GPT2LMHeadModel, GPT2Config(vocab_size=50, n_embd=16, n_layer=2, n_head=2)),
        (MixtralForCausalLM, MixtralConfig(**SMALL, num_local_experts=4)),
    ],
)
def test_what_transformers_saves_under_other_names_is_whole(tmp_path, make, config):
    make(config).save_pretrained(tmp_path)
    loading.require_loadable(tmp_path, open_checkpoint(tmp_path).tensors)


HEADS = {
    "two layers (INF-ORM)": (
        named(lambda n: n.replace("score.", "score.0.")),
        {},
        "its head has several layers",
    ),
    "none": (without("score"), {}, "has no trained head"),
    "unknown": (named(lambda n: n.replace("score.", "prediction.")), {}, "has no trained head"),
    "gated (ArmoRM)": (None, {"architectures": ["LlamaForRewardModelWithGating"]}, "mixture of 19 heads"),
    "internlm2": (None, {"architectures": ["InternLM2ForRewardModel"]}, "code of its repository"),
    "pairs (PairRM)": (named(lambda n: f"pretrained_model.{n}"), {}, "compares two responses"),
    "two logits": (
        lambda t: t | {"score.weight": torch.ones(2, 16)},
        {"id2label": {"0": "a", "1": "b"}},
        "has 2 logits by its config.json",
    ),
    "two logits, unsaid": (
        lambda t: t | {"score.weight": torch.ones(2, 16)},
        {},
        "2x16 in its files and 1x16",
    ),
    "wrapped": (named(lambda n: f"module.{n}"), {}, "no trained head"),
}


@pytest.mark.parametrize("case", HEADS)
def test_a_reward_model_with_another_head_is_refused(saved, tmp_path, case):
    edit, settings, words = HEADS[case]
    folder = edited(saved / "rm", tmp_path / "rm", edit, **settings)
    with pytest.raises(CheckpointError, match=words):
        rewards.load(Model(folder=folder))
    with pytest.raises(CheckpointError, match=words):
        loading.require_loadable(folder, open_checkpoint(folder).tensors, "reward model")


def test_a_language_model_is_no_reward_model(saved, tmp_path):
    folder = edited(saved / "lm", tmp_path / "lm", id2label={"0": "a"}, label2id={"a": 0})
    with pytest.raises(CheckpointError, match="has no trained head"):
        rewards.load(Model(folder=folder))


@pytest.mark.parametrize("head", ["value_head", "v_head", "regression_head", "reward_head", "v_head.summary"])
def test_a_linear_head_of_another_name_gives_the_same_logits(saved, tmp_path, head):
    rename = named(lambda name: name.replace("score.", f"{head}."))
    folder = edited(saved / "rm", tmp_path / "rm", rename, id2label=None, label2id=None)
    rows = [[5, 6, 7], [8, 9]]
    one, other = (rewards.load(Model(folder=each)) for each in (saved / "rm", folder))
    assert dict(next(other.logits(rows))) == pytest.approx(dict(next(one.logits(rows))), abs=1e-6)


def test_a_padding_token_comes_from_the_config_or_from_the_user(saved, tmp_path):
    rows = [[5, 6, 7], [8, 9]]
    expected = dict(next(rewards.load(Model(folder=saved / "rm")).logits(rows)))
    for number, padding in enumerate((None, -1)):
        folder = edited(saved / "rm", tmp_path / f"rm{number}", pad_token_id=padding)
        with pytest.raises(
            CheckpointError, match=f"pad_token_id {padding}.* `pad_token:`.* its tokenizer has"
        ):
            rewards.load(Model(folder=folder))
        with pytest.raises(CheckpointError, match="its tokenizer has no token '<none>'"):
            rewards.load(Model(folder=folder, pad_token="<none>"))
        token = tokenizer().convert_ids_to_tokens(0)
        assert dict(next(rewards.load(Model(folder=folder, pad_token=token)).logits(rows))) == (
            pytest.approx(expected, abs=1e-6)
        )


BLIP = {
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
BLIP |= {"bos_token_id": 1, "sep_token_id": 2}


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: BlipForConditionalGeneration(BlipConfig(text_config=BLIP, vision_config=BLIP)),
            "cannot run BlipForConditionalGeneration: it has its own way of generating; set generate.engine: vllm",
        ),
        (
            lambda: T5ForConditionalGeneration(
                T5Config(vocab_size=50, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
            ),
            "an encoder and a decoder, and the sweep of ExPO is only for decoders; `expoflow extrapolate`",
        ),
    ],
)
def test_an_architecture_that_the_engine_cannot_run_is_refused(tmp_path, make, words):
    make().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=words):
        TransformersEngine(Model(folder=tmp_path))


def test_an_unknown_model_type_is_refused(saved, tmp_path):
    folder = edited(saved / "lm", tmp_path / "lm", model_type="llama9")
    with pytest.raises(CheckpointError, match=r"model_type 'llama9'.*trust_remote_code"):
        loading.read_config(folder)


def test_kernels_that_a_config_wants_are_not_needed_to_ask_its_class(saved, tmp_path):
    folder = edited(saved / "lm", tmp_path / "lm", attn_implementation="flash_attention_2")
    loading.require_loadable(folder, open_checkpoint(folder).tensors)


def test_a_class_that_transformers_lacks_is_not_asked_as_any_model(saved, tmp_path):
    folder = edited(
        saved / "lm", tmp_path / "lm", named(lambda n: f"x.{n}"), model_type="own", architectures=["OwnLM"]
    )
    loading.require_loadable(folder, open_checkpoint(folder).tensors, "any model")
    with pytest.raises(CheckpointError, match="model_type 'own'"):
        loading.require_loadable(folder, open_checkpoint(folder).tensors)


def test_the_labels_of_pickles_are_asked_when_they_are_converted(saved, tmp_path):
    folder = edited(saved / "rm", tmp_path / "rm", id2label=None, label2id=None)
    assert loading.reward_config(loading.read_config(folder), folder, {}).num_labels == 2
    assert (
        loading.reward_config(loading.read_config(folder), folder, open_checkpoint(folder).tensors).num_labels
        == 1
    )


def test_a_load_does_without_scikit_learn_which_others_may_import(saved):
    pytest.importorskip("sklearn")
    code = """
import sys
from pathlib import Path
from expoflow.checkpoints import loading
loading.read_config(Path(sys.argv[1]))
from transformers import AutoModelForCausalLM
AutoModelForCausalLM
assert "sklearn" not in sys.modules
import sklearn.base
"""
    subprocess.run([sys.executable, "-c", code, str(saved / "rm")], check=True)
