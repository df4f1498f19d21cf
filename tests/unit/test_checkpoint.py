"""Reading checkpoints: what a header can tell is checked before anything is read."""

import json
import os
import pickle
import shutil

import pytest
import torch
from checkpoints import bits, load, same_bits, save, weights, write_raw
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.header import read_shard
from expoflow.checkpoints.package import package_files
from expoflow.checkpoints.pickles import converted
from expoflow.checkpoints.torch_types import tensor_of
from expoflow.errors import CheckpointError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.files.hashing import sha256
from expoflow.store import remembered

ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize("shards", [1, 3])
def test_every_tensor_is_read_as_safetensors_reads_it(tmp_path, shards):
    tensors = weights() | {
        "scalar": torch.tensor(1.5),
        "empty": torch.empty(0, 4, dtype=torch.float16),
        "mask": torch.tensor([True, False, True]),
        "wide": torch.tensor([1.0, -0.0, float("nan")], dtype=torch.float64),
        "ids": torch.arange(5),
    }
    checkpoint = open_checkpoint(save(tmp_path / "model", tensors, shards=shards))
    assert set(checkpoint.tensors) == set(tensors)
    for name, tensor in tensors.items():
        read = tensor_of(checkpoint.view(name), checkpoint.tensors[name].dtype)
        assert checkpoint.tensors[name].shape == tuple(tensor.shape)
        assert read.dtype == tensor.dtype
        assert torch.equal(bits(read), bits(tensor))


def test_the_mapping_never_writes_to_the_file(tmp_path):
    folder = save(tmp_path / "model", weights())
    before = sha256(folder / "model.safetensors")
    checkpoint = open_checkpoint(folder)
    tensor_of(checkpoint.view("model.norm.weight"), "BF16").zero_()
    assert sha256(folder / "model.safetensors") == before


def test_a_file_cut_off_after_it_was_opened_is_an_error_not_a_crash(tmp_path):
    folder = save(tmp_path / "model", weights(vocab=4000))
    checkpoint = open_checkpoint(folder)
    checkpoint.view("lm_head.weight")
    os.truncate(folder / "model.safetensors", 5000)
    with pytest.raises(CheckpointError, match="cannot be read to its end"):
        checkpoint.fetch("lm_head.weight", 0, 4000 * 32)


BROKEN = {
    "empty file": (b"", b"", "not a safetensors file, or cut off"),
    "not json": (b"{nonsense}", b"", "broken header"),
    "not an object": (b"[1, 2]", b"", "broken header"),
    "cut off": ({"a": ENTRY}, bytes(7), "cut off, 1 bytes are missing"),
    "too long": ({"a": ENTRY}, bytes(9), "1 bytes too long"),
    "gap": (
        {"a": ENTRY, "b": {**ENTRY, "data_offsets": [12, 20]}},
        bytes(20),
        "tensor b leaves a gap of 4 bytes",
    ),
    "overlap": ({"a": ENTRY, "b": {**ENTRY, "data_offsets": [4, 12]}}, bytes(12), "tensor b overlaps"),
    "wrong size": ({"a": {**ENTRY, "shape": [3]}}, bytes(8), r"tensor a is F32 \[3\], which does not fit"),
    "negative shape": ({"a": {**ENTRY, "shape": [-1, -2]}}, bytes(8), "tensor a has shape"),
    "unknown type": ({"a": {**ENTRY, "dtype": "F4"}}, bytes(8), "tensor a has the type F4"),
    "no offsets": ({"a": {"dtype": "F32", "shape": [2]}}, bytes(8), "broken header"),
    "tensor twice": (b'{"a":%s,"a":%s}' % ((json.dumps(ENTRY).encode(),) * 2), bytes(8), "a occurs twice"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_refused_by_their_header(tmp_path, case):
    header, data, message = BROKEN[case]
    path = write_raw(tmp_path / "model.safetensors", header, data)
    if case == "empty file":
        path.write_bytes(b"")
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(tmp_path)
    assert str(path) in str(caught.value)
    assert "download or save the file again" in str(caught.value)


def test_a_header_that_ends_past_the_file_is_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((10**12).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="header of 1000000000000 bytes, file of 10"):
        read_shard(path)


def test_an_index_must_agree_with_its_files(tmp_path):
    folder = save(tmp_path / "model", weights(), shards=2)
    index = folder / "model.safetensors.index.json"
    good = json.loads(index.read_text())
    second = "model-00002-of-00002.safetensors"

    shutil.move(folder / second, tmp_path / "away")
    with pytest.raises(CheckpointError, match=f"names {second}, which is not there"):
        open_checkpoint(folder)
    shutil.move(tmp_path / "away", folder / second)

    bad = {**good, "weight_map": {**good["weight_map"], "model.norm.weight": "../model.safetensors"}}
    index.write_text(json.dumps(bad))
    with pytest.raises(CheckpointError, match=r"names \.\./model\.safetensors"):
        open_checkpoint(folder)

    other = next(name for name, file in good["weight_map"].items() if file == second)
    bad = {**good, "weight_map": {**good["weight_map"], other: "model-00001-of-00002.safetensors"}}
    index.write_text(json.dumps(bad))
    with pytest.raises(CheckpointError, match=f"has tensor {other} in model-00001-of-00002"):
        open_checkpoint(folder)

    for text, message in (
        ("{", "not JSON"),
        ("{}", "has no weight_map"),
        ("[]", "holds a list"),
        (
            '{"weight_map": {"model.norm.weight": null}}',
            "has None as the file of model.norm.weight; download",
        ),
        ('{"weight_map": {"model.norm.weight": [1]}}', "as the file of model.norm.weight; download"),
    ):
        index.write_text(text)
        with pytest.raises(CheckpointError, match=message):
            open_checkpoint(folder)


def test_a_tensor_in_two_shards_is_refused(tmp_path):
    folder = save(tmp_path / "model", weights(), shards=2)
    first, second = sorted(folder.glob("*.safetensors"))
    shutil.copy(first, second)
    with pytest.raises(CheckpointError, match=r"tensor \S+ is in model-00001-of-00002.safetensors and in"):
        open_checkpoint(folder)


def test_folders_without_usable_weights_say_what_they_are(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="found no weights at all"):
        open_checkpoint(tmp_path)
    (tmp_path / "model.gguf").touch()
    with pytest.raises(CheckpointError, match=r"found model\.gguf"):
        open_checkpoint(tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="is an adapter; give it as the aligned model, or merge it"):
        open_checkpoint(tmp_path)


def test_a_single_file_beside_an_index_is_taken_and_said(tmp_path):
    folder = save(tmp_path / "model", weights(), shards=2)
    save(tmp_path / "single", weights(seed=1))
    shutil.copy(tmp_path / "single" / "model.safetensors", folder)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.weight_files == ["model.safetensors"]
    assert "model.safetensors is used" in checkpoint.notes[0]
    extrapolate(folder, folder, {"0.3": tmp_path / "out"})
    assert sorted(path.name for path in (tmp_path / "out").glob("model*")) == ["model.safetensors"]


def test_pickled_checkpoints_are_converted_once(tmp_path, store):
    tensors = weights()
    tensors["lm_head.weight"] = tensors[
        "model.embed_tokens.weight"
    ]  # shares its memory, not tied by the config
    tensors["turned"] = tensors["model.norm.weight"][:8].reshape(2, 4).T
    folder = save(tmp_path / "model", weights())
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    first = converted(folder)
    assert store in first.parents
    assert torch.equal(load(first)["turned"], tensors["turned"])
    read = load(first)
    assert same_bits(
        {name: read[name] for name in tensors}, {name: each.contiguous() for name, each in tensors.items()}
    )
    assert {"config.json", "tokenizer.json"} <= set(os.listdir(first))
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    assert converted(folder) == first
    assert (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert converted(first) == first
    open_checkpoint(first)


def test_tied_pickles_store_shared_memory_once(tmp_path):
    tensors = weights()
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    folder = save(tmp_path / "model", weights(), tied=True)
    (folder / "model.safetensors").unlink()
    names = list(tensors)
    files = {
        "pytorch_model-00001-of-00002.bin": names[:3] + names[-1:],
        "pytorch_model-00002-of-00002.bin": names[3:-1],
    }
    for file, part in files.items():
        torch.save(
            {name: tensors[name] for name in part}, folder / file, _use_new_zipfile_serialization=False
        )
    weight_map = {name: file for file, part in files.items() for name in part}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    checkpoint = open_checkpoint(converted(folder))
    assert "lm_head.weight" not in checkpoint.tensors
    assert len(checkpoint.shards) == 2
    assert (
        checkpoint.parameters
        == sum(each.numel() for each in tensors.values()) - tensors["lm_head.weight"].numel()
    )


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_the_payload_of_a_malicious_pickle_does_not_run(tmp_path):
    proof = tmp_path / "it-ran"
    folder = save(tmp_path / "model", weights())
    (folder / "model.safetensors").unlink()
    torch.save({"model.norm.weight": torch.ones(32), "trick": Payload(proof)}, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="refused"):
        converted(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(proof)))
    with pytest.raises(CheckpointError, match="refused"):
        converted(folder)
    assert not proof.exists()


def test_sha256_is_remembered_until_the_file_changes(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"one")
    first = remembered(path)
    assert first == sha256(path)
    state = path.stat()
    path.write_bytes(b"two")
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert remembered(path) == first  # same size and time: taken from memory, as documented
    assert remembered(path, anew=True) == sha256(path) != first
    os.utime(path, ns=(0, 0))
    assert remembered(path) == sha256(path)


def test_the_package_is_everything_but_weights_and_traces(tmp_path):
    keep = [
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
        "modeling_my.py",
        "LICENSE",
        "additional_chat_templates/tool.jinja",
        "preprocessor_config.json",
    ]
    leave = [
        "model.safetensors",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
        "tf_model.h5",
        "flax_model.msgpack",
        "optimizer.pt",
        "scheduler.pt",
        "rng_state_0.pth",
        "trainer_state.json",
        "training_args.bin",
        "all_results.json",
        "README.md",
        "recipe.json",
        ".gitattributes",
        "model.gguf",
        "global_step10/mp_rank_00_model_states.pt",
        "onnx/model.onnx",
        "runs/events.out.tfevents.1",
        "consolidated.00.pth",
    ]
    for name in keep + leave:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    assert package_files(tmp_path) == sorted(keep)
