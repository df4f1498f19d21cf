"""Pairs whose files lay out one model differently: experts one by one or fused, other names, tensors that no class loads.

The result is compared, in float64, with what plain transformers loads of the two.
"""

import re
import shutil

import numpy as np
import pytest
import torch
import transformers
from checkpoints import bits, load
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.classes import ask
from expoflow.checkpoints.tensor_names import WRAPPERS
from expoflow.errors import PairError
from expoflow.extrapolation import layout, writer
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.likeness import looked_at
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import open_pair
from expoflow.extrapolation.tensor_stream import tensors
from small_models import change_tensors, loaded, model_of, require_right, save, save_pair, trained

EXPERTS = 4
MOE = {"mixtral": {"num_local_experts": EXPERTS, "num_hidden_layers": 2}}
MOE["ernie4_5_moe"] = {
    "moe_num_experts": EXPERTS,
    "moe_intermediate_size": 8,
    "moe_k": 2,
    "num_hidden_layers": 2,
}
MOE["qwen3_moe"] = {"num_experts": EXPERTS, "moe_intermediate_size": 8, "head_dim": 8, "num_hidden_layers": 2}


def save_experts(folder, model, fused, **settings):
    """One by one, as on the hub and of transformers 4, or as transformers 5 has them."""
    model.save_pretrained(folder, save_original_format=not fused, **settings)
    names = {name for file in folder.glob("*.safetensors") for name in load(folder)}
    assert any(name.endswith("experts.gate_up_proj") for name in names) == fused
    return folder


def experts_pair(folder, kind, fused_role, **settings):
    model = model_of(kind, **MOE[kind])
    folders = []
    for role in ("sft", "aligned"):
        folders.append(save_experts(folder / role, model.to(settings.get("dtype")), role == fused_role))
        trained(model)
    return folders


def notes(pair):
    return [finding.message for finding in pair.findings if finding.level == "note"]


@pytest.mark.parametrize("kind", MOE)
@pytest.mark.parametrize("fused", ["sft", "aligned"])
def test_experts_one_by_one_and_fused(tmp_path, kind, fused):
    pair = experts_pair(tmp_path, kind, fused)
    require_right(*pair, tmp_path / "out")
    opened = open_pair(*pair)
    assert any("its class loads both as one tensor" in note for note in notes(opened))
    assert sum(part.shared for part in opened.parts) == opened.aligned.parameters
    assert not looked_at(opened, False)[0].errors


@pytest.mark.parametrize("fused", ["sft", "aligned"])
def test_layouts_differ_in_shards_types_and_alphas(tmp_path, monkeypatch, fused):
    """In blocks that cut elements and experts; several alphas in one pass, and one of the tensors has its own."""
    model = model_of("mixtral", **MOE["mixtral"])
    pair = []
    for role in ("sft", "aligned"):
        pair.append(save_experts(tmp_path / role, model, role == fused, max_shard_size="10KB"))
        trained(model).bfloat16()
    monkeypatch.setattr(writer, "SPAN", 8192)
    monkeypatch.setattr(writer, "BLOCK", 3 * 4096)
    name = (
        "model.layers.1.mlp.experts.gate_up_proj"
        if fused == "aligned"
        else "layers.1.*experts.3.w[13].weight"
    )
    options = Options(dtype="float32", alpha_for=((f"{name}$", 2.0),))
    alphas = {str(alpha): tmp_path / f"alpha{alpha}" for alpha in (0, 0.5, 3)}
    recipes = extrapolate(*pair, alphas, options)
    assert len(list((tmp_path / "alpha3").glob("*.safetensors"))) > 3
    for alpha, folder in alphas.items():
        theta0, theta1, theta2 = (loaded(each) for each in (*pair, folder))
        for key, one in theta1.items():
            one, zero = one.double(), theta0[key].double()
            step = torch.full_like(one, float(alpha))
            if key == "model.layers.1.mlp.experts.gate_up_proj":
                step[0 if fused == "aligned" else 3 :] = 2.0
            want = one + step * (one - zero)
            torch.testing.assert_close(theta2[key].double(), want, rtol=1e-6, atol=1e-9)
        stored, streamed = load(folder), dict(tensors(*pair, float(alpha), options))
        assert stored.keys() == streamed.keys()
        assert all(torch.equal(bits(stored[key]), bits(streamed[key])) for key in stored)
    assert recipes["3"].elements == sum(each.numel() for each in load(pair[1]).values())
    assert recipes["3"].kinds.keys() == {"attention", "embeddings", "head", "mlp", "norms"}


@pytest.mark.parametrize("fused", ["sft", "aligned"])
@pytest.mark.parametrize("alpha", [0, -1])
def test_the_parents_themselves_in_another_layout(tmp_path, fused, alpha):
    """alpha -1 is theta0's values under theta1's names."""
    pair = experts_pair(tmp_path, "mixtral", fused, dtype=torch.bfloat16)
    theta1 = load(pair[1])
    streamed = dict(tensors(*pair, alpha))
    assert {name: each.shape for name, each in streamed.items()} == {
        name: theta1[name].shape for name in theta1
    }
    extrapolate(*pair, {str(alpha): tmp_path / "out"})
    parent, found = loaded(pair[1 + alpha]), loaded(tmp_path / "out")
    assert all(torch.equal(found[name], parent[name]) for name in parent)
    assert all(torch.equal(bits(streamed[name]), bits(each)) for name, each in load(tmp_path / "out").items())


def test_an_expert_that_is_missing_is_said(tmp_path):
    sft, aligned = experts_pair(tmp_path, "mixtral", "aligned")
    gone = "experts.3.w2"
    change_tensors(sft, lambda state: {name: each for name, each in state.items() if gone not in name})
    with pytest.raises(PairError) as raised:
        extrapolate(sft, aligned, {"0.5": tmp_path / "out"})
    (message,) = str(raised.value).splitlines()
    assert message.startswith(
        "tensor model.layers.0.mlp.experts.down_proj and 1 more of the class: sft and aligned store it"
    )
    assert (
        "its 2048 elements do not match the 1536 of its parts; load both models with transformers" in message
    )


def test_only_stacking_and_concatenating_are_followed():
    one, two = np.arange(6).reshape(2, 3), np.arange(10, 16).reshape(2, 3)
    merged = layout._converted([[one, two], []], ["MergeModulelist(dim=0)"])
    assert merged.shape == (2, 2, 3)
    fused = layout._converted([[one], [two]], ["MergeModulelist(dim=0)", "Concatenate(dim=1)"])
    assert fused.tolist() == [[[0, 1, 2], [3, 4, 5], [10, 11, 12], [13, 14, 15]]]
    for operations in (
        ["Transpose"],
        ["Chunk(dim=0)"],
        ["Concatenate(dim=2)"],
        ["MergeModulelist(dim=3)"],
        [],
    ):
        with pytest.raises(layout.UnknownLayoutError):
            layout._converted([[one], [two]], operations)


# Other names


VLM = {
    "text_config": {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                    "num_key_value_heads": 1, "vocab_size": 64, "bos_token_id": 0, "eos_token_id": 0,
                    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}},
    "vision_config": {"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4},
    **{f"{name}_token_id": 60 + at for at, name in enumerate(("image", "video", "vision_start", "vision_end"))},
}  # fmt: skip


@pytest.mark.parametrize("old", ["sft", "aligned"])
def test_prefixes_of_a_vision_language_model(tmp_path, old):
    """The hub's names of Qwen2-VL (model., visual.), and those of the module tree since 4.52."""
    torch.manual_seed(0)
    model = transformers.Qwen2VLForConditionalGeneration(transformers.Qwen2VLConfig(**VLM))
    pair = []
    for role in ("sft", "aligned"):
        pair.append(save(model, tmp_path / role))
        own = {name: each.clone() for name, each in model.state_dict().items()}

        def renamed(state, own=own, role=role):
            return state if role == old else own

        change_tensors(pair[-1], renamed)
        trained(model)
    assert ("visual.merger.mlp.0.weight" in load(pair[0])) == (old == "sft")
    require_right(*pair, tmp_path / "out")


def kimi():
    """A tiny Kimi K2.5."""
    torch.manual_seed(0)
    text = {
        "model_type": "deepseek_v3",
        "vocab_size": 64,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
    }
    text |= {
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "first_k_dense_replace": 1,
        "n_routed_experts": 4,
    }
    text |= {
        "q_lora_rank": 8,
        "kv_lora_rank": 8,
        "qk_rope_head_dim": 4,
        "qk_nope_head_dim": 4,
        "v_head_dim": 8,
    }
    text |= {"bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "patch_size": 4,
    }
    config = transformers.Kimi_K25Config(text_config=text, vision_config=vision)
    return transformers.Kimi_K25ForConditionalGeneration(config)


def test_a_name_that_stands_for_two_tensors_is_not_taken_for_one(tmp_path):
    """The old norm1 of Kimi's vision tower is the new norm2."""
    model = kimi()
    sft = save(model, tmp_path / "sft")

    def renamed(state):
        later = {"norm0": "norm1", "norm1": "norm2"}
        return {re.sub("norm[01]", lambda old: later[old[0]], name): each for name, each in state.items()}

    aligned = change_tensors(save(trained(model), tmp_path / "aligned"), renamed)
    norm1 = next(name for name in load(sft) if name.endswith("blocks.0.norm1.weight"))
    assert ask(open_checkpoint(sft)).place(norm1).endswith("norm2.weight")
    require_right(sft, aligned, tmp_path / "out")


def saved_again(folder, model, target):
    """The remedy for two layouts."""
    type(model).from_pretrained(folder).save_pretrained(target, save_original_format=False)
    shutil.copy(folder / "tokenizer.json", target)
    return target


def test_a_fused_layout_that_is_not_followed_is_refused_and_the_remedy_works(tmp_path):
    """The hub's wqkv of Kimi's vision tower against the modules' q_proj, k_proj and v_proj."""
    model = kimi()
    sft = save(model, tmp_path / "sft")
    own = {name: each.clone() for name, each in trained(model).state_dict().items()}
    aligned = change_tensors(save(model, tmp_path / "aligned"), lambda state: own)
    (message,) = open_pair(sft, aligned).errors
    assert (
        "store it in two layouts, and the operation Chunk(dim=0) is not supported here; load both" in message
    )
    again = [saved_again(folder, model, tmp_path / f"{folder.name}-again") for folder in (sft, aligned)]
    require_right(*again, tmp_path / "out")


@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_embeddings_of_t5_that_one_side_stores_three_times(tmp_path, role):
    torch.manual_seed(0)
    sizes = {"vocab_size": 64, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))
    pair = {"sft": save(model, tmp_path / "sft"), "aligned": save(trained(model), tmp_path / "aligned")}
    copies = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    change_tensors(pair[role], lambda state: state | dict.fromkeys(copies, state["shared.weight"]))
    require_right(*pair.values(), tmp_path / "out")


def test_a_transposed_layout_is_refused_and_the_remedy_works(tmp_path):
    """Qwen3-VL-MoE of transformers 4 has its experts the other way round, under the same name."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
    text = VLM["text_config"] | {
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 12,
    }
    text |= {"head_dim": 8, "decoder_sparse_step": 1, "rope_parameters": rope}
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_heads": 2,
        "patch_size": 4,
        "out_hidden_size": 16,
    }
    vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = transformers.Qwen3VLMoeConfig(**VLM | {"text_config": text, "vision_config": vision})
    model = transformers.Qwen3VLMoeForConditionalGeneration(config)
    name = "model.language_model.layers.0.mlp.experts.gate_up_proj"
    sft = change_tensors(
        save(model, tmp_path / "sft"), lambda state: state | {name: state[name].transpose(1, 2)}
    )
    aligned = save(trained(model), tmp_path / "aligned")
    (message,) = open_pair(sft, aligned).errors
    assert message.startswith(
        f"tensor {name} is 4x16x24 in sft and 4x24x16 in aligned: one tensor of its class in two layouts"
    )
    again = [saved_again(folder, model, tmp_path / f"{folder.name}-again") for folder in (sft, aligned)]
    require_right(*again, tmp_path / "out")


# What no class loads


def with_more(folder, **more):
    return change_tensors(folder, lambda state: state | more)


def test_layers_that_the_class_leaves_out(tmp_path):
    """For predicting several tokens: the aligned model's are kept, the SFT model's left out."""
    sft, aligned = experts_pair(tmp_path, "ernie4_5_moe", None)
    extra = torch.rand(4, 4)
    with_more(sft, **{"model.mtp_block.0.a.weight": extra})
    with_more(aligned, **{"model.mtp_block.0.b.weight": extra})
    extrapolate(sft, aligned, {"0.5": tmp_path / "out"})
    out = load(tmp_path / "out")
    assert torch.equal(out["model.mtp_block.0.b.weight"], extra)
    assert "model.mtp_block.0.a.weight" not in out
    assert notes(open_pair(sft, aligned)) == [
        "tensors that their class does not load in sft only are left out: model.mtp_block.0.a.weight",
        "tensors that their class does not load in aligned only are kept as they are: model.mtp_block.0.b.weight",
    ]
    theta0, theta1, theta2 = (loaded(each) for each in (sft, aligned, tmp_path / "out"))
    name = "model.layers.1.mlp.experts.gate_up_proj"
    want = theta1[name].double() + 0.5 * (theta1[name].double() - theta0[name].double())
    torch.testing.assert_close(theta2[name].double(), want, rtol=1e-6, atol=1e-9)


LEFT = {
    "a value head": (
        "v_head.summary.weight",
        "the value head of TRL's PPO; load the model with transformers",
    ),
    "what is unknown": (
        "strange.weight",
        r"not in .* \(its class does not know it: load the model with transformers",
    ),
}


@pytest.mark.parametrize("case", LEFT)
@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_tensors_beside_the_model_are_named_and_the_remedy_works(tmp_path, case, role):
    name, message = LEFT[case]
    pair = dict(zip(("sft", "aligned"), save_pair("llama", tmp_path), strict=True))
    with_more(pair[role], **{name: torch.ones(1, 16)})
    with pytest.raises(PairError, match=message) as raised:
        extrapolate(*pair.values(), {"0.5": tmp_path / "out"})
    assert len(str(raised.value).splitlines()) == 1
    again = transformers.AutoModelForCausalLM.from_pretrained(pair[role])
    pair[role] = save(again, tmp_path / "again")
    require_right(*pair.values(), tmp_path / "out")


def test_a_value_head_on_both_sides_is_named_too(tmp_path):
    pair = [
        with_more(each, **{"v_head.summary.weight": torch.ones(1, 16)})
        for each in save_pair("llama", tmp_path)
    ]
    assert [error.partition(": the value head")[0] for error in open_pair(*pair).errors] == [
        "sft: tensor v_head.summary.weight",
        "aligned: tensor v_head.summary.weight",
    ]


@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_a_tensor_that_the_class_needs_is_named(tmp_path, role):
    pair = dict(zip(("sft", "aligned"), save_pair("llama", tmp_path), strict=True))
    other = {"sft": "aligned", "aligned": "sft"}[role]
    change_tensors(
        pair[role], lambda state: {name: each for name, each in state.items() if name != "model.norm.weight"}
    )
    assert open_pair(*pair.values()).errors == [
        f"tensor model.norm.weight: in {other}, not in {role} (its class needs it; give the whole {role} model)"
    ]


WRAPPED = {
    "_orig_mod.": ("_orig_mod.{}", "torch.compile"),
    "module.": ("module.{}", "DataParallel or DeepSpeed"),
    "_fsdp_wrapped_module.": ("_fsdp_wrapped_module.{}", "FSDP"),
    "an inner model that was compiled": ("model._orig_mod.{}", "torch.compile"),
    "layers with activation checkpointing": (
        "layers.0._checkpoint_wrapped_module.{}",
        "activation checkpointing",
    ),
    "an adapter": ("model.{}.base_layer.weight", "layers of an adapter that was not merged; merge it"),
}


@pytest.mark.parametrize("case", WRAPPED)
@pytest.mark.parametrize("roles", [("sft",), ("sft", "aligned")])
def test_what_wrapped_a_model_is_named(tmp_path, case, roles):
    pattern, what = WRAPPED[case]
    pair = dict(zip(("sft", "aligned"), save_pair("llama", tmp_path), strict=True))
    for role in roles:
        change_tensors(pair[role], lambda state: {pattern.format(name): each for name, each in state.items()})
    errors = open_pair(*pair.values()).errors
    if not pattern.startswith(tuple(WRAPPERS)):  # what is wrapped is not found under its own name
        errors = [error for error in errors if "in aligned, not in sft" not in error]
    assert [error.partition(":")[0] for error in errors] == list(roles)
    assert all(what in error for error in errors)


@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_names_of_another_tool_are_not_left_out(tmp_path, role):
    """To load such a model and save it again would make all its weights random."""
    pair = dict(zip(("sft", "aligned"), save_pair("llama", tmp_path), strict=True))
    change_tensors(pair[role], lambda state: {f"llm.{name}": each for name, each in state.items()})
    (error,) = (each for each in open_pair(*pair.values()).errors if f"in {role}, not in" in each)
    assert error.startswith("tensor llm.lm_head.weight and 11 more")
    assert error.endswith(f"and needs lm_head.weight: save {role} with the names that its class has)")


def test_a_tensor_under_two_of_its_names_is_said_and_the_remedy_works(tmp_path):
    sft, aligned = save_pair("llama", tmp_path)
    norm = load(sft)["model.norm.weight"]
    with_more(sft, **{"norm.weight": norm + 1})
    assert open_pair(sft, aligned).errors == [
        "tensor norm.weight: in sft, not in aligned (its class loads it and model.norm.weight, which is there too, as one tensor;"
        " delete one of them)"
    ]
    change_tensors(sft, lambda state: {name: each for name, each in state.items() if name != "norm.weight"})
    require_right(sft, aligned, tmp_path / "out")
