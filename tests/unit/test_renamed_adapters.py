"""Adapters whose modules have other names than the base's tensors: vision-language models, renamed gates, against peft."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from expoflow.cli import main
from expoflow.errors import PairError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import open_pair
from expoflow.extrapolation.tensor_stream import tensors
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from small_models import change_tensors, image_text_model, loaded, model_of, save
from transformers import AutoModelForImageTextToText

ALPHA = 0.5
# The names that the attention of language model and vision tower has in the tree of modules and in the files.
NAMES = {
    "qwen2_vl": ("model.language_model.layers.0", "model.layers.0"),
    "llava": ("model.language_model.layers.0", "language_model.model.layers.0"),
    "gemma3": ("model.language_model.layers.0", "language_model.model.layers.0"),
}


def train(base: Path, folder: Path, **settings) -> Path:
    torch.manual_seed(1)
    model = get_peft_model(AutoModelForImageTextToText.from_pretrained(base), LoraConfig(r=2, **settings))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 1e-2 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def require_right(base: Path, adapter: Path, out: Path) -> None:
    """The result against peft's merge, whole and streamed."""
    theta0 = loaded(base)
    served = PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), adapter)
    theta1 = served.merge_and_unload().state_dict()
    extrapolate(base, adapter, {"0.5": out}, Options(dtype="float32"))
    theta2 = loaded(out)
    moved = 0
    for name, zero in theta0.items():
        expected = zero.double() + (1 + ALPHA) * (theta1[name].double() - zero.double())
        torch.testing.assert_close(theta2[name].double(), expected, rtol=1e-5, atol=1e-7)
        moved += not torch.equal(zero, theta1[name])
    assert moved
    stored = load_file(out / "model.safetensors")
    assert all(
        torch.equal(stored[name], each)
        for name, each in tensors(base, adapter, ALPHA, Options(dtype="float32"))
    )


@pytest.mark.parametrize("kind", NAMES)
def test_modules_of_a_vision_language_model(tmp_path, kind):
    base = save(image_text_model(kind), tmp_path / "base")
    module, stored = NAMES[kind]
    assert any(name.startswith(stored) for name in load_file(base / "model.safetensors"))
    adapter = train(
        base,
        tmp_path / "lora",
        target_modules=r".*(q_proj|o_proj|proj|out_proj)",
        exclude_modules=".*patch.*",
    )
    names = load_file(adapter / "adapter_model.safetensors")
    assert any(name.startswith(f"base_model.model.{module}") for name in names)
    assert any("vi" in name.removeprefix("base_model.model.") for name in names)  # visual, vision_tower
    require_right(base, adapter, tmp_path / "out")
    older = tmp_path / "older"  # trained when the modules had the names of the files
    shutil.copytree(adapter, older)
    renamed = {name.replace(module, stored): each for name, each in names.items()}
    save_file(renamed, older / "adapter_model.safetensors", {"format": "pt"})
    again, before = dict(tensors(base, older, ALPHA)), dict(tensors(base, adapter, ALPHA))
    assert all(torch.equal(again[name], before[name]) for name in before)


def test_whole_modules_of_a_vision_language_model(tmp_path):
    base = save(image_text_model("qwen2_vl"), tmp_path / "base")
    adapter = train(base, tmp_path / "lora", target_modules=["q_proj"], modules_to_save=["merger", "lm_head"])
    assert open_pair(base, adapter).errors == []
    require_right(base, adapter, tmp_path / "out")


def test_preflight_of_an_adapter_with_other_names(tmp_path, capsys):
    base = save(image_text_model("llava"), tmp_path / "base")
    adapter = train(base, tmp_path / "lora", target_modules=["q_proj"])
    assert main(["preflight", "--sft", str(base), "--aligned", str(adapter)]) == 0
    assert "0 errors" in capsys.readouterr().out


def lora(folder: Path, module: str, shape: tuple[int, int]) -> Path:
    """An adapter on one module, written as peft writes it."""
    folder.mkdir()
    random = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, shape[1], generator=random), 1e-2 * torch.randn(shape[0], 2, generator=random)
    prefix = f"base_model.model.{module}"
    save_file(
        {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}, folder / "adapter_model.safetensors"
    )
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": [module.rpartition(".")[2]]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_a_gate_that_was_renamed_and_experts_that_were_fused(tmp_path):
    """Mixtral's gate was block_sparse_moe.gate until transformers 5; single experts are one tensor since."""
    model = model_of("mixtral")
    hub = save(model, tmp_path / "hub")
    own = tmp_path / "own"
    shutil.copytree(hub, own)
    model.save_pretrained(own, save_original_format=False)
    old, new = "model.layers.0.block_sparse_moe.gate", "model.layers.0.mlp.gate"
    adapter = lora(tmp_path / "gate", old, (2, 16))
    file = load_file(adapter / "adapter_model.safetensors")
    a, b = (file[f"base_model.model.{old}.lora_{part}.weight"].double() for part in "AB")
    for base, name in ((hub, f"{old}.weight"), (own, f"{new}.weight")):
        theta0, theta2 = load_file(base / "model.safetensors"), dict(tensors(base, adapter, ALPHA))
        expected = theta0[name].double() + (1 + ALPHA) * b @ a
        torch.testing.assert_close(theta2[name].double(), expected, rtol=1e-6, atol=1e-9)
    expert = lora(tmp_path / "expert", "model.layers.0.block_sparse_moe.experts.0.w1", (32, 16))
    assert dict(tensors(hub, expert, ALPHA))
    with pytest.raises(
        PairError, match="the base's class makes one tensor of it and others; merge it with peft"
    ):
        open_pair(own, expert)


def test_a_module_that_is_nowhere_is_refused(tmp_path):
    base = save(image_text_model("llava"), tmp_path / "base")
    with pytest.raises(
        PairError, match=r"module layers.9.self_attn.q_proj: not in the base; give the adapter's own base"
    ):
        open_pair(base, lora(tmp_path / "lora", "layers.9.self_attn.q_proj", (32, 32)))


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_what_wrapped_the_trained_model_is_no_part_of_a_name(tmp_path, prefix):
    base = save(model_of("llama"), tmp_path / "base")
    module = "model.layers.0.self_attn.q_proj"
    plain, wrapped = (
        lora(tmp_path / "plain", module, (16, 16)),
        lora(tmp_path / "wrapped", prefix + module, (16, 16)),
    )
    one, other = (dict(tensors(base, adapter, ALPHA)) for adapter in (plain, wrapped))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_base_whose_class_is_not_known(tmp_path):
    """Its names are taken as they stand; what may be tied must be said not to be."""
    base = save(model_of("llama"), tmp_path / "base")
    config = json.loads((base / "config.json").read_text()) | {"model_type": "our-own"}
    del config["tie_word_embeddings"]
    (base / "config.json").write_text(json.dumps(config))
    attention = lora(tmp_path / "attention", "model.layers.0.self_attn.q_proj", (16, 16))
    assert open_pair(base, attention).errors == []
    head = lora(tmp_path / "head", "lm_head", (64, 16))
    with pytest.raises(PairError, match="write tie_word_embeddings: false into") as error:
        open_pair(base, head)
    assert "cannot read its config.json (model_type 'our-own')" in str(error.value)
    (base / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
    theta0, theta2 = load_file(base / "model.safetensors"), dict(tensors(base, head, ALPHA))
    assert not torch.equal(theta0["lm_head.weight"], theta2["lm_head.weight"])
    other = lora(tmp_path / "other", "layers.0.self_attn.q_proj", (16, 16))
    with pytest.raises(PairError, match="not in the base under this name, and its class cannot be asked"):
        open_pair(base, other)


def test_other_names_on_a_base_of_shards_and_prefixes(tmp_path):
    base = save(model_of("gpt2"), tmp_path / "base")
    change_tensors(
        base, lambda state: {name.removeprefix("transformer."): each for name, each in state.items()}
    )
    adapter = lora(
        tmp_path / "lora", "transformer.h.0.attn.c_proj", (16, 16)
    )  # square, and stored as (in, out)
    file = load_file(adapter / "adapter_model.safetensors")
    a, b = (
        file[f"base_model.model.transformer.h.0.attn.c_proj.lora_{part}.weight"].double() for part in "AB"
    )
    name = "h.0.attn.c_proj.weight"
    theta0, theta2 = load_file(base / "model.safetensors"), dict(tensors(base, adapter, ALPHA))
    torch.testing.assert_close(
        theta2[name].double(), theta0[name].double() + 1.5 * (b @ a).T, rtol=1e-6, atol=1e-9
    )
