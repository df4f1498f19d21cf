"""What goes wrong on real machines, with real files and processes: nothing wrong is ever left behind."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest
import torch
from checkpoints import bits, load, same_bits, save, weights, write_holes
from expoflow.errors import CheckpointError, PairError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.tensor_stream import tensors
from expoflow.files.folder import appearing
from expoflow.files.hashing import sha256

UP = "model.layers.0.mlp.up_proj.weight"


def setting(name, place, value):
    def change(tensors):
        tensors[name].view(-1)[place] = value

    return {"change": change}


def nothing_but(tmp_path, *more):
    return sorted(set(os.listdir(tmp_path)) - {"store"}) == sorted(["aligned", "sft", *more])


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("role", ["sft", "aligned"])
def test_nan_or_inf_in_one_model_names_the_tensor(make_pair, tmp_path, value, role):
    sft, aligned = make_pair(**{role: setting(UP, 700, value)})
    with pytest.raises(PairError, match=f"tensor {UP}: 1 elements are NaN or Inf in one model only"):
        extrapolate(sft, aligned, {"0.3": tmp_path / "out"})
    assert nothing_but(tmp_path)
    with pytest.raises(PairError, match=UP):
        list(tensors(sft, aligned, 0.3))


def test_equal_nan_and_inf_are_kept(make_pair, tmp_path):
    sft, aligned = make_pair(
        change=lambda all_: all_[UP].view(-1)[:3].copy_(torch.tensor([float("nan"), float("inf"), -0.0]))
    )
    recipe = extrapolate(sft, aligned, {"0.3": tmp_path / "out"})["0.3"]
    assert torch.equal(bits(load(tmp_path / "out")[UP])[:6], bits(load(aligned)[UP])[:6])
    assert recipe.effective_alpha == pytest.approx(0.3, rel=0.02)


def test_a_pair_that_overflows_fp16_is_refused_or_clamped(make_pair, tmp_path):
    pair = make_pair(dtype=torch.float16, sft=setting(UP, 9, 3e4), aligned=setting(UP, 9, 6e4))
    with pytest.raises(
        PairError, match=f"tensor {UP}: 1 elements overflow float16 at alpha 0.5; take a smaller alpha"
    ):
        extrapolate(*pair, {"0.5": tmp_path / "out"})
    assert nothing_but(tmp_path)
    extrapolate(*pair, {"0.5": tmp_path / "out"}, Options(overflow="clamp"))
    assert load(tmp_path / "out")[UP].view(-1)[9] == 65504


def test_integers_must_be_equal(make_pair, tmp_path):
    pair = make_pair(
        sft={"change": lambda all_: all_.update(steps=torch.tensor([1, 2]))},
        aligned={"change": lambda all_: all_.update(steps=torch.tensor([1, 3]))},
    )
    with pytest.raises(PairError, match=r"tensor steps \(I64\) differs between sft and aligned"):
        extrapolate(*pair, {"0.3": tmp_path / "out"})
    assert nothing_but(tmp_path)


def test_scalars_empty_and_bool_tensors_pass(make_pair, tmp_path):
    def add(tensors):
        tensors["scale"] = torch.tensor(2.0)
        tensors["nothing"] = torch.empty(0, 4, dtype=torch.bfloat16)
        tensors["mask"] = torch.tensor([True, False])

    pair = make_pair(change=add, sft=None, aligned=None)
    extrapolate(*pair, {"0.3": tmp_path / "out"})
    out = load(tmp_path / "out")
    assert (out["scale"].item(), out["nothing"].shape, out["mask"].tolist()) == (2.0, (0, 4), [True, False])


def test_rotary_buffers_on_one_side(make_pair, tmp_path):
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    pair = make_pair(aligned={"change": lambda all_: all_.update({name: torch.arange(4.0)})})
    extrapolate(*pair, {"0.3": tmp_path / "out"})
    assert load(tmp_path / "out")[name].tolist() == [0, 1, 2, 3]
    extrapolate(pair[1], pair[0], {"0.3": tmp_path / "other"})
    assert name not in load(tmp_path / "other")


def test_a_bit_flip_against_a_known_sha256(make_pair, tmp_path):
    sft, aligned = make_pair()
    file = aligned / "model.safetensors"
    known = {
        sft: {"model.safetensors": sha256(sft / "model.safetensors")},
        aligned: {"model.safetensors": sha256(file)},
    }
    extrapolate(sft, aligned, {"0.3": tmp_path / "good"}, known=known, verify=True)
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    with pytest.raises(
        CheckpointError, match=f"{file}: has sha256 .* instead of {known[aligned]['model.safetensors']}"
    ):
        extrapolate(sft, aligned, {"0.3": tmp_path / "out"}, known=known, verify=True)
    assert nothing_but(tmp_path, "good")


def hub_snapshot(folder, root):
    """The folder as the hub's cache has it: names that link to blobs named by their sha256."""
    blobs, snapshot = root / "blobs", root / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in folder.iterdir():
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copy(file, blob)
        (snapshot / file.name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def test_symlinked_snapshots_of_the_hub_cache(make_pair, tmp_path):
    folders = make_pair(aligned={"shards": 2})
    snapshots = [hub_snapshot(folder, tmp_path / f"hub-{folder.name}") for folder in folders]
    extrapolate(*snapshots, {"0.3": tmp_path / "out"})
    extrapolate(*folders, {"0.3": tmp_path / "plain"})
    assert same_bits(load(tmp_path / "out"), load(tmp_path / "plain"))
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())

    damaged = (snapshots[0] / "model.safetensors").resolve()
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    with pytest.raises(CheckpointError, match=f"the hub says {damaged.name}"):
        extrapolate(*snapshots, {"0.3": tmp_path / "other"})


def test_read_only_inputs(make_pair, tmp_path):
    pair = make_pair()
    for folder in pair:
        for file in folder.iterdir():
            file.chmod(0o444)
        folder.chmod(0o555)
    extrapolate(*pair, {"0.3": tmp_path / "out"})
    with open(tmp_path / "out" / "config.json", "a"):  # the copies are the user's own
        pass
    assert os.stat(tmp_path / "out" / "model.safetensors").st_mode & 0o200


def test_a_shard_that_is_cut_off_stops_before_anything_is_written(make_pair, tmp_path):
    sft, aligned = make_pair(aligned={"shards": 2})
    file = aligned / "model-00002-of-00002.safetensors"
    os.truncate(file, file.stat().st_size - 10)
    with pytest.raises(CheckpointError, match="cut off, 10 bytes are missing"):
        extrapolate(sft, aligned, {"0.3": tmp_path / "out"})
    assert nothing_but(tmp_path)


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 2 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", disk], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"no right to mount a tmpfs: {done.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_too_little_space_is_said_before_the_first_byte(tmp_path, small_disk):
    sft, aligned = (write_holes(tmp_path / role, 0.01) for role in ("sft", "aligned"))
    with pytest.raises(CheckpointError, match=r"needs 0\.01 GB, 0\.00 GB are free; free space"):
        extrapolate(sft, aligned, {"0.3": small_disk / "out"})
    assert os.listdir(small_disk) == []


def test_a_disk_that_fills_on_the_way_leaves_nothing(make_pair, tmp_path, small_disk):
    sft, aligned = make_pair(vocab=4000)

    def fill(done, total):  # another program takes the space that was free when this one started
        with open(small_disk / "other", "ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    with pytest.raises(CheckpointError, match="the disk is full; free space there, or write to another disk"):
        extrapolate(sft, aligned, {"0.3": small_disk / "out"}, progress=fill)
    assert os.listdir(small_disk) == ["other"]
    (small_disk / "other").unlink()
    extrapolate(sft, aligned, {"0.3": small_disk / "out"})
    assert same_bits(load(small_disk / "out"), dict(sorted(tensors(sft, aligned, 0.3))))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_signal_in_the_middle_and_a_rerun(tmp_path, number):
    """Ten alphas of a large model, stopped when the first bytes are there; then a small model to the same place."""
    large = [write_holes(tmp_path / role, 0.2) for role in ("sft", "aligned")]
    with open(large[1] / "model.safetensors", "r+b") as file:  # equal models are refused
        file.seek(-2, os.SEEK_END)
        file.write(b"\x80\x3f")
    small = [save(tmp_path / f"small{seed}", weights(seed=seed)) for seed in (0, 1)]
    out = tmp_path / "out"
    command = [sys.executable, "-m", "expoflow.cli", "extrapolate", "--out", str(out)]
    command += [f"--alpha={number}" for number in range(1, 11)]
    process = subprocess.Popen(
        [*command, "--sft", large[0], "--aligned", large[1]],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background shell ignores it
    )
    deadline = time.monotonic() + 60
    while not any(file.stat().st_blocks > 64 for file in out.glob(".alpha=*.partial/*.safetensors")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    message = process.communicate(timeout=60)[1]
    assert process.returncode == {signal.SIGTERM: 143, signal.SIGINT: 130, signal.SIGKILL: -9}[number], (
        message
    )
    left = os.listdir(out)
    assert all(name.endswith(".partial") for name in left)
    assert len(left) == (10 if number == signal.SIGKILL else 0)
    if number == signal.SIGINT:
        assert message.endswith("expoflow: interrupted; nothing is left behind\n")
    subprocess.run([*command, "--sft", small[0], "--aligned", small[1]], check=True, capture_output=True)
    assert sorted(os.listdir(out)) == sorted(f"alpha={number}" for number in range(1, 11))
    assert same_bits(load(out / "alpha=1"), dict(sorted(tensors(*small, 1))))


def test_a_folder_that_another_process_is_writing_is_left_alone(make_pair, tmp_path):
    import fcntl

    other, dead = tmp_path / ".out.aaaaaaaa.partial", tmp_path / ".out.bbbbbbbb.partial"
    other.mkdir()
    dead.mkdir()
    held = os.open(other, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    extrapolate(*make_pair(), {"0.3": tmp_path / "out"})
    assert other.is_dir()
    assert not dead.exists()
    os.close(held)


def test_the_files_of_a_new_folder_are_as_readable_as_it_is(tmp_path):
    old = os.umask(0o027)
    try:
        with appearing(tmp_path / "model", replace=False) as new:
            for name, mode in (("model.safetensors", 0o600), ("config.json", 0o640), ("run.sh", 0o700)):
                (new / name).touch()
                (new / name).chmod(mode)
    finally:
        os.umask(old)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "model").iterdir()}
    assert modes == {"model.safetensors": 0o640, "config.json": 0o640, "run.sh": 0o700}
