"""What real folders carry: leftovers of trainings, constants, broken or foreign files. Right, or refused with the reason."""

import json
import re

import pytest
import torch
from checkpoints import bits, config, load, save, shapes, weights
from expoflow.checkpoints.adapter import open_adapter
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.inspection import describe, not_finite
from expoflow.checkpoints.pickles import converted
from expoflow.cli import main
from expoflow.errors import CheckpointError, PairError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import open_pair
from expoflow.extrapolation.tensor_stream import tensors
from safetensors.torch import load_file, save_file

UP = "model.layers.0.mlp.up_proj.weight"


def adding(**more):
    return {"change": lambda all_: all_.update(more)}


def formula(pair, alpha, name):
    """theta1 + alpha * (theta1 - theta0) of one tensor in float64."""
    theta0, theta1 = (load(folder)[name].double() for folder in pair)
    return theta1 + alpha * (theta1 - theta0)


def require_formula(folder, pair, alpha, names=None):
    """Every tensor of `folder` is the formula's, up to the rounding of its type."""
    out = load(folder)
    for name in names or out:
        want = formula(pair, alpha, name)
        assert torch.allclose(out[name].double(), want, rtol=2**-8, atol=1e-8), name


# Tensors without elements


def emptied(all_):
    for name in all_:
        all_[name] = torch.empty(0, dtype=torch.bfloat16)


@pytest.mark.parametrize("roles", [("sft",), ("aligned",), ("sft", "aligned")])
def test_weights_without_elements_are_zero_3_that_was_not_gathered(make_pair, tmp_path, roles):
    pair = make_pair(**{role: {"change": emptied} for role in roles})
    with pytest.raises(PairError) as raised:
        extrapolate(*pair, {"0.5": tmp_path / "out"})
    lines = str(raised.value).splitlines()
    assert [line.partition(": ")[0] for line in lines] == list(roles)
    for line in lines:
        assert "tensor lm_head.weight and 20 more has no elements: DeepSpeed ZeRO-3" in line
        assert "zero_to_fp32.py" in line
        assert "stage3_gather_16bit_weights_on_model_save: true" in line


def test_some_weights_without_elements_are_enough(make_pair):
    """ZeRO-3 keeps small tensors whole; and a matrix may keep its second dimension."""
    (message,) = open_pair(*make_pair(aligned=adding(**{UP: torch.empty(0, 32)}))).errors
    assert message.startswith(f"aligned: tensor {UP} has no elements: DeepSpeed ZeRO-3")


def test_inspect_says_what_is_left_in_a_folder(make_pair):
    left = {"change": lambda all_: (emptied(all_), all_.update({"v_head.summary.bias": torch.ones(1)}))}
    said = [text for label, text in describe(make_pair(aligned=left)[1]) if label == "error"]
    assert ["DeepSpeed ZeRO-3" in said[0], "the value head of TRL's PPO" in said[1]] == [True, True]


def test_an_adapter_without_elements(tmp_path):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 4}))
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_{}.weight"
    empty = {name.format(part): torch.empty(0) for part in "AB"}
    save_file(empty, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"lora_A.weight and 1 more has no elements: DeepSpeed ZeRO-3"):
        open_adapter(tmp_path)


# Types in configs


@pytest.mark.parametrize(
    ("given", "want"),
    [
        ({"dtype": "bfloat16"}, {"dtype": "float32"}),
        ({"dtype": None, "torch_dtype": "bfloat16"}, {"dtype": "float32", "torch_dtype": "float32"}),
        (
            {
                "torch_dtype": None,
                "dtype": "bfloat16",
                "text_config": {"dtype": "bfloat16", "hidden_size": 1},
            },
            {
                "torch_dtype": "float32",
                "dtype": "float32",
                "text_config": {"dtype": "float32", "hidden_size": 1},
            },
        ),
    ],
)
def test_a_type_holds_wherever_the_config_says_one(make_pair, tmp_path, given, want):
    pair = make_pair()
    for folder in pair:
        place = folder / "config.json"
        place.write_text(json.dumps(json.loads(place.read_text()) | given))
    extrapolate(*pair, {"0.3": tmp_path / "out"}, Options(dtype="float32"))
    written = json.loads((tmp_path / "out" / "config.json").read_text())
    assert {key: written[key] for key in want} == want
    extrapolate(*pair, {"0.3": tmp_path / "kept"})
    assert (tmp_path / "kept" / "config.json").read_bytes() == (pair[1] / "config.json").read_bytes()


def test_a_config_that_says_no_type_gets_one(make_pair, tmp_path):
    sft, aligned = make_pair()
    given = config()
    del given["dtype"]
    (aligned / "config.json").write_text(json.dumps(given))
    extrapolate(sft, aligned, {"0.3": tmp_path / "out"}, Options(dtype="float32"))
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == given | {"dtype": "float32"}


def test_the_type_holds_when_transformers_loads_the_result(make_pair, tmp_path):
    import transformers

    pair = make_pair(torch_dtype=None)
    extrapolate(*pair, {"0.3": tmp_path / "out"}, Options(dtype="float32"))
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.allclose(tensor.double(), formula(pair, 0.3, name), rtol=2**-22, atol=1e-9), name


# Constants


LAYER = "model.layers.0"
MASK = torch.ones(8, 8).tril().view(1, 1, 8, 8)


def constants(role):
    """Buffers as two versions of a library, or two stages of a training, store them."""
    late = role == "aligned"
    return {
        f"{LAYER}.attention.bias": MASK.to(torch.bool if late else torch.uint8),
        f"{LAYER}.attention.masked_bias": torch.tensor(-1e9 if late else float("-inf"), dtype=torch.float32),
        f"{LAYER}.rotary_emb.inv_freq": torch.rand(4) + late,
        f"{LAYER}.batch_norm.num_batches_tracked": torch.tensor(100 if late else 0),
        f"{LAYER}.batch_norm.running_mean": torch.full((4,), 0.5 * late),
        f"{LAYER}.batch_norm.running_var": torch.full((4,), 0.3 if late else 1.0),
        f"{LAYER}.freqs_cis": torch.polar(torch.ones(4 + late), torch.arange(4.0 + late)),
    }


@pytest.mark.parametrize("dtype", ["keep", "float16"])
def test_constants_on_both_sides_are_aligneds_and_no_reason_to_refuse(make_pair, tmp_path, dtype):
    """At alpha 0.5 the formula would make running_var negative, and -1e9 is no float16."""
    pair = make_pair(**{role: adding(**constants(role)) for role in ("sft", "aligned")})
    recipe = extrapolate(*pair, {"0.5": tmp_path / "out"}, Options(dtype=dtype))["0.5"]
    out, theta1 = load(tmp_path / "out"), load(pair[1])
    for name in constants("aligned"):
        assert out[name].dtype == theta1[name].dtype
        assert torch.equal(bits(out[name]), bits(theta1[name])), name
    require_formula(tmp_path / "out", pair, 0.5, shapes())
    streamed = dict(tensors(*pair, 0.5, Options(dtype=dtype)))
    assert all(torch.equal(bits(streamed[name]), bits(out[name])) for name in out)
    assert recipe.notes == (
        f"constant buffers are not extrapolated, aligned's are kept: {LAYER}.attention.bias and 6 more",
    )
    assert recipe.elements == sum(theta1[name].numel() for name in shapes())


def test_infinity_in_a_mask_is_no_damage(make_pair):
    sft, aligned = make_pair(
        sft=adding(**constants("sft")), aligned=adding(**{"lm_head.bias": torch.tensor([torch.inf])})
    )
    assert not_finite(open_checkpoint(sft)) == []
    assert not_finite(open_checkpoint(aligned)) == ["lm_head.bias"]


def test_what_has_the_name_of_a_mask_and_is_a_bias_is_extrapolated(make_pair, tmp_path):
    name = f"{LAYER}.attention.bias"
    pair = make_pair(sft=adding(**{name: torch.zeros(8)}), aligned=adding(**{name: torch.ones(8)}))
    extrapolate(*pair, {"0.5": tmp_path / "out"})
    assert load(tmp_path / "out")[name].tolist() == [1.5] * 8


@pytest.mark.parametrize(
    ("name", "buffer", "said"),
    [
        ("model.norm.weight", torch.ones(32, dtype=torch.complex64), "C64 32"),
        (f"{LAYER}.attention.bias", MASK, "F32 1x1x8x8"),
    ],
)
@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_a_constant_in_one_and_a_weight_in_the_other_are_not_one_tensor(make_pair, name, buffer, said, role):
    of = {each: buffer if each == role else torch.ones(32) for each in ("sft", "aligned")}
    pair = make_pair(**{each: adding(**{name: tensor}) for each, tensor in of.items()})
    sft, aligned = (said if each == role else "F32 32" for each in of)
    assert open_pair(*pair).errors == [
        f"tensor {name} is {sft} in sft and {aligned} in aligned: a constant buffer in one, a weight in the other; give two"
        " checkpoints of one architecture"
    ]


def test_a_number_and_a_list_of_one_number_are_two_shapes(make_pair):
    (error,) = open_pair(
        *make_pair(sft=adding(scale=torch.tensor(1.0)), aligned=adding(scale=torch.ones(1)))
    ).errors
    assert error.startswith("tensor scale is 0-d in sft and 1 in aligned: another model")


def test_the_command_says_what_it_keeps(make_pair, tmp_path, capsys):
    pair = make_pair(**{role: adding(**constants(role)) for role in ("sft", "aligned")})
    said = (
        f"note: constant buffers are not extrapolated, aligned's are kept: {LAYER}.attention.bias and 6 more"
    )
    arguments = ["--sft", str(pair[0]), "--aligned", str(pair[1]), "--alpha", "0.5"]
    assert main(["extrapolate", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert said in capsys.readouterr().err.splitlines()
    assert main(["inspect", str(tmp_path / "out")]) == 0
    assert said.partition(": ")[2] in capsys.readouterr().out


# Indexes, pickles, pointers


@pytest.mark.parametrize("metadata", [None, "absent", [], {"format": "pt"}])
def test_an_index_without_metadata_gets_it(make_pair, tmp_path, metadata):
    import transformers

    pair = make_pair(aligned={"shards": 2})
    place = pair[1] / "model.safetensors.index.json"
    index = json.loads(place.read_text())
    del index["metadata"]
    place.write_text(json.dumps(index if metadata == "absent" else index | {"metadata": metadata}))
    extrapolate(*pair, {"0.5": tmp_path / "out"})
    written = json.loads((tmp_path / "out" / place.name).read_text())
    size = sum(each.nbytes for each in load(pair[1]).values())
    assert written["metadata"] == (metadata if isinstance(metadata, dict) else {}) | {"total_size": size}
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert torch.allclose(
        model.state_dict()[UP].double(), formula(pair, 0.5, UP), rtol=2**-8, atol=1e-8
    )  # plain transformers loads no index without metadata


def pickled(folder, files, index=None):
    """`folder` as it is, with its weights in pickles: tensors by file."""
    (folder / "model.safetensors").unlink()
    for name, each in files.items():
        torch.save(each, folder / name)
    if index:
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    return folder


def test_what_is_no_tensor_in_a_pickle_is_left_out_and_said(make_pair, tmp_path):
    pair = make_pair()
    expected = load(pair[1])
    extra = {"model.layers.0.self_attn._extra_state": None, "step": 7}
    for folder in pair:
        pickled(folder, {"pytorch_model.bin": load_file(folder / "model.safetensors") | extra})
    recipe = extrapolate(*pair, {"0": tmp_path / "out"})["0"]
    assert {name: bits(each).tolist() for name, each in load(tmp_path / "out").items()} == {
        name: bits(each).tolist() for name, each in expected.items()
    }
    said = "model.layers.0.self_attn._extra_state and 1 more of its pickles is no tensor and is left out"
    assert len(recipe.notes) == 2
    assert all(note.endswith(said) for note in recipe.notes)


@pytest.mark.parametrize("state", [{"model": {UP: torch.ones(2)}, "step": 1}, {"step": 1}, {}])
def test_a_state_of_training_is_no_model(tmp_path, state):
    folder = pickled(save(tmp_path / "sft", weights()), {"pytorch_model.bin": state})
    with pytest.raises(CheckpointError, match="a state of training, not a model"):
        converted(folder)


def shards(tensors_, again, *, change=0.0):
    """Two pickles, both with the tensor `again`, and the index that names the second."""
    names = list(tensors_)
    first = {name: tensors_[name] for name in names[:10]} | {again: tensors_[again] + change}
    second = {name: tensors_[name] for name in names[10:]}
    files = {"pytorch_model-00001-of-00002.bin": first, "pytorch_model-00002-of-00002.bin": second}
    return files, {name: file for file, part in files.items() for name in part}


def test_a_tensor_that_two_pickles_have_is_taken_once(tmp_path):
    expected = weights()
    folder = pickled(save(tmp_path / "sft", expected), *shards(expected, "lm_head.weight"))
    found = open_checkpoint(converted(folder))
    assert sorted(found.tensors) == sorted(expected)
    assert found.shard_of["lm_head.weight"].path.name == "model-00002-of-00002.safetensors"
    assert torch.equal(found.values("lm_head.weight").view(320, 32), expected["lm_head.weight"])


def test_a_tensor_with_two_values_in_two_pickles_is_refused(tmp_path):
    expected = weights()
    folder = pickled(save(tmp_path / "sft", expected), *shards(expected, "lm_head.weight", change=1.0))
    with pytest.raises(
        CheckpointError, match=r"lm_head.weight has other values in .*00001.* than in .*00002"
    ):
        converted(folder)


def test_pickles_that_lack_what_their_index_says(tmp_path):
    expected = weights()
    files, index = shards(expected, "lm_head.weight")
    folder = pickled(save(tmp_path / "sft", expected), files, index | {"model.more": next(iter(files))})
    with pytest.raises(CheckpointError, match=r"has tensor model.more in .*00001.*, it is not there"):
        converted(folder)


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 4943162336\n"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "config.json", "tokenizer.json", "tokenizer.model", "pytorch_model.bin"]
)
def test_a_pointer_of_git_lfs_is_named(make_pair, tmp_path, name):
    sft, aligned = make_pair()
    if name == "pytorch_model.bin":
        (aligned / "model.safetensors").unlink()
    (aligned / name).write_text(POINTER)
    with pytest.raises((CheckpointError, PairError)) as raised:
        extrapolate(sft, aligned, {"0.5": tmp_path / "out"})
    assert f"{aligned / name}: is the pointer of Git LFS" in str(raised.value)
    assert f"git lfs pull` in {aligned}" in str(raised.value)


def test_fp8_with_its_scales_is_one_error(make_pair):
    def quantise(all_):
        all_[UP] = all_[UP].to(torch.float8_e4m3fn)
        all_[f"{UP}_scale_inv"] = torch.ones(1, 1)

    (message,) = open_pair(*make_pair(aligned={"change": quantise})).errors
    assert message.startswith(
        f"tensor {UP} is F8_E4M3 in aligned, with {UP}_scale_inv beside it: quantised weights"
    )


# Folders of another kind


@pytest.mark.parametrize("whole", ["model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"])
def test_an_adapter_beside_a_whole_model_is_refused(make_pair, tmp_path, whole):
    sft, aligned = make_pair(aligned={"shards": 2 if whole.endswith("index.json") else 1})
    if whole.endswith(".bin"):
        (aligned / "model.safetensors").rename(aligned / whole)
    (aligned / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    for pair in ((sft, aligned), (aligned, sft)):
        with pytest.raises(
            CheckpointError, match=f"adapter_config.json and {whole}.*move adapter_config.json"
        ):
            open_pair(*pair)
    (aligned / "adapter_config.json").unlink()
    if not whole.endswith(".bin"):
        extrapolate(sft, aligned, {"0.5": tmp_path / "out"})  # the remedy


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        (
            "zero_to_fp32.py",
            r"DeepSpeed's checkpoint of a training; run in this folder: python zero_to_fp32.py",
        ),
        ("pytorch_model_fsdp_0", r"FSDP's sharded checkpoint of a training; run: accelerate merge-weights"),
        ("consolidated.00.pth", r"Meta's or Mistral's own format"),
        ("consolidated.safetensors", r"Meta's or Mistral's own format"),
        ("model-Q4_K_M.gguf", r"a model for llama.cpp"),
        ("tf_model.h5", r"TensorFlow or Flax"),
        ("model-00001-of-00003.safetensors", r"shards without their index"),
        ("checkpoint-500", r"checkpoints of a training; give one of these folders"),
        ("adapter_model.safetensors", r"an adapter without its adapter_config.json"),
    ],
)
def test_folders_of_another_kind_say_what_they_are(tmp_path, name, remedy):
    (tmp_path / "config.json").write_text(json.dumps(config()))
    (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=f"found {re.escape(name)}: .*{remedy}"):
        open_checkpoint(tmp_path)


def test_what_stands_beside_the_shards_has_no_part(make_pair, tmp_path):
    pair = make_pair(shards=2)
    for folder in pair:
        save_file({"layers.0.wq": torch.ones(2)}, folder / "consolidated.safetensors")
        (folder / "params.json").write_text("{}")
        torch.save({"step": 1}, folder / "optimizer.pt")
        torch.save({UP: torch.ones(2)}, folder / "pytorch_model.bin")
    extrapolate(*pair, {"0.5": tmp_path / "out"})
    require_formula(tmp_path / "out", pair, 0.5)
    assert not {"consolidated.safetensors", "pytorch_model.bin"} & {
        each.name for each in (tmp_path / "out").iterdir()
    }
