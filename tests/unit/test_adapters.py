"""LoRA adapters as the aligned side, against peft: what it merges, and what it makes of a scaled adapter."""

import json
import os
import shutil

import pytest
import torch
from adapters import load_base, merged, save_base, train, with_adapter
from checkpoints import load, same_bits
from expoflow import checks
from expoflow.checks import machine
from expoflow.cli import main
from expoflow.engines.memory import headers
from expoflow.engines.model import Model
from expoflow.errors import CheckpointError, ConfigError, PairError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import open_pair
from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors
from expoflow.files.records import read_json
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

ALPHA = 0.3
KINDS = {
    "all linear layers": {"r": 8, "lora_alpha": 16, "target_modules": "all-linear"},
    "rslora and patterns": {
        "r": 4,
        "use_rslora": True,
        "target_modules": ["q_proj", "down_proj", "up_proj"],
        "rank_pattern": {"down_proj": 2},
        "alpha_pattern": {"layers.1.self_attn.q_proj": 5},
    },
    "modules to save": {"r": 4, "target_modules": ["v_proj"], "modules_to_save": ["lm_head", "norm"]},
    "embedding": {"r": 4, "target_modules": ["embed_tokens", "o_proj"]},
    "head, and embedding whole": {
        "r": 4,
        "target_modules": ["lm_head"],
        "modules_to_save": ["embed_tokens"],
    },
}


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def formula(base, theta1, alpha):
    """base + (1 + alpha) * (theta1 - base) in float64."""
    return {
        name: base[name].double() + (1 + alpha) * (theta1[name].double() - base[name].double())
        for name in base
    }


def ulp(values):
    """Distance to the next bfloat16."""
    return 2.0 ** (values.double().abs().clamp(min=1e-30).log2().floor() - 7)


def largest(one, two):
    return max((one[name].double() - two[name].double()).abs().max().item() for name in one)


@pytest.mark.parametrize("kind", KINDS)
def test_a_float32_base(tmp_path, kind):
    base = save_base(tmp_path / "base", torch.float32)
    adapter = train(base, tmp_path / "lora", **KINDS[kind])
    theta1 = merged(base, adapter)
    assert largest(theta1, load(base)) > 1e-4
    assert largest(theta1, dict(tensors(base, adapter, 0))) < 1e-6
    assert largest(formula(load(base), theta1, ALPHA), dict(tensors(base, adapter, ALPHA))) < 1e-6


@pytest.mark.parametrize("kind", KINDS)
def test_a_bfloat16_base_is_rounded_once(tmp_path, kind):
    """peft's merge in float64, extrapolated and rounded, is what is written, bit for bit."""
    base = save_base(tmp_path / "base")
    adapter = train(base, tmp_path / "lora", **KINDS[kind])
    theta1 = merged(base, adapter, torch.float64)
    for alpha in (0, ALPHA, -0.5, -1):
        exact = {name: value.bfloat16() for name, value in formula(load(base), theta1, alpha).items()}
        ours = dict(tensors(base, adapter, alpha))
        assert all(torch.equal(ours[name], exact[name]) for name in exact if "proj" in name)
        for name, value in exact.items():
            near = ulp(value) + 2.0**-24 * theta1[name].abs()  # where theta1 and alpha * delta cancel
            assert ((ours[name].double() - value.double()).abs() <= near).all()
    # Its own merge in bfloat16 rounds delta before the sum where that is an embedding's.
    theirs, ours = merged(base, adapter), dict(tensors(base, adapter, 0))
    for name, value in theirs.items():
        size = torch.maximum(value.abs(), (value - load(base)[name]).abs())
        assert ((value.double() - ours[name].double()).abs() <= ulp(size)).all()


@pytest.mark.parametrize("shards", [1, 3])
def test_stored_is_streamed(tmp_path, shards):
    base = save_base(tmp_path / "base", shards=shards)
    adapter = train(base, tmp_path / "lora", **KINDS["embedding"])
    extrapolate(base, adapter, {"0.3": tmp_path / "a", "1": tmp_path / "b"})
    for alpha, folder in ((0.3, "a"), (1, "b")):
        assert same_bits(
            dict(sorted(load(tmp_path / folder).items())), dict(sorted(tensors(base, adapter, alpha)))
        )
        names = {path.name for path in (tmp_path / folder).glob("*.safetensors")}
        assert names == {path.name for path in base.glob("*.safetensors")}
    assert not (tmp_path / "a" / ".source.json").exists()
    assert not list((tmp_path / "store").rglob("*.safetensors"))  # nothing merged lies anywhere


def test_untouched_tensors_keep_their_bits(tmp_path):
    base = save_base(tmp_path / "base")
    adapter = train(base, tmp_path / "lora", r=2, target_modules=["q_proj"])
    theta2 = dict(tensors(base, adapter, 7))
    for name, value in load(base).items():
        assert torch.equal(theta2[name], value) != ("q_proj" in name)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_scaled_adapter_served_by_peft_is_the_merged_model(tmp_path, kind, dtype):
    base = save_base(tmp_path / "base", dtype)
    adapter = train(base, tmp_path / "lora", **KINDS[kind])
    extrapolate(base, adapter, {"0.3": tmp_path / "model"}, Options(dtype="float32"))
    recipe = extrapolate(base, adapter, {"0.3": tmp_path / "scaled"}, as_adapter=True)["0.3"]
    assert recipe.effective_alpha == pytest.approx(0.3, rel=1e-3)
    ids = torch.arange(64).view(4, 16)
    with torch.no_grad():
        served = with_adapter(base, tmp_path / "scaled", torch.float32)(ids).logits
        whole = load_base(tmp_path / "model")(ids).logits
        before = with_adapter(base, adapter, torch.float32)(ids).logits
    # What is stored whole has the adapter's own type, which may be bfloat16.
    close = 2e-2 if dtype == torch.bfloat16 and "whole" in kind + " whole" * ("save" in kind) else 1e-5
    torch.testing.assert_close(served, whole, rtol=0, atol=close * whole.abs().max().item())
    assert (served - before).abs().max() > 10 * (served - whole).abs().max()


def test_the_scaled_adapter_changes_b_alone(tmp_path):
    base = save_base(tmp_path / "base")
    adapter = train(base, tmp_path / "lora", **KINDS["all linear layers"])
    extrapolate(base, adapter, {"0.3": tmp_path / "scaled"}, as_adapter=True)
    before, after = load(adapter), load(tmp_path / "scaled")
    assert list(before) == list(after)
    for name, value in before.items():
        expected = (value.double() * 1.3).to(value.dtype) if "lora_B" in name else value
        torch.testing.assert_close(after[name], expected, rtol=1e-6, atol=0)
        assert after[name].dtype == value.dtype
    settings = (adapter / "adapter_config.json").read_bytes()
    assert (tmp_path / "scaled" / "adapter_config.json").read_bytes() == settings
    # and it is an adapter like any other, whose B is rounded to its own type
    theta2 = dict(tensors(base, adapter, ALPHA))
    for name, value in tensors(base, tmp_path / "scaled", 0):
        assert ((value.double() - theta2[name].double()).abs() <= ulp(theta2[name])).all()
        assert (value != theta2[name]).float().mean() < 1e-3


def test_biases_and_conv1d(tmp_path):
    """GPT-2 keeps its weights as (in, out), has biases, square weights among them, and ties its head."""
    shape = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 320, "n_positions": 64}
    torch.manual_seed(0)
    GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(tmp_path / "base")
    adapter = train(
        tmp_path / "base",
        tmp_path / "lora",
        r=4,
        target_modules=["c_attn", "c_proj", "c_fc"],
        bias="all",
        fan_in_fan_out=True,
    )
    assert any(name.endswith(".bias") for name in load(adapter))
    theta1 = merged(tmp_path / "base", adapter)
    ours = dict(tensors(tmp_path / "base", adapter, 0))
    theta1 = {name: theta1[name] for name in ours}
    assert largest(theta1, ours) < 1e-6
    theta2 = dict(tensors(tmp_path / "base", adapter, ALPHA))
    assert largest(formula(load(tmp_path / "base"), theta1, ALPHA), theta2) < 1e-6
    # checkpoints of the hub lack the outer prefix
    plain = {name.removeprefix("transformer."): value for name, value in load(tmp_path / "base").items()}
    shutil.copytree(tmp_path / "base", tmp_path / "plain")
    save_file(plain, tmp_path / "plain" / "model.safetensors", metadata={"format": "pt"})
    again = dict(tensors(tmp_path / "plain", adapter, ALPHA))
    assert all(torch.equal(again[name.removeprefix("transformer.")], value) for name, value in theta2.items())


def test_lora_bias(tmp_path):
    base = tmp_path / "base"
    torch.manual_seed(0)
    shape = {"n_embd": 32, "n_layer": 1, "n_head": 4, "vocab_size": 320, "n_positions": 64}
    GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(base)
    adapter = train(
        base, tmp_path / "lora", r=4, lora_bias=True, fan_in_fan_out=True, target_modules=["c_fc"]
    )
    theta1, ours = merged(base, adapter), dict(tensors(base, adapter, 0))
    name = "transformer.h.0.mlp.c_fc.bias"
    assert (ours[name] - load(base)[name]).abs().max() > 1e-3
    assert largest({name: theta1[name] for name in ours}, ours) < 1e-6


def test_more_tokens_than_the_base(tmp_path):
    """Tokens were added before training: embedding and head are stored whole, with more rows."""
    from peft import LoraConfig, get_peft_model

    base = save_base(tmp_path / "base")
    model = load_base(base)
    model.resize_token_embeddings(328, mean_resizing=False)
    model = get_peft_model(
        model,
        LoraConfig(
            task_type="CAUSAL_LM", target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]
        ),
    )
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 1e-2
    model.save_pretrained(tmp_path / "lora")
    shutil.copy(base / "tokenizer.json", tmp_path / "lora")
    with pytest.raises(
        PairError, match=r"lm_head\.weight is 320x32 in sft and 328x32 in aligned; set vocabulary"
    ):
        dict(tensors(base, tmp_path / "lora", ALPHA))
    options = Options(vocabulary="shared_rows")
    extrapolate(base, tmp_path / "lora", {"0.3": tmp_path / "out"}, options)
    theta0, theta2, file = load(base), load(tmp_path / "out"), load(tmp_path / "lora")
    name = "lm_head.weight"
    theta1 = file[f"base_model.model.{name}"]
    expected = theta0[name].double() + 1.3 * (theta1[:320].double() - theta0[name].double())
    assert torch.equal(theta2[name], torch.cat([expected.bfloat16(), theta1[320:].bfloat16()]))
    assert load_base(tmp_path / "out").config.vocab_size == 328
    assert same_bits(theta2, dict(sorted(tensors(base, tmp_path / "lora", ALPHA, options))))
    extrapolate(base, tmp_path / "lora", {"0.3": tmp_path / "scaled"}, options, as_adapter=True)
    scaled = load(tmp_path / "scaled")
    assert torch.equal(scaled[f"base_model.model.{name}"], theta2[name])
    assert torch.equal(scaled["base_model.model.lm_head.modules_to_save.weight"], theta2[name])


def test_an_old_adapter_is_a_pickle(tmp_path):
    base = save_base(tmp_path / "base")
    adapter = train(base, tmp_path / "lora", **KINDS["modules to save"])
    old = shutil.copytree(adapter, tmp_path / "old")
    torch.save(load_file(old / "adapter_model.safetensors"), old / "adapter_model.bin")
    (old / "adapter_model.safetensors").unlink()
    assert same_bits(dict(tensors(base, old, ALPHA)), dict(tensors(base, adapter, ALPHA)))
    extrapolate(base, old, {"0.3": tmp_path / "scaled"}, as_adapter=True)
    assert (tmp_path / "scaled" / "adapter_config.json").is_file()


def test_the_recipe_says_what_the_adapter_is(tmp_path):
    base = save_base(tmp_path / "base")
    adapter = train(base, tmp_path / "lora", **KINDS["rslora and patterns"])
    extrapolate(base, adapter, {"0.3": tmp_path / "out"}, Options(hash_outputs=True))
    recipe = read_json(tmp_path / "out" / "recipe.json", ExtrapolationRecipe)
    assert set(recipe.aligned.weights) == {"adapter_config.json", "adapter_model.safetensors"}
    assert recipe.aligned.adapter.ranks == [2, 4]
    assert recipe.aligned.adapter.scalings == pytest.approx([2.5, 4, 8 / 2**0.5])
    assert recipe.aligned.adapter.modules == 6
    assert set(recipe.outputs) == {"model.safetensors"}
    assert recipe.effective_alpha == pytest.approx(0.3, rel=0.01)
    # another scaling is another model, though the tensors are the same
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"lora_alpha": 3}))
    other = extrapolate(base, adapter, {"0.3": tmp_path / "other"})["0.3"]
    assert other.content_digest() != recipe.content_digest()


def test_aligned_alone_depends_on_the_base_too(tmp_path):
    """The responses of alpha 0 are kept by content."""
    adapter = train(save_base(tmp_path / "base"), tmp_path / "lora", r=2, target_modules=["q_proj"])
    other = save_base(tmp_path / "other")
    values = load(other)
    save_file({name: each * 2 for name, each in values.items()}, other / "model.safetensors")
    digests = {
        extrapolate(base, adapter, {"0": tmp_path / f"{base.name}-0"}, write_weights=False)[
            "0"
        ].content_digest()
        for base in (tmp_path / "base", other)
    }
    assert len(digests) == 2


def test_the_adapters_tokenizer_wins(tmp_path):
    base = save_base(tmp_path / "base")
    (base / "chat_template.jinja").write_text("the base's")
    (base / "generation_config.json").write_text("{}")
    adapter = train(base, tmp_path / "lora", r=2, target_modules=["q_proj"])
    (adapter / "chat_template.jinja").write_text("the adapter's")
    extrapolate(base, adapter, {"1": tmp_path / "one"})
    assert (tmp_path / "one" / "chat_template.jinja").read_text() == "the adapter's"
    assert (tmp_path / "one" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert (tmp_path / "one" / "config.json").read_bytes() == (base / "config.json").read_bytes()
    (adapter / "chat_template.jinja").unlink()
    (adapter / "tokenizer_config.json").write_text("{}")  # a whole tokenizer, which has no template
    shutil.copy(base / "tokenizer.json", adapter)
    extrapolate(base, adapter, {"1": tmp_path / "two"})
    assert not (tmp_path / "two" / "chat_template.jinja").exists()
    assert (tmp_path / "two" / "generation_config.json").exists()


def test_more_tokens_than_a_base_that_ties_its_head(tmp_path):
    """peft saves embedding and head then; they are one."""
    from peft import LoraConfig, get_peft_model

    base = save_base(tmp_path / "base", tied=True)
    model = load_base(base)
    model.resize_token_embeddings(328, mean_resizing=False)
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"]))
    model.save_pretrained(tmp_path / "lora")
    assert "base_model.model.lm_head.weight" in load(tmp_path / "lora")
    theta2 = dict(tensors(base, tmp_path / "lora", 1, Options(vocabulary="shared_rows")))
    assert theta2["model.embed_tokens.weight"].shape == (328, 32)
    assert "lm_head.weight" not in theta2
    values = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    for name in values:
        values[name] = values[name] + 0.5 * ("embed_tokens" in name or "lm_head" in name)
    save_file(values, tmp_path / "lora" / "adapter_model.safetensors")
    options = Options(vocabulary="shared_rows")
    extrapolate(base, tmp_path / "lora", {"1": tmp_path / "out"}, options, as_adapter=True)
    twice = load(tmp_path / "out")
    assert torch.equal(
        twice["base_model.model.lm_head.weight"], twice["base_model.model.model.embed_tokens.weight"]
    )


def test_a_float64_base_is_read_and_not_written(tmp_path):
    base = save_base(tmp_path / "base", torch.float64)
    adapter = train(base, tmp_path / "lora", **KINDS["all linear layers"])
    theta1, pair = merged(base, adapter), open_pair(base, adapter)
    for _ in range(2):
        assert all(
            torch.allclose(pair.aligned.values(name), value.flatten(), rtol=0, atol=1e-12)
            for name, value in theta1.items()
        )


def config(models, **pair):
    return {
        "models": {**models, "reward": {"path": "reward"}},
        "pairs": {"mine": {"alphas": [1], **pair}},
        "prompts": {"dev": {"file": "dev.jsonl"}},
        "reward_model": "reward",
    }


def test_a_config_without_sft_takes_the_base(good, tmp_path):
    made = checks.parse(config({"lora": {"path": str(good[1])}}, aligned="lora"))
    assert made.pairs["mine"].sft == "lora-base"
    assert made.models["lora-base"].path == str(good[0])
    adapter = shutil.copytree(good[1], tmp_path / "lora")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    hub = {"base_model_name_or_path": "org/base", "revision": "v1"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings | hub))
    made = checks.parse(config({"lora": {"path": "lora"}}, aligned="lora"), tmp_path)
    assert made.models["lora-base"].hub == "org/base"
    assert made.models["lora-base"].revision == "v1"
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"base_model_name_or_path": None}))
    with pytest.raises(ConfigError, match=r"pairs\.mine\.sft: .* names no base model; give the base as sft"):
        checks.parse(config({"lora": {"path": str(adapter)}}, aligned="lora"))
    with pytest.raises(ConfigError, match=r"pairs\.mine\.sft: missing; add it"):
        checks.parse(config({"plain": {"path": str(good[0])}}, aligned="plain"))


def test_a_config_is_checked_for_adapters_that_are_refused(good, tmp_path):
    adapter = shutil.copytree(good[1], tmp_path / "lora")
    settings = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(settings | {"use_dora": True}))
    models = {"base": {"path": str(good[1])}, "lora": {"path": str(adapter)}}
    with pytest.raises(ConfigError) as caught:
        machine.check_sources(checks.parse(config(models, sft="base", aligned="lora")))
    text = str(caught.value)
    assert "models.lora.path: " in text
    assert "use_dora" in text
    assert "pairs.mine.sft: 'base' is an adapter; name a whole model" in text


def run(*arguments):
    return main([str(each) for each in arguments])


def test_the_command_line(tmp_path, capsys, monkeypatch):
    base = save_base(tmp_path / "base")
    adapter = train(base, tmp_path / "lora", **KINDS["modules to save"])
    assert run("preflight", "--aligned", adapter) == 0
    text = capsys.readouterr().out
    assert "aligned is a LoRA adapter, rank 4, scaling 2, 2 modules, 6 tensors stored whole; 8 of 21" in text
    assert text.endswith("0 errors; 21 of 21 tensors to extrapolate\n")
    assert run("inspect", adapter) == 0
    text = capsys.readouterr().out
    assert f"base          {base}" in text
    assert "whole         lm_head.weight" in text
    out = tmp_path / "out"
    assert run("extrapolate", "--aligned", adapter, "--alpha", "0.3", "--out", out, "--dry-run") == 0
    assert run("extrapolate", "--aligned", adapter, "--alpha", "0.3", "--out", out) == 0
    assert same_bits(load(out), dict(sorted(tensors(base, adapter, ALPHA))))
    assert run("inspect", out) == 0
    assert f"aligned       {adapter} (LoRA adapter, rank 4, scaling 2)" in capsys.readouterr().out
    scaled = [
        "extrapolate",
        "--aligned",
        adapter,
        "--as",
        "adapter",
        "--hash-outputs",
        "--out",
        tmp_path / "s",
    ]
    assert run(*scaled, "--alpha", "0.3", "--alpha", "1") == 0
    assert sorted(os.listdir(tmp_path / "s")) == ["alpha=0.3", "alpha=1"]
    capsys.readouterr()
    assert run("inspect", tmp_path / "s" / "alpha=1") == 0
    text = capsys.readouterr().out
    assert "adapter       LoRA adapter, rank 4" in text
    assert "sha256        2 of 2 files as recorded" in text
    # where the base has moved
    base.rename(tmp_path / "elsewhere")
    assert run("extrapolate", "--aligned", adapter, "--alpha", "1", "--out", tmp_path / "o") == 2
    assert f"its base model '{base}' is not there; give the base as sft" in capsys.readouterr().err
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    settings = json.loads((adapter / "adapter_config.json").read_text())
    named = {"base_model_name_or_path": "expoflow-tests/nowhere"}
    (adapter / "adapter_config.json").write_text(json.dumps(settings | named))
    assert run("extrapolate", "--aligned", adapter, "--alpha", "1", "--out", tmp_path / "o") == 2
    assert "expoflow-tests/nowhere is not in the hub's cache; download it" in capsys.readouterr().err
    assert (
        run("extrapolate", "--aligned", tmp_path / "elsewhere", "--alpha", "1", "--out", tmp_path / "o") == 2
    )
    assert "is not an adapter, which would name its base" in capsys.readouterr().err


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    base = save_base(folder / "base")
    return base, train(base, folder / "lora", r=4, target_modules=["q_proj", "down_proj"])


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
LAST = "base_model.model.model.layers.1.self_attn.q_proj.lora_B.weight"


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        ({"use_dora": True}, None, "use_dora: DoRA scales the weights"),
        ({"peft_type": "IA3"}, None, "peft_type IA3, and only LORA"),
        ({"peft_type": "PROMPT_TUNING"}, None, "peft_type PROMPT_TUNING"),
        ({"init_lora_weights": "pissa_niter_4"}, None, "init_lora_weights pissa_niter_4: training began"),
        ({"layer_replication": [[0, 2], [1, 2]]}, None, "layer_replication: the base's layers are repeated"),
        ({"brand_new": 1}, None, "brand_new: an option that expoflow does not know"),
        ({"r": 8}, None, "factors of rank 4 and 4, adapter_config.json says 8"),
        ({}, lambda t: t.pop(LAST), "has lora_A.weight instead of an A and a B"),
        ({}, lambda t: t.update({"base_model.model.x.lora_E": torch.ones(1)}), "lora_E: unknown, and nothing"),
        ({}, lambda t: t.update({FIRST: t[FIRST].to(torch.int8)}), "is I8; save the adapter in"),
        ({}, lambda t: t.clear(), "holds no tensor"),
    ],
)  # fmt: skip
def test_adapters_that_are_refused(good, tmp_path, settings, change, message):
    adapter = shutil.copytree(good[1], tmp_path / "lora")
    before = json.loads((adapter / "adapter_config.json").read_text())
    (adapter / "adapter_config.json").write_text(json.dumps(before | settings))
    if change:
        values = load_file(adapter / "adapter_model.safetensors")
        change(values)
        save_file(values, adapter / "adapter_model.safetensors")
    with pytest.raises(CheckpointError) as caught:
        extrapolate(good[0], adapter, {"1": tmp_path / "out"})
    assert message in str(caught.value)
    assert str(adapter) in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ({"layers": 1}, "model.layers.1.self_attn.q_proj: not in the base; give the adapter's own base"),
        ({"hidden": 64}, "q_proj.weight is 32x32 in the adapter and 64x64 in the base"),
        ({"quantization_config": {"quant_method": "awq"}}, "sft (the adapter's base) is quantised (awq)"),
    ],
)  # fmt: skip
def test_another_base_is_refused(good, tmp_path, base, message):
    from checkpoints import save, weights

    shape = {name: base[name] for name in ("layers", "hidden") if name in base}
    other = save(tmp_path / "other", weights(**shape), **base)
    with pytest.raises(PairError) as caught:
        extrapolate(other, good[1], {"1": tmp_path / "out"})
    assert message in str(caught.value)


def test_tensors_without_a_place_in_the_base_are_refused(good, tmp_path):
    adapter = shutil.copytree(good[1], tmp_path / "lora")
    values = load_file(adapter / "adapter_model.safetensors")
    values["base_model.model.score.weight"] = torch.ones(1, 32)
    save_file(values, adapter / "adapter_model.safetensors")
    with pytest.raises(PairError, match=r"tensor score\.weight: in the adapter, not in the base"):
        extrapolate(good[0], adapter, {"1": tmp_path / "out"})


def test_an_adapter_is_no_sft(good, tmp_path):
    with pytest.raises(PairError, match="is an adapter; give a whole model"):
        extrapolate(good[1], good[0], {"1": tmp_path / "out"})
    with pytest.raises(PairError, match="is not an adapter; leave out --as adapter"):
        extrapolate(good[0], good[0], {"1": tmp_path / "out"}, as_adapter=True)
    with pytest.raises(PairError, match="keeps its types"):
        extrapolate(*good, {"1": tmp_path / "out"}, Options(dtype="float32"), as_adapter=True)


TIED = {
    "lora on the embedding": {"target_modules": ["embed_tokens", "q_proj"]},
    "lora on the head": {"target_modules": ["lm_head", "q_proj"]},
    "lora on both": {"target_modules": ["lm_head", "embed_tokens"]},
    "embedding whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "head whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "both whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("kind", TIED)
@pytest.mark.parametrize("shards", [1, 2])
def test_tied_weights_that_an_adapter_changes_apart(tmp_path, kind, shards):
    """With the adapter beside it, the base has two tensors: so has the result, whatever its config.json says of a tie."""
    base = save_base(tmp_path / "base", torch.float32, tied=True, shards=shards)
    adapter = train(base, tmp_path / "lora", r=2, **TIED[kind])
    untied = save_base(tmp_path / "untied", torch.float32)
    embedding = load(base)["model.embed_tokens.weight"]
    save_file(
        load(base) | {"lm_head.weight": embedding.clone()}, untied / "model.safetensors", {"format": "pt"}
    )
    theta0, theta1 = load(untied), merged(untied, adapter)
    assert not torch.equal(theta1["lm_head.weight"], theta1["model.embed_tokens.weight"])
    expected = formula(theta0, theta1, ALPHA)
    extrapolate(base, adapter, {"0.3": tmp_path / "out"})
    stored, streamed = load(tmp_path / "out"), dict(tensors(base, adapter, ALPHA))
    assert largest(expected, stored) < 1e-6
    assert all(torch.equal(stored[name], streamed[name]) for name in expected)
    result = load_base(tmp_path / "out")
    assert largest(expected, result.state_dict()) < 1e-6
    notes = [each.message for each in open_pair(base, adapter).findings if each.level == "note"]
    assert any("which the base ties to others: theta1 ties nothing" in each for each in notes)
    # and as an adapter on the base as it is, served by peft
    extrapolate(base, adapter, {"0.3": tmp_path / "scaled"}, as_adapter=True)
    ids = torch.arange(64).view(4, 16)
    with torch.no_grad():
        served, whole = (
            model(ids).logits for model in (with_adapter(base, tmp_path / "scaled", torch.float32), result)
        )
    torch.testing.assert_close(served, whole, rtol=0, atol=1e-5 * whole.abs().max().item())


def test_ties_of_biases_are_torn_too(tmp_path):
    """BERT ties its head's bias too, and a config says of all ties at once that there are none."""
    from transformers import BertConfig, BertLMHeadModel

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    config = BertConfig(**shape, vocab_size=320, is_decoder=True, tie_word_embeddings=True)
    BertLMHeadModel(config).save_pretrained(tmp_path / "base")
    adapter = train(tmp_path / "base", tmp_path / "lora", r=2, target_modules=["query", "word_embeddings"])
    extrapolate(tmp_path / "base", adapter, {"0.3": tmp_path / "out"})
    theta0, theta2 = (
        BertLMHeadModel.from_pretrained(tmp_path / name).state_dict() for name in ("base", "out")
    )
    head, bias = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
    assert torch.equal(theta0[head], theta2[head])
    assert torch.equal(theta0[bias], theta2[bias])
    file = load(adapter)
    a, b = (
        file[f"base_model.model.bert.embeddings.word_embeddings.lora_embedding_{part}"].double()
        for part in "AB"
    )
    name = "bert.embeddings.word_embeddings.weight"
    expected = theta0[name].double() + 1.3 * (8 / 2) * (b @ a).T
    torch.testing.assert_close(theta2[name].double(), expected, rtol=1e-6, atol=1e-7)


def test_an_encoder_decoder_is_not_untied(tmp_path):
    from transformers import T5Config, T5ForConditionalGeneration

    shape = {"d_model": 16, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 64}
    T5ForConditionalGeneration(T5Config(**shape)).save_pretrained(tmp_path / "base")
    folder = tmp_path / "lora"
    folder.mkdir()
    name = "base_model.model.shared.weight"
    save_file({name: torch.zeros(64, 16)}, folder / "adapter_model.safetensors", {"format": "pt"})
    settings = {"peft_type": "LORA", "r": 2, "modules_to_save": ["shared"], "target_modules": ["q"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(PairError, match=r"changes shared\.weight, .* an encoder-decoder cannot be untied"):
        open_pair(tmp_path / "base", folder)


def test_an_adapter_beside_a_tie_leaves_it_alone(tmp_path):
    base = save_base(tmp_path / "base", tied=True)
    adapter = train(base, tmp_path / "plain", r=2, target_modules=["q_proj"])
    theta1 = merged(base, adapter, torch.float64)
    assert all(torch.equal(value, theta1[name].bfloat16()) for name, value in tensors(base, adapter, 0))
    assert open_pair(base, adapter).aligned.config["tie_word_embeddings"] is True


def test_a_streamed_model_says_its_headers(good):
    streamed = Streamed(sft=good[0], aligned=good[1], alpha=1)
    found = headers(Model(folder=good[1], streamed=streamed))
    assert {name: each.shape for name, each in found.items()} == {
        name: tuple(each.shape) for name, each in load(good[0]).items()
    }


@pytest.mark.parametrize("size", [1e-3, 2e-4, 5e-5])
def test_a_merge_that_is_rounded_first_is_further_off(tmp_path, size):
    """docs/adapters.md: error of theta2 and effective alpha, computed from the factors or from a bf16 merge."""
    base = save_base(tmp_path / "base", hidden=256)
    adapter = train(base, tmp_path / "lora", size=size, r=8, lora_alpha=16, target_modules="all-linear")
    theta0, theta1 = load(base), merged(base, adapter, torch.float64)
    rounded = {name: value.bfloat16() for name, value in theta1.items()}
    exact = formula(theta0, theta1, ALPHA)
    ours = dict(tensors(base, adapter, ALPHA))
    through = {
        name: (rounded[name].double() + ALPHA * (rounded[name].double() - value.double())).bfloat16()
        for name, value in theta0.items()
    }
    touched = [name for name in exact if "proj" in name]

    def norm(values):
        return sum(each.double().square().sum().item() for each in values.values()) ** 0.5

    def error(result):
        off = norm({name: result[name].double() - exact[name] for name in touched})
        return off / norm({name: exact[name] - theta0[name].double() for name in touched})

    def effective(result):
        delta = {name: theta1[name] - theta0[name].double() for name in touched}
        step = sum(((result[name].double() - theta1[name]) * delta[name]).sum().item() for name in touched)
        return step / sum(each.square().sum().item() for each in delta.values())

    ratio = norm({name: theta1[name] - theta0[name].double() for name in touched}) / norm(
        {name: theta1[name] for name in touched}
    )
    print(
        f"\n|delta|/|theta1| {ratio:.4f}: relative error of (1 + alpha) delta {error(through):.3f} by a bf16 merge, "
        f"{error(ours):.3f} from the factors; effective alpha {effective(through):.3f} and {effective(ours):.3f}"
    )
    assert error(through) > error(ours)
    assert abs(effective(ours) - ALPHA) < abs(effective(through) - ALPHA)
    recipe = extrapolate(base, adapter, {"0.3": tmp_path / "out"})["0.3"]
    assert recipe.effective_alpha == pytest.approx(effective(ours), abs=0.02)
