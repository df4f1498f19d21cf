"""What a model's class says: ties that no config spells out, embeddings of any name, places of old names, configs as read."""

import json
import sys
from pathlib import Path

import pytest
import torch
import transformers
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.classes import ask
from expoflow.checkpoints.loading import require_loadable
from expoflow.errors import CheckpointError
from expoflow.extrapolation.preflight import open_pair
from safetensors.torch import load_file
from small_models import change_config, change_tensors, model_of, require_right, save, trained


@pytest.fixture
def make(tmp_path):
    return lambda kind: save(model_of(kind), tmp_path / kind)


def said(folder: Path, *names: str):
    return ask(open_checkpoint(folder), names)


@pytest.mark.parametrize(
    ("kind", "embedding", "head"),
    [
        ("gemma2", "model.embed_tokens.weight", "lm_head.weight"),
        ("gpt2", "transformer.wte.weight", "lm_head.weight"),
        ("mamba", "backbone.embeddings.weight", "lm_head.weight"),
        ("ctrl", "transformer.w.weight", "lm_head.weight"),
    ],
)
def test_ties_that_the_config_leaves_to_its_class(make, kind, embedding, head):
    found = said(change_config(make(kind), tie_word_embeddings=None))
    assert found.tied == {head: embedding}
    assert found.tie(head) == found.tie(embedding) == embedding
    assert {embedding, head} <= set(found.vocabulary) <= {embedding, head, "lm_head.bias"}
    assert found.config["tie_word_embeddings"] is True


def test_without_a_tie_embeddings_and_head_are_two(make):
    found = said(change_config(make("mamba"), tie_word_embeddings=False))
    assert found.tied == {}
    assert set(found.vocabulary) == {"backbone.embeddings.weight", "lm_head.weight"}


@pytest.mark.parametrize(("less", "more"), [(64, 67), (67, 64)])
def test_whatever_the_class_resizes_with_the_embeddings_counts_tokens(tmp_path, less, more):
    def bart(tokens: int) -> transformers.PreTrainedModel:
        sizes = {
            f"{part}_{size}": 2 for part in ("encoder", "decoder") for size in ("layers", "attention_heads")
        }
        config = transformers.BartConfig(
            vocab_size=tokens,
            max_position_embeddings=32,
            **sizes,
            d_model=16,
            encoder_ffn_dim=32,
            decoder_ffn_dim=32,
        )
        torch.manual_seed(0)
        return transformers.BartForConditionalGeneration(config)

    before, after = bart(less), bart(less)
    after.resize_token_embeddings(more)
    for model in (before, trained(after)):
        model.final_logits_bias += torch.randn(model.final_logits_bias.shape)
    sft, aligned = save(before, tmp_path / "sft"), save(after, tmp_path / "aligned")
    found = said(aligned).vocabulary
    assert found == {
        "final_logits_bias": 1,
        "lm_head.weight": 0,
        **dict.fromkeys(
            (f"model.{part}.weight" for part in ("shared", "encoder.embed_tokens", "decoder.embed_tokens")), 0
        ),
    }
    assert "final_logits_bias is 1x" in str(open_pair(sft, aligned).errors)
    require_right(sft, aligned, tmp_path / "out", vocabulary="shared_rows")


def test_every_name_has_the_place_where_the_loader_puts_it(make):
    folder = make("mixtral")
    old = load_file(folder / "model.safetensors")
    assert "model.layers.0.block_sparse_moe.gate.weight" in old  # transformers saves the hub's names
    found = said(folder, "no.such.tensor", "layers.0.self_attn.q_proj.weight")
    gate = "model.layers.0.mlp.gate.weight"
    assert found.place("model.layers.0.block_sparse_moe.gate.weight") == found.place(gate) == gate
    assert found.place("layers.0.self_attn.q_proj.weight") == "model.layers.0.self_attn.q_proj.weight"
    assert found.place("no.such.tensor") is None
    assert found.place("model.layers.0.block_sparse_moe.experts.0.w1.weight") is None
    up = found.converted["model.layers.0.mlp.experts.gate_up_proj"]
    prefix = "model.layers.0.block_sparse_moe.experts"
    assert up.parts == [[f"{prefix}.{at}.{part}.weight" for at in (0, 1)] for part in ("w1", "w3")]
    assert up.operations == ["MergeModulelist(dim=0)", "Concatenate(dim=1)"]


def test_masks_that_the_class_computes_are_ignored_not_unknown(make):
    folder = make("gpt2")

    def as_on_the_hub(state):
        state = {name.removeprefix("transformer."): each for name, each in state.items()}
        return state | {"h.0.attn.bias": torch.ones(1, 1, 32, 32), "h.0.attn.extra": torch.ones(1)}

    change_tensors(folder, as_on_the_hub)
    found = said(folder)
    assert found.ignored == ["h.0.attn.bias"]
    assert found.place("wte.weight") == "transformer.wte.weight"
    assert found.place("h.0.attn.extra") is None
    assert "transformer.h.0.attn.c_attn.weight" in found.conv1d


def test_a_config_is_read_with_the_defaults_of_its_class(make):
    folder = make("gemma2")
    one = said(folder).config
    change_config(folder, head_dim=None, rope_parameters=None, rope_theta=10000.0, tie_word_embeddings=None)
    other = said(folder).config
    assert other["rope_parameters"] == one["rope_parameters"]
    assert other["tie_word_embeddings"] is True


@pytest.mark.parametrize(
    "named",
    [
        ["GEMMA2ForCausalLM"],
        "Gemma2ForCausalLM",
        ["Gemma2Config"],
        ["AutoModelForCausalLM"],
        ["PreTrainedModel"],
        5,
        {},
        None,
    ],
)
def test_a_config_that_names_no_class_has_the_one_of_its_type(make, named):
    folder = make("gemma2")
    config = json.loads((folder / "config.json").read_text()) | {"architectures": named}
    (folder / "config.json").write_text(json.dumps(config))
    assert said(folder).name == "Gemma2ForCausalLM"
    assert require_loadable(folder, open_checkpoint(folder).tensors, "any model") is None
    assert require_loadable(folder, open_checkpoint(folder).tensors).__name__ == "Gemma2ForCausalLM"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_type": None}, "names no model_type; give the config.json that belongs"),
        ({"model_type": "our-own"}, "cannot read its config.json (model_type 'our-own')"),
        ({"num_hidden_layers": "two"}, "correct it"),
    ],
)
def test_a_class_that_cannot_be_asked_is_an_error_that_says_so(make, changes, words):
    with pytest.raises(CheckpointError) as error:
        said(change_config(make("gemma2"), **changes))
    assert words in str(error.value)


def test_what_it_said_is_kept_by_content(make, store, monkeypatch):
    folder = make("gemma2")
    first = said(folder)
    assert len(list(store.glob("classes/*/*.json"))) == 1
    monkeypatch.setitem(sys.modules, "transformers.utils", None)  # asking again would fail
    assert said(folder) == first


def test_a_backbone_on_the_hub_is_not_asked_for(make, monkeypatch):
    """Configs may name a model whose config the class reads from the hub when it is built."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    changes = {"model_type": "dpt", "backbone": "org/resnet-50", "use_pretrained_backbone": True}
    folder = change_config(make("gemma2"), **changes)
    for question in (said, lambda folder: require_loadable(folder, {}, "any model")):
        with pytest.raises(CheckpointError, match="offline mode is enabled"):
            question(folder)
