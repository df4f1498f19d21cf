"""Which pairs fit: every finding at once, from headers and configs only."""

import json

import pytest
import torch
from checkpoints import write_tokenizer
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.tensor_names import kind
from expoflow.errors import PairError
from expoflow.extrapolation.preflight import open_pair, preflight


def errors(pair, vocabulary="error"):
    return open_pair(*pair, vocabulary).errors


def found(pair, level, vocabulary="error"):
    return [each.message for each in open_pair(*pair, vocabulary).findings if each.level == level]


def test_a_good_pair_has_no_findings(make_pair):
    pair = open_pair(*make_pair(aligned={"shards": 3}))
    assert pair.findings == ()
    assert all(part.shared == part.theta1.elements for part in pair.parts)
    pair.require()


def drop(*names):
    return lambda tensors: [tensors.pop(name) for name in names]


@pytest.mark.parametrize(("role", "other"), [("sft", "aligned"), ("aligned", "sft")])
def test_extra_and_missing_tensors_on_either_side(make_pair, role, other):
    lacking = {other: {"change": drop("model.norm.weight", "model.layers.1.mlp.up_proj.weight")}}
    (message,) = errors(make_pair(**lacking))
    assert message.startswith("tensor model.layers.1.mlp.up_proj.weight and 1 more: ")
    assert f"in {role}, not in {other}" in message


def test_transposed_and_differing_shapes(make_pair):
    up, down = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.down_proj.weight"

    def change(tensors):
        tensors[up] = tensors[up].T.contiguous()
        tensors[down] = tensors[down][:, 1:].contiguous()

    messages = errors(make_pair(sft={"change": change}))
    assert messages[0].startswith(f"tensor {up} is 32x64 in sft and 64x32 in aligned: transposed")
    assert messages[1].startswith(f"tensor {down} is 32x63 in sft and 32x64 in aligned: another model")
    assert len(messages) == 2


@pytest.mark.parametrize(("sft", "aligned"), [(320, 322), (322, 320)])
def test_vocabularies_of_another_size(make_pair, sft, aligned):
    pair = make_pair(sft={"vocab": sft, "tokens": sft}, aligned={"vocab": aligned, "tokens": aligned})
    text = f"tensor model.embed_tokens.weight is {sft}x32 in sft and {aligned}x32 in aligned"
    assert len(errors(pair)) == 2
    assert errors(pair)[1] == f"{text}; set vocabulary: shared_rows to extrapolate the common rows"
    assert errors(pair, "shared_rows") == []
    assert (
        found(pair, "warning", "shared_rows")[1]
        == f"{text}: the common rows are extrapolated, and aligned's other rows are kept"
    )
    parts = {part.theta1.name: part for part in open_pair(*pair, "shared_rows").parts}
    assert parts["lm_head.weight"].shared == 320 * 32
    assert parts["lm_head.weight"].tokens == 320


def test_rows_are_shared_only_where_they_mean_the_same_tokens(make_pair):
    sft, aligned = make_pair(sft={"vocab": 320}, aligned={"vocab": 322, "tokens": 322})
    write_tokenizer(aligned, ["<pad>", *(f"word{at}" for at in range(321))])
    messages = errors((sft, aligned), "shared_rows")
    assert messages == [
        "320 token ids mean different tokens: 0 is 'word0' in sft and '<pad>' in aligned; give models with the same tokenizer"
    ]
    (sft / "tokenizer.json").unlink()
    assert "rows may mean different tokens" in errors((sft, aligned), "shared_rows")[0]
    for folder in (sft, aligned):
        (folder / "tokenizer.json").unlink(missing_ok=True)
        (folder / "tokenizer.model").write_bytes(b"one sentencepiece model")
    assert errors((sft, aligned), "shared_rows") == []


def test_tokenizers_of_equal_size_are_compared_too(make_pair):
    sft, aligned = make_pair()
    words = [f"word{at}" for at in range(320)]
    write_tokenizer(aligned, [*words[:318], "<pad>", "<sep>"])
    assert "aligned's tokenizer is kept" in found((sft, aligned), "warning")[0]
    write_tokenizer(aligned, words[::-1])
    assert "320 token ids mean different tokens" in errors((sft, aligned))[0]
    (aligned / "tokenizer.json").write_text(json.dumps({"model": {"vocab": [["a", 0.0], ["b", 1.0]]}}))
    assert "0 is 'word0' in sft and 'a' in aligned" in found((sft, aligned), "warning")[0]


def test_tied_on_one_side_only(make_pair):
    messages = errors(make_pair(aligned={"tied": True}))
    assert messages[0].startswith(
        "aligned ties lm_head.weight to model.embed_tokens.weight by its config.json or its class' default, and sft does not"
    )
    assert "tensor lm_head.weight: in sft, not in aligned" in messages[1]


def test_a_head_stored_in_spite_of_its_tie_follows_the_embedding(make_pair):
    def stored(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    pair = open_pair(*make_pair(tied=True, aligned={"change": stored}))
    assert pair.errors == []
    part = next(part for part in pair.parts if part.theta1.name == "lm_head.weight")
    assert part.theta0.name == "model.embed_tokens.weight"


@pytest.mark.parametrize(("role", "fate"), [("sft", "left out"), ("aligned", "kept")])
def test_rotary_buffers_on_one_side_are_said_and_ignored(make_pair, role, fate):
    def add(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.rand(4)

    pair = make_pair(**{role: {"change": add}})
    assert errors(pair) == []
    (note,) = found(pair, "note")
    assert note == f"constant buffers in {role} only are {fate}: model.layers.0.self_attn.rotary_emb.inv_freq"


def test_other_architectures_and_sizes(make_pair):
    messages = errors(
        make_pair(sft={"architectures": ["MistralForCausalLM"], "rope_theta": 5.0, "hidden": 16})
    )
    assert any(each.startswith("config architectures is ['MistralForCausalLM'] in sft") for each in messages)
    assert any(each.startswith("config hidden_size is 16 in sft and 32 in aligned") for each in messages)
    assert any("embed_tokens.weight is 320x16 in sft and 320x32" in each for each in messages)


def test_settings_that_differ_are_warned_of(make_pair):
    pair = make_pair(
        sft={"rope_theta": 1.0, "use_cache": True}, aligned={"rope_theta": 2.0, "use_cache": False}
    )
    assert found(pair, "warning") == [
        "config rope_parameters.rope_theta is 1.0 in sft and 2.0 in aligned; aligned's is kept"
    ]
    (pair[0] / "config.json").unlink()
    assert found(pair, "warning") == ["sft has no config.json: the architectures cannot be compared"]


@pytest.mark.parametrize("method", ["gptq", "awq", "fp8", "bitsandbytes"])
def test_quantised_configs_are_refused(make_pair, method):
    (message,) = errors(make_pair(aligned={"quantization_config": {"quant_method": method}}))
    assert message.startswith(f"aligned is quantised ({method}) by its config; give the bf16")


@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn, torch.float8_e5m2])
def test_quantised_weights_are_refused(make_pair, dtype):
    name = "model.layers.0.mlp.up_proj.weight"

    def change(tensors):
        tensors[name] = torch.zeros(64, 32).to(dtype)

    messages = errors(make_pair(change=change))
    assert [each.split(":")[0] for each in messages] == [
        f"tensor {name} is {code} in {role}"
        for role in ("sft", "aligned")
        for code in [{torch.int8: "I8", torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}[dtype]]
    ]


def test_packed_weights_are_refused_without_a_config(make_pair):
    def change(tensors):
        tensors["model.layers.0.mlp.up_proj.qweight"] = torch.zeros(4, 32, dtype=torch.int32)

    assert "up_proj.qweight is I32 in sft: quantised" in errors(make_pair(change=change))[0]


def test_integer_tensors_of_another_shape(make_pair):
    pair = make_pair(
        sft={"change": lambda tensors: tensors.update(steps=torch.arange(3))},
        aligned={"change": lambda tensors: tensors.update(steps=torch.arange(4))},
    )
    assert (
        "tensor steps is 3 in sft and 4 in aligned (I64 and I64): integer tensors must be equal"
        in errors(pair)[0]
    )


def test_require_raises_all_errors_at_once(make_pair):
    sft, aligned = make_pair(aligned={"tied": True, "change": drop("model.norm.weight")})
    with pytest.raises(PairError) as caught:
        preflight(open_checkpoint(sft), open_checkpoint(aligned)).require()
    assert len(str(caught.value).splitlines()) == 2


def test_kinds_of_modules():
    assert kind("model.layers.3.self_attn.q_proj.weight") == "attention"
    assert kind("model.layers.3.post_attention_layernorm.weight") == "norms"
    assert kind("model.layers.3.attention.wqkv.weight") == "attention"
    assert kind("model.layers.3.feed_forward.w2.weight") == "mlp"
    assert kind("model.tok_embeddings.weight") == kind("transformer.wte.weight") == "embeddings"
    assert kind("output.weight") == kind("lm_head.weight") == "head"
    assert kind("model.layers.0.block_sparse_moe.experts.0.w1.weight") == "mlp"
    assert kind("something.else") == "other"
