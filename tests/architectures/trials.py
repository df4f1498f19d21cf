"""What becomes of a pair of every class of transformers: saved, extrapolated, loaded again, and compared with float64.

    python tests/architectures/trials.py [CLASS ...]

prints a line for each class and each kind of pair; an outcome is one of `OUTCOMES`.
"""

import io
import json
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from expoflow.cli import main
from safetensors.torch import load_file, save_file
from tiny import classes, tiny
from torch import nn
from transformers import AutoConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

sys.path.append(str(Path(__file__).parents[1]))
from checkpoints import write_tokenizer

State = dict[str, torch.Tensor]  # what is loaded, by name
Save = Callable[[PreTrainedModel, Path, State], State | None]
ALPHA = 0.5
STEP = 2e-3  # standard deviation of aligned - sft, a tenth of that of the weights
OUTCOMES = {
    "right": "what plain transformers loads of the result is the formula, tensor by tensor",
    "refused": "preflight and extrapolate refuse the pair with one reason, and nothing is written",
    "cannot be made": "transformers cannot make it here, or does not load what it saves",
    "wrong": "a result that differs from the formula, a traceback, or a preflight that says something else",
}


@dataclass(frozen=True)
class Trial:
    """What became of one class in one kind of pair, and why."""

    name: str
    pair: str
    outcome: str
    reason: str = ""


def trials(name: str, root: Path) -> Iterator[Trial]:
    """Make, extrapolate and compare the pairs of one class in the folder `root`."""
    made, why = attempt(lambda: first(name, root / "sft"))
    if made is None:
        yield Trial(name, "as saved", "cannot be made", why)
        return
    model, theta0 = made
    last = None
    for pair, save in PAIRS.items():
        if pair == "adapter without" and last and last.outcome == "right":
            continue  # the half of what is right
        folder = root / pair
        shutil.copytree(root / "sft", folder / "sft")
        theta1, why = attempt(lambda save=save, folder=folder: save(model, folder, theta0))
        last = None
        if why:
            last = Trial(name, pair, "cannot be made", why)
        elif theta1:
            last = Trial(name, pair, *compared(name, folder, theta0, theta1, *OPTIONS.get(pair, ())))
        if last:
            yield last


def attempt(make: Callable[[], Any]) -> tuple[Any, str]:
    """What `make` gives, without what transformers prints; or None and why it cannot be had."""
    try:
        with quiet():
            return make(), ""
    except Exception as error:
        return None, f"{type(error).__name__}: {(str(error).strip() or '-').splitlines()[0]}"


def first(name: str, folder: Path) -> tuple[PreTrainedModel, State]:
    """A tiny model of the class, saved in the folder, and what is loaded of it."""
    model = make(name)
    model.save_pretrained(folder)
    return model, loaded(name, folder)


def make(name: str) -> PreTrainedModel:
    """A tiny model of the class, without a constant among its parameters, as after training."""
    torch.manual_seed(0)
    model = getattr(transformers, name)(tiny(name)).float()
    move(model, 10 * STEP)
    return model


def move(model: PreTrainedModel, deviation: float) -> None:
    """Add noise to every parameter; one that is tied has one noise, and rows of padding stay zero, as in training."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter += deviation * torch.randn(parameter.shape)
        for module in model.modules():
            if isinstance(module, nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0


def as_saved(model: PreTrainedModel, folder: Path, theta0: State) -> State:
    """aligned as save_pretrained writes it: every parameter moved by a step."""
    move(model, STEP)
    model.save_pretrained(folder / "aligned")
    theta1 = loaded(type(model).__name__, folder / "aligned")
    moved = sum(not torch.equal(theta0[name], theta1[name]) for name in theta1)
    if 2 * moved <= len(theta1):
        raise ValueError(f"only {moved} of {len(theta1)} tensors differ as loaded")
    return theta1


def module_names(model: PreTrainedModel, folder: Path, theta0: State) -> State | None:
    """aligned with the names of its modules, if save_pretrained writes others, those of the hub's old files."""
    model.save_pretrained(folder / "aligned", save_original_format=False)
    if names(folder / "aligned") == names(folder / "sft"):
        return None
    return loaded(type(model).__name__, folder / "aligned")


def tied_copies(role: str) -> Save:
    """Every tied weight stored under all its names in one of the two, as FSDP, DeepSpeed and old .bin files have them.

    For `sft` the configs do not say that they are tied, if the class says it.
    """

    def save(model: PreTrainedModel, folder: Path, theta0: State) -> State | None:
        tied = model.all_tied_weights_keys
        if not tied:
            return None
        model.save_pretrained(folder / "aligned")
        apart = type(model).from_pretrained(folder / role, dtype=torch.float32)
        for name in tied:
            module, _, parameter = name.rpartition(".")
            weight = getattr(apart.get_submodule(module), parameter)
            setattr(apart.get_submodule(module), parameter, nn.Parameter(weight.detach().clone()))
        apart.save_pretrained(folder / role)
        if names(folder / role) == names(folder / ("sft" if role == "aligned" else "aligned")):
            return None
        if role == "sft":
            for each in ("sft", "aligned"):
                unsaid(folder / each)
        return loaded(type(model).__name__, folder / "aligned")

    return save


def unsaid(folder: Path) -> None:
    """Leave out of config.json that embeddings are tied, if it is the default of the config's class, as transformers 4 does."""
    file = folder / "config.json"
    text = file.read_text()
    config = json.loads(text)
    tied = config.pop("tie_word_embeddings", None)
    file.write_text(json.dumps(config))
    if getattr(AutoConfig.from_pretrained(folder), "tie_word_embeddings", None) != tied:
        file.write_text(text)


def adapter(embeddings: bool) -> Save:
    """aligned as a LoRA adapter of one linear layer; with `embeddings`, those of the tokens are in it, trained whole.

    If others are tied to them, peft's model trains a copy, and the others stay as they were.
    """

    def save(model: PreTrainedModel, folder: Path, theta0: State) -> State | None:
        theta1 = dict(theta0)
        inner = dict(model.named_modules())
        layer = next(
            (
                name
                for name, each in inner.items()
                if isinstance(each, nn.Linear | Conv1D) and "head" not in name
            ),
            None,
        )
        tokens = model.get_input_embeddings() if embeddings else None
        where = next(
            (name for name, each in inner.items() if each is tokens and isinstance(each, nn.Embedding)), None
        )
        if layer is None or (embeddings and where is None):
            return None
        turned = isinstance(inner[layer], Conv1D)  # its weight has the inputs first
        weight = theta1[f"{layer}.weight"].T if turned else theta1[f"{layer}.weight"]
        lora_a, lora_b = STEP * torch.randn(4, weight.shape[1]), torch.randn(weight.shape[0], 4)
        tensors = {f"{layer}.lora_A.weight": lora_a, f"{layer}.lora_B.weight": lora_b}
        moved = weight.double() + lora_b.double() @ lora_a.double()
        theta1[f"{layer}.weight"] = moved.T if turned else moved
        settings = {
            "peft_type": "LORA",
            "r": 4,
            "lora_alpha": 4,
            "target_modules": [layer],
            "fan_in_fan_out": turned,
        }
        if embeddings:
            noise = STEP * torch.randn(tokens.weight.shape)
            if tokens.padding_idx is not None:
                noise[tokens.padding_idx] = 0
            tensors[f"{where}.weight"] = theta1[f"{where}.weight"] + noise
            theta1[f"{where}.weight"] = tensors[f"{where}.weight"]
            settings["modules_to_save"] = [where.rsplit(".", 1)[-1]]
        unsaid(folder / "sft")
        write_adapter(folder, tensors, settings)
        return theta1

    return save


def write_adapter(folder: Path, tensors: State, settings: dict[str, Any]) -> None:
    """`aligned` as peft writes it, with `sft` as its base."""
    (folder / "aligned").mkdir()
    save_file(
        {f"base_model.model.{name}": each for name, each in tensors.items()},
        folder / "aligned/adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    settings["base_model_name_or_path"] = str(folder / "sft")
    (folder / "aligned/adapter_config.json").write_text(json.dumps(settings))


def more_tokens(model: PreTrainedModel, folder: Path, theta0: State) -> State:
    """aligned with three tokens more, each with a tokenizer."""
    tokens = model.get_input_embeddings().weight.shape[0]
    model.resize_token_embeddings(tokens + 3)
    move(model, STEP)
    model.save_pretrained(folder / "aligned")
    for role, count in (("sft", tokens), ("aligned", tokens + 3)):
        write_tokenizer(folder / role, [f"word{at}" for at in range(count)])
    return loaded(type(model).__name__, folder / "aligned")


# Each makes `aligned` of the model, and changes `sft` if it has to; gives what is loaded of `aligned`, or None if the class
# has no such pair.
PAIRS: dict[str, Save] = {
    "as saved": as_saved,
    "module names": module_names,
    "tied copies in sft": tied_copies("sft"),
    "tied copies in aligned": tied_copies("aligned"),
    "adapter with embeddings": adapter(embeddings=True),
    "adapter without": adapter(embeddings=False),
    "more tokens": more_tokens,  # the last, for it changes the model
}
OPTIONS = {"more tokens": ("--vocabulary", "shared_rows")}


def names(folder: Path) -> set[str]:
    """Names of the tensors in the files of a folder."""
    return {name for file in folder.glob("*.safetensors") for name in load_file(file)}


def loaded(name: str, folder: Path, beside: frozenset[str] = frozenset()) -> State:
    """Everything that plain transformers loads of a folder; `beside` are tensors that the class need not know.

    Raises ValueError if a weight is made at random, or left out.
    """
    model, report = getattr(transformers, name).from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True
    )
    lost = {what: sorted({*map(str, each)} - beside) for what, each in report.items()}
    if what := next((what for what, each in lost.items() if each), None):
        raise ValueError(
            f"transformers does not load what it saves: {len(lost[what])} {what}, {lost[what][0]}"
        )
    return dict(model.state_dict())


def compared(name: str, root: Path, theta0: State, theta1: State, *options: str) -> tuple[str, str]:
    """What the two commands make of `sft` and `aligned` in `root`, of which plain transformers loads theta0 and theta1."""
    pair = ["--sft", str(root / "sft"), "--aligned", str(root / "aligned"), *options]
    checked, found = command("preflight", *pair)
    status, said = command("extrapolate", *pair, "--alpha", str(ALPHA), "--out", str(root / "out"))
    if "Traceback" in found + said:
        return ("wrong", f"traceback: {(found if 'Traceback' in found else said).splitlines()[-1]}")
    if status:
        reason = said.replace(f"{root}/", "").removeprefix("expoflow: ").splitlines()[0]
        if (root / "out").exists():
            return ("wrong", f"refused, and a folder is left: {reason}")
        if errors(found) != errors(said):
            return "wrong", f"preflight says something else: {reason}"
        return "refused", reason
    theta2, why = attempt(lambda: loaded(name, root / "out", frozenset(names(root / "aligned"))))
    if why:
        return "wrong", f"the result is not loaded: {why}"
    if far := differing(theta0, theta1, theta2):
        return ("wrong", far)
    if checked:
        error = next(line for line in found.splitlines() if line.startswith(("error", "expoflow")))
        return ("wrong", f"preflight refuses what is right: {error.replace(f'{root}/', '')}")
    return "right", ""


def errors(output: str) -> list[str]:
    """What one of the two commands refuses."""
    return re.findall(r"^(?:expoflow: |error +\w+ +)(.*)", output, re.MULTILINE)


def differing(theta0: State, theta1: State, theta2: State, rounding: float = 2**-22) -> str:
    """The first tensor that is not theta1 + ALPHA * (theta1 - theta0) in float64, to `rounding`; empty if all are.

    Tensors of integers, and those that are equal in both, must be theta1's.
    """
    if theta2.keys() != theta1.keys():
        return f"loaded with other tensors: {sorted(theta2.keys() ^ theta1.keys())[0]}"
    for name, aligned in theta1.items():
        sft, expected = theta0[name], aligned
        shared = tuple(map(slice, sft.shape))  # of the tokens, aligned may have more
        if aligned.is_floating_point() and not torch.equal(sft, aligned.to(sft.dtype)):
            expected = aligned.double().clone()
            expected[shared] += ALPHA * (expected[shared] - sft.double())
        off = (theta2[name].double() - expected.double()).abs()
        exact = aligned.is_floating_point() or torch.equal(theta2[name], aligned)
        if not exact or (off > rounding * (aligned.double().abs() + STEP)).any():
            return f"{name}: off by {off.max():.2g}, where the step is up to {(expected - aligned).abs().max():.2g}"
    return ""


def command(*words: str) -> tuple[int, str]:
    """Exit status and output of an expoflow command, in this process."""
    out = io.StringIO()
    with redirect_stdout(out), redirect_stderr(out):
        status = main([*words])
    return status, out.getvalue()


@contextmanager
def quiet():
    """Without what transformers prints."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


if __name__ == "__main__":
    for each in sys.argv[1:] or classes():
        with tempfile.TemporaryDirectory() as folder:
            for found in trials(each, Path(folder)):
                print(*vars(found).values(), sep=" | ", flush=True)
