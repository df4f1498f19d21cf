"""Compare what expoflow, mergekit 0.1.5 and the authors' way do with broken or mismatched pairs.

    python bench/hazards.py --mergekit VENV [--only NAME ...]

Prints a Markdown table. A cell has "error: ..." with the last line of the message, or says how the
output compares with the formula in float64, on the tensors that both inputs have.
"""

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from checkpoints import load, save, weights

UP = "model.layers.0.mlp.up_proj.weight"
AUTHORS = """
import sys, torch
from transformers import AutoModelForCausalLM
sft, aligned, out = sys.argv[1:]
theta0 = AutoModelForCausalLM.from_pretrained(sft, dtype=torch.bfloat16).state_dict()
model = AutoModelForCausalLM.from_pretrained(aligned, dtype=torch.bfloat16)
theta1 = model.state_dict()
assert len(theta0) == len(theta1), "another number of tensors"
for name in theta1:
    theta1[name].copy_(theta1[name] + 0.3 * (theta1[name] - theta0[name]))
model.save_pretrained(out)
"""
Change = Callable[[dict[str, torch.Tensor]], object]


def value(number: float, name: str = UP, place: int = 5) -> Change:
    return lambda tensors: tensors[name].view(-1)[place].fill_(number)


def pair(root: Path, sft: dict | None = None, aligned: dict | None = None, **both) -> None:
    for seed, role, own in ((0, "sft", sft), (1, "aligned", aligned)):
        settings = {**both, **(own or {})}
        change, dtype = settings.pop("change", None), settings.pop("dtype", torch.bfloat16)
        shape = {name: settings[name] for name in ("vocab", "hidden", "layers", "tied") if name in settings}
        tensors = weights(seed=seed, dtype=dtype, **shape)
        if change:
            change(tensors)
        save(root / role, tensors, **settings)


def drop(name: str) -> Change:
    return lambda tensors: tensors.pop(name)


def transpose(tensors: dict[str, torch.Tensor]) -> None:
    tensors[UP] = tensors[UP].T.contiguous()


def buffer(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.rand(4)


def as_type(dtype: torch.dtype) -> Change:
    return lambda tensors: tensors.update({UP: (tensors[UP].float() * 100).to(dtype)})


def cut(root: Path) -> None:
    file = root / "aligned" / "model-00002-of-00002.safetensors"
    os.truncate(file, file.stat().st_size - 64)


def lose(root: Path) -> None:
    (root / "aligned" / "model-00002-of-00002.safetensors").unlink()


def double(root: Path) -> None:
    """Replace the second shard by a copy of the first, so the second's tensors are lost."""
    shutil.copy(*(root / "aligned" / f"model-0000{number}-of-00002.safetensors" for number in (1, 2)))


def flip(root: Path) -> None:
    """Make a hub snapshot with one flipped bit in a blob, which is named by its sha256."""
    file = root / "aligned" / "model.safetensors"
    shutil.copytree(root / "aligned", root / "undamaged")
    data = bytearray(file.read_bytes())
    blob = file.with_name(hashlib.sha256(data).hexdigest())
    data[-1] ^= 0x40  # the exponent of the last element
    blob.write_bytes(data)
    file.unlink()
    file.symlink_to(blob)


class Payload:
    """Unpickling it makes a folder, if code is allowed to run."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def poison(root: Path) -> None:
    torch.save(
        {**load(root / "aligned"), "x": Payload(root / "it-ran")}, root / "aligned" / "pytorch_model.bin"
    )
    (root / "aligned" / "model.safetensors").unlink()


def existing(root: Path) -> None:
    (root / "out").mkdir()
    (root / "out" / "mine.txt").write_text("mine")


HAZARDS: dict[str, tuple[dict, Callable[[Path], None] | None]] = {
    "a good pair": ({}, None),
    "tensor missing in aligned": ({"aligned": {"change": drop(UP)}}, None),
    "tensor missing in sft": ({"sft": {"change": drop(UP)}}, None),
    "tensor transposed in sft": ({"sft": {"change": transpose}}, None),
    "vocabulary 320 / 322": ({"sft": {"vocab": 320}, "aligned": {"vocab": 322, "tokens": 322}}, None),
    "vocabulary 322 / 320": ({"sft": {"vocab": 322, "tokens": 322}, "aligned": {"vocab": 320}}, None),
    "tied in aligned only": ({"aligned": {"tied": True}}, None),
    "tied in sft only": ({"sft": {"tied": True}}, None),
    "rotary buffer in aligned only": ({"aligned": {"change": buffer}}, None),
    "rotary buffer in sft only": ({"sft": {"change": buffer}}, None),
    "another architecture": (
        {"sft": {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}},
        None,
    ),
    "another hidden size": ({"sft": {"hidden": 16}}, None),
    "more layers in sft": ({"sft": {"layers": 3}}, None),
    "int8 weights in both": ({"change": as_type(torch.int8)}, None),
    "FP8 weights in both": ({"change": as_type(torch.float8_e4m3fn)}, None),
    "AWQ config in aligned": ({"aligned": {"quantization_config": {"quant_method": "awq", "bits": 4}}}, None),
    "fp16 against bf16": ({"sft": {"dtype": torch.float16}}, None),
    "shard cut off": ({"aligned": {"shards": 2}}, cut),
    "shard missing": ({"aligned": {"shards": 2}}, lose),
    "tensor in two shards": ({"aligned": {"shards": 2}}, double),
    "bit flip in a hub blob": ({}, flip),
    "malicious pickle": ({}, poison),
    "NaN in aligned only": ({"aligned": {"change": value(float("nan"))}}, None),
    "Inf in both": ({"change": value(float("inf"))}, None),
    "overflow of fp16": (
        {"dtype": torch.float16, "sft": {"change": value(3e4)}, "aligned": {"change": value(6e4)}},
        None,
    ),
    "output exists": ({}, existing),
}


def outcome(root: Path, command: list[str]) -> str:
    out = root / "out"
    environment = {**os.environ, "EXPOFLOW_STORE": str(root / "store"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, stdin=subprocess.DEVNULL)
    ran = "; THE PAYLOAD RAN" if (root / "it-ran").exists() else ""
    lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip(" │╰╯─")]
    left = "; a model is left behind" if done.returncode and any(out.glob("*.safetensors")) else ""
    if done.returncode:
        return f"error: {lines[-1].replace(str(root), '')[:110]}{left}{ran}"
    return f"writes {judged(root, out)}{ran}"


def judged(root: Path, out: Path) -> str:
    """Say how the output compares with the formula."""
    try:
        aligned = root / "undamaged" if (root / "undamaged").exists() else root / "aligned"
        found, theta0, theta1 = (load(folder) for folder in (out, root / "sft", aligned))
    except Exception as error:
        return f"something ({type(error).__name__})"
    wrong = lost = nans = infinite = unknown = 0
    if "lm_head.weight" in theta1 and "lm_head.weight" not in theta0:  # tied in sft
        theta0["lm_head.weight"] = theta0["model.embed_tokens.weight"]
    for name, tensor in theta1.items():
        if name not in found or found[name].shape != tensor.shape:
            lost += 1
            continue
        nans += int(found[name].float().isnan().sum())
        infinite += int(found[name].float().isinf().sum())
        if name not in theta0:
            unknown += not torch.equal(found[name].double(), tensor.double())
        elif theta0[name].shape == tensor.shape:
            expected = tensor.double() + 0.3 * (tensor.double() - theta0[name].double())
            distance = (found[name].double() - expected).abs()[expected.isfinite()]
            expected = expected[expected.isfinite()]
            wrong += bool((distance > 2**-6 * expected.abs() + 1e-4).any())
    notes = [f"{lost} of aligned's tensors missing or of another shape"] * bool(lost)
    notes += [f"{len(set(found) - set(theta1))} tensor that aligned does not have"] * bool(
        set(found) - set(theta1)
    )
    notes += [f"{unknown} tensor moved by a step that is in neither input"] * bool(unknown)
    notes += [f"{wrong} of {len(theta1)} tensors far from the formula"] * bool(wrong)
    notes += [f"{nans} NaN"] * bool(nans) + [f"{infinite} Inf"] * bool(infinite)
    files = [name for name in ("mine.txt",) if (out / name).exists()]
    return ", ".join(notes + [f"into the folder of {name}" for name in files]) or "the formula"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mergekit", type=Path, required=True, help="a venv that has mergekit 0.1.5")
    parser.add_argument("--only", nargs="+", choices=HAZARDS)
    arguments = parser.parse_args()
    print("| hazard | expoflow | mergekit | authors' way |\n| --- | --- | --- | --- |")
    for name in arguments.only or HAZARDS:
        cells = []
        for tool in ("expoflow", "mergekit", "authors"):
            with tempfile.TemporaryDirectory() as folder:
                root = Path(folder)
                settings, damage = HAZARDS[name]
                pair(root, **settings)
                if damage:
                    damage(root)
                cells.append(outcome(root, command_of(tool, root, arguments.mergekit)))
        print(f"| {name} | {' | '.join(cell.replace('|', '/') for cell in cells)} |", flush=True)


def command_of(tool: str, root: Path, venv: Path) -> list[str]:
    sft, aligned, out = (str(root / name) for name in ("sft", "aligned", "out"))
    if tool == "expoflow":
        where = ["--sft", sft, "--aligned", aligned, "--out", out]
        return [sys.executable, "-m", "expoflow.cli", "extrapolate", "--alpha", "0.3", *where]
    if tool == "authors":
        return [sys.executable, "-c", AUTHORS, sft, aligned, out]
    config = root / "merge.yaml"
    config.write_text(
        f"merge_method: task_arithmetic\nbase_model: {sft}\ndtype: bfloat16\n"
        f"models:\n- model: {aligned}\n  parameters: {{weight: 1.3}}\n"
    )
    return [str(venv / "bin" / "mergekit-yaml"), str(config), out, "--quiet"]


if __name__ == "__main__":
    main()
