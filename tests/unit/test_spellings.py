"""Pairs that say one thing in two ways: ties left to the class, heads stored or not, other names, configs of two versions.

The result is compared, in float64, with what plain transformers loads of the two.
"""

import json

import pytest
import torch
import transformers
from expoflow.errors import PairError
from expoflow.extrapolation.likeness import looked_at
from expoflow.extrapolation.preflight import open_pair
from small_models import (
    SMALL,
    change_config,
    change_tensors,
    model_of,
    require_right,
    save,
    save_pair,
    trained,
)
from transformers import AutoModelForCausalLM

TIED = [kind for kind in SMALL if kind not in ("llama", "mistral", "mixtral")]
EMBEDDINGS = {
    "gemma2": "model.embed_tokens.weight",
    "gpt2": "transformer.wte.weight",
    "openai-gpt": "transformer.tokens_embed.weight",
    "ctrl": "transformer.w.weight",
    "mamba": "backbone.embeddings.weight",
    "opt": "model.decoder.embed_tokens.weight",
    "bloom": "transformer.word_embeddings.weight",
}


def with_head(kind: str, add: float = 0.0):
    """Also store the head, as FSDP, DeepSpeed and pickles do; the embedding, or with other values."""
    embedding = EMBEDDINGS[kind]
    return lambda state: (
        state | {"lm_head.weight": next(state[name] for name in state if name.endswith(embedding)) + add}
    )


@pytest.mark.parametrize("kind", TIED)
@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_a_tied_head_that_one_side_stores(tmp_path, kind, role):
    pair = dict(zip(("sft", "aligned"), save_pair(kind, tmp_path), strict=True))
    for folder in pair.values():
        change_config(folder, tie_word_embeddings=None)
    change_tensors(pair[role], with_head(kind))
    require_right(*pair.values(), tmp_path / "out")


@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_a_stored_head_with_other_values_is_two_models(tmp_path, role):
    pair = dict(zip(("sft", "aligned"), save_pair("mamba", tmp_path), strict=True))
    change_tensors(pair[role], with_head("mamba", add=1e-3))
    with pytest.raises(PairError) as error:
        require_right(*pair.values(), tmp_path / "out")
    assert f"{role} ties lm_head.weight to backbone.embeddings.weight" in str(error.value)
    looked, _ = looked_at(open_pair(*pair.values()), unrelated=False)
    assert looked.errors == str(error.value).splitlines()  # preflight says it too
    if role == "aligned":  # the first remedy: it was trained
        assert f"tie_word_embeddings: false into {pair[role] / 'config.json'}" in str(error.value)
        change_config(pair[role], tie_word_embeddings=False)
    else:  # the other one
        change_tensors(
            pair[role], lambda state: {key: state[key] for key in state if key != "lm_head.weight"}
        )
    require_right(*pair.values(), tmp_path / "out")


def test_the_head_is_the_copy_also_if_it_is_the_one_that_both_store(tmp_path):
    sft, aligned = save_pair("mamba", tmp_path)
    change_tensors(sft, with_head("mamba", add=1e-3))
    change_tensors(
        aligned,
        lambda state: {
            name.replace("backbone.embeddings.", "lm_head."): each for name, each in state.items()
        },
    )
    with pytest.raises(PairError, match=r"sft ties lm_head\.weight to backbone\.embeddings"):
        require_right(sft, aligned, tmp_path / "out")


def test_a_model_that_was_saved_without_its_head_is_said_and_the_remedy_works(tmp_path):
    model = model_of("gemma2")
    sft = save(model, tmp_path / "sft")
    save(trained(model).model, tmp_path / "bare")
    assert open_pair(sft, tmp_path / "bare").errors[0] == (
        "config architectures is ['Gemma2ForCausalLM'] in sft and ['Gemma2Model'] in aligned: two classes, of which one may lack"
        " what the other has; save both models as one"
    )
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "bare")
    require_right(sft, save(again, tmp_path / "aligned"), tmp_path / "out")


def test_a_head_that_alignment_untied_begins_at_the_embedding(tmp_path):
    sft, aligned = save_pair("gemma2", tmp_path)
    change_config(change_tensors(aligned, with_head("gemma2", add=1e-3)), tie_word_embeddings=False)
    notes = [each.message for each in open_pair(sft, aligned).findings if each.level == "note"]
    assert notes == [
        "lm_head.weight is tied to model.embed_tokens.weight in sft and not in aligned: in sft it equals model.embed_tokens.weight"
    ]
    require_right(sft, aligned, tmp_path / "out")
    change_tensors(sft, with_head("gemma2"))  # a copy, which is no more than that
    require_right(sft, aligned, tmp_path / "again")
    change_tensors(sft, with_head("gemma2", add=1e-3))
    with pytest.raises(PairError, match=r"sft ties lm_head\.weight"):
        require_right(sft, aligned, tmp_path / "third")


def test_a_head_that_one_side_lacks_is_refused(tmp_path):
    sft, aligned = save_pair("gemma2", tmp_path)
    change_config(aligned, tie_word_embeddings=False)
    (message,) = open_pair(sft, aligned).errors
    assert "aligned does not tie lm_head.weight by its config.json, and has no such tensor" in message
    change_config(sft, tie_word_embeddings=False)
    change_tensors(sft, with_head("gemma2"))
    change_config(aligned, tie_word_embeddings=None)
    assert open_pair(sft, aligned).errors[0].startswith("aligned ties lm_head.weight to model.embed_tokens")


@pytest.mark.parametrize("kind", ["mamba", "openai-gpt", "opt", "mistral"])
@pytest.mark.parametrize("tokens", [(64, 66), (66, 64)])
def test_rows_of_embeddings_of_any_name_are_shared(tmp_path, kind, tokens):
    model = model_of(kind, tokens[0])
    sft = save(model, tmp_path / "sft")
    model.resize_token_embeddings(tokens[1], mean_resizing=False)
    aligned = save(trained(model), tmp_path / "aligned")
    with pytest.raises(PairError, match="set vocabulary: shared_rows"):
        require_right(sft, aligned, tmp_path / "out")
    require_right(sft, aligned, tmp_path / "out", vocabulary="shared_rows")


def test_rows_that_are_no_tokens_are_another_model(tmp_path):
    sft = save(model_of("opt"), tmp_path / "sft")
    longer = model_of("opt")
    longer.config.max_position_embeddings = 40
    longer.model.decoder.embed_positions = torch.nn.Embedding(42, 16)
    aligned = save(longer, tmp_path / "aligned")
    (message,) = open_pair(sft, aligned, "shared_rows").errors
    assert "embed_positions.weight is 34x16 in sft and 42x16 in aligned: another model" in message


@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_names_without_the_outer_prefix(tmp_path, role):
    """The hub's gpt2 was saved as the bare model."""
    pair = dict(zip(("sft", "aligned"), save_pair("gpt2", tmp_path), strict=True))
    change_tensors(pair[role], lambda state: {key.removeprefix("transformer."): state[key] for key in state})
    notes = [each.message for each in open_pair(*pair.values()).findings]
    assert len(notes) == 1
    assert "its class loads both as one tensor" in notes[0]
    require_right(*pair.values(), tmp_path / "out")


SPELLINGS = {
    "head_dim that follows from other values": ("mistral", {"head_dim": None}, {}),
    "the architecture in old letters": ("llama", {"architectures": ["LLaMAForCausalLM"]}, {}),
    "rope_theta of transformers 4": ("llama", {"rope_parameters": None, "rope_theta": 10000.0}, {}),
    "a tie that is the default": ("gemma2", {"tie_word_embeddings": None}, {}),
}


@pytest.mark.parametrize("name", SPELLINGS)
@pytest.mark.parametrize("swapped", [False, True])
def test_configs_that_mean_the_same_are_the_same(tmp_path, name, swapped):
    kind, sft_says, aligned_says = SPELLINGS[name]
    sft, aligned = save_pair(kind, tmp_path)
    said = (aligned_says, sft_says) if swapped else (sft_says, aligned_says)
    for folder, changes in zip((sft, aligned), said, strict=True):
        change_config(folder, **changes)
    assert open_pair(sft, aligned).findings == ()
    require_right(sft, aligned, tmp_path / "out")


def test_a_null_is_read_as_its_class_reads_it(tmp_path):
    """transformers 4.52 to 4.57 wrote head_dim: null."""
    sft, aligned = save_pair("mistral", tmp_path)
    config = json.loads((sft / "config.json").read_text())
    (sft / "config.json").write_text(json.dumps(config | {"head_dim": None}))
    assert open_pair(sft, aligned).findings == ()


def test_a_difference_in_two_spellings_is_said(tmp_path):
    sft, aligned = save_pair("llama", tmp_path)
    change_config(sft, rope_parameters=None, rope_theta=500000.0)
    change_config(aligned, rms_norm_eps=1e-5)
    assert [each.message for each in open_pair(sft, aligned).findings] == [
        "config rms_norm_eps is 1e-06 in sft and 1e-05 in aligned; aligned's is kept",
        "config rope_parameters.rope_theta is 500000.0 in sft and 10000.0 in aligned; aligned's is kept",
    ]
    change_config(aligned, rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0})
    messages = [each.message for each in open_pair(sft, aligned).findings]
    assert "config rope_parameters.factor is not set in sft and 2.0 in aligned; aligned's is kept" in messages


def test_a_class_that_is_not_known_gives_no_defaults(tmp_path):
    sft, aligned = save_pair("llama", tmp_path)
    for folder in (sft, aligned):
        change_config(folder, model_type="our-own", architectures=["OurOwn"])
    assert open_pair(sft, aligned).findings == ()  # nothing depends on it
    change_config(aligned, tie_word_embeddings=None)
    (message,) = open_pair(sft, aligned).errors
    assert message.startswith(
        "config tie_word_embeddings is False in sft and not set in aligned, and the default"
    )
    assert message.endswith("write tie_word_embeddings into both config.json")
    change_config(aligned, tie_word_embeddings=False)
    change_tensors(aligned, lambda state: {key.removeprefix("model."): state[key] for key in state})
    assert all("its class cannot be asked" in each for each in open_pair(sft, aligned).errors)


def test_a_config_that_cannot_be_read_is_no_other_model(tmp_path):
    sft, aligned = save_pair("llama", tmp_path)
    change_config(sft, num_hidden_layers="1")
    (message,) = open_pair(sft, aligned).errors
    assert message.startswith("config num_hidden_layers is '1' in sft and 1 in aligned")
    assert f"{sft}: transformers {transformers.__version__} cannot read its config.json" in message
