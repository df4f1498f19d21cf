"""Is a checkpoint whole: of plain models it is known without their class, of others their class is asked; both commands agree."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from expoflow.checkpoints import whole
from expoflow.checkpoints.checkpoint import open_checkpoint
from expoflow.checkpoints.loading import load_report
from expoflow.cli import main
from safetensors.torch import load_file, save_file
from small_models import SMALL, change_config, change_tensors, model_of, save, save_pair

State = dict[str, torch.Tensor]


def needs_nothing(folder: Path) -> bool:
    """Whether the class finds all it needs, and knows all there is."""
    _, report = load_report(folder, open_checkpoint(folder).tensors, "any model")
    return not any(report.values())


@pytest.mark.parametrize("kind", whole.PLAIN)
@pytest.mark.parametrize(
    "settings",
    [{}, {"tie_word_embeddings": True}, {"head_dim": 24}, {"attention_bias": True}, {"num_hidden_layers": 3}],
    ids=str,
)
def test_a_plain_model_is_what_its_class_needs(tmp_path, kind, settings):
    folder = save(model_of(kind, **settings), tmp_path / kind)
    assert needs_nothing(folder)
    assert whole.plain(open_checkpoint(folder)) is ("attention_bias" not in settings)  # which is asked
    names = list(open_checkpoint(folder).tensors)
    for name in names[:: 1 if settings == {} else 5]:
        lacking = open_checkpoint(folder)
        lacking.tensors.pop(name)
        assert not whole.plain(lacking), name


@pytest.mark.parametrize("kind", whole.PLAIN)
@pytest.mark.parametrize(
    "changes",
    [
        {"vocab_size": 65},
        {"num_hidden_layers": 2},
        {"num_key_value_heads": 2},
        {"intermediate_size": 48},
        {"num_key_value_heads": None},
        {"architectures": None},
        {"hidden_size": "16"},
        {"num_attention_heads": 0},
    ],
    ids=str,
)
def test_a_config_that_does_not_describe_its_weights_is_not_plain(tmp_path, kind, changes):
    folder = save(model_of(kind), tmp_path / kind)
    assert whole.plain(open_checkpoint(folder))
    assert not whole.plain(open_checkpoint(change_config(folder, **changes)))


def first(state: State) -> str:
    """A weight that no tie gives."""
    return next(name for name in state if name.endswith("norm.weight") or "ln_" in name or "norm" in name)


def without(state: State) -> State:
    return {name: each for name, each in state.items() if name != first(state)}


def transposed(state: State) -> State:
    name = next(name for name, each in state.items() if each.dim() == 2 and each.shape[0] != each.shape[1])
    return state | {name: state[name].T}


def more(**tensors: torch.Tensor) -> Callable[[State], State]:
    return lambda state: state | {name.replace("__", "."): each for name, each in tensors.items()}


def both(change: Callable[[State], State]) -> Callable[[Path, Path], None]:
    return lambda sft, aligned: [change_tensors(folder, change) for folder in (sft, aligned)]


def one(change: Callable[[State], State]) -> Callable[[Path, Path], None]:
    return lambda sft, aligned: change_tensors(aligned, change)


def other_integers(sft: Path, aligned: Path) -> None:
    change_tensors(sft, more(steps=torch.tensor([1])))
    change_tensors(aligned, more(steps=torch.tensor([2])))


# What is done to both folders of a pair, and what of it is said; empty if the pair is extrapolated.
DAMAGES = {
    "nothing": (lambda sft, aligned: None, ""),
    "both lack a tensor": (both(without), "1 weights would be random"),
    "aligned lacks a tensor": (one(without), "in sft, not in aligned"),
    "both have one in another shape": (both(transposed), "by its config.json; give the config.json that belongs"),
    "both have tensors that no class knows": (
        both(more(x__scale=torch.tensor(1.5), x__mask=torch.ones(3, dtype=torch.uint8))), "",
    ),
    "integers that differ": (other_integers, "integers cannot be extrapolated"),
    "a config that is not read": (
        lambda sft, aligned: [change_config(each, num_hidden_layers=10**6, n_layer=10**6) for each in (sft, aligned)], "",
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", SMALL)
def test_preflight_and_extrapolate_say_the_same(tmp_path, capsys, kind, damage):
    folders = save_pair(kind, tmp_path)
    change, text = DAMAGES[damage]
    change(*folders)
    pair = ["--sft", str(folders[0]), "--aligned", str(folders[1])]
    checked = main(["preflight", *pair])
    said = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()[:-1]]
    made = main(["extrapolate", *pair, "--alpha=0.5", f"--out={tmp_path / 'out'}"])
    told = capsys.readouterr().err.splitlines()
    assert bool(checked) == bool(made) == bool(text) == (not (tmp_path / "out").exists())
    if text:
        assert [line.removeprefix("expoflow: ") for line in told] == [
            each for level, _, each in said if level == "error"
        ]
        assert text in told[0]
    else:
        assert sorted(told) == sorted(f"{level}: {each}" for level, _, each in said)


def pickle(folder: Path) -> Path:
    """The same as pytorch_model.bin, which is converted in the store."""
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    return folder


def trained_head(folder: Path) -> Path:
    """A LoRA adapter of the head."""
    folder.mkdir()
    factors = {"A": torch.randn(2, 16), "B": torch.randn(64, 2)}
    names = {f"base_model.model.lm_head.lora_{part}.weight": each for part, each in factors.items()}
    save_file(names, folder / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 2, "target_modules": ["lm_head"]}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def own_head(tmp_path: Path) -> tuple[Path, Path]:
    """aligned stores other values for a head that its class ties."""
    sft, aligned = save_pair("gemma2", tmp_path)
    head = torch.randn(64, 16)
    for folder in (sft, aligned):
        change_config(folder, tie_word_embeddings=None)
    return pickle(sft), pickle(change_tensors(aligned, more(lm_head__weight=head)))


def unknown_class(tmp_path: Path) -> tuple[Path, Path]:
    """An adapter on a base of which it is not known what is tied."""
    base = change_config(
        save(model_of("llama"), tmp_path / "sft"), model_type="our-own", tie_word_embeddings=None
    )
    return pickle(base), trained_head(tmp_path / "aligned")


@pytest.mark.parametrize(("make", "tied"), [(own_head, "aligned"), (unknown_class, "sft")])
def test_the_remedy_for_pickles_names_the_users_file_and_works(tmp_path, monkeypatch, capsys, make, tied):
    monkeypatch.setenv("EXPOFLOW_STORE", str(tmp_path / "store"))
    sft, aligned = make(tmp_path)
    pair = ["--sft", str(sft), "--aligned", str(aligned), "--unrelated"]
    assert main(["preflight", *pair]) in (1, 2)
    text = "".join(capsys.readouterr())
    assert f"write tie_word_embeddings: false into {tmp_path / tied / 'config.json'}" in text
    assert str(tmp_path / "store") not in text
    for folder in {sft, tmp_path / tied}:
        change_config(folder, tie_word_embeddings=False)
    if make is own_head:  # both trained, so the SFT model has a head too
        state = torch.load(sft / "pytorch_model.bin")
        torch.save(
            state | {"lm_head.weight": state["model.embed_tokens.weight"].clone()}, sft / "pytorch_model.bin"
        )
    assert main(["extrapolate", *pair, "--alpha=0.5", f"--out={tmp_path / 'out'}"]) == 0


def test_a_plain_pair_imports_no_torch_though_its_class_would_say_more(tmp_path):
    sft, aligned = save_pair("llama", tmp_path)
    code = (
        "import sys; from expoflow.extrapolation.preflight import open_pair; pair = open_pair(*sys.argv[1:]);"
    )
    code += "assert not pair.errors; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, sft, aligned], check=False).returncode == 0
