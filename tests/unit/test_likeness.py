"""Is the aligned model one that was trained from this SFT model? What a sample of the weights says."""

import re

import numpy as np
import pytest
import torch
from adapters import merged as merged_by_peft
from adapters import save_base, train
from checkpoints import load, save, weights
from expoflow.cli import main
from expoflow.errors import PairError
from expoflow.extrapolation import likeness
from expoflow.extrapolation.extrapolate import extrapolate, planned
from expoflow.extrapolation.likeness import looked_at, measure
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.preflight import open_pair

APART = torch.Generator().manual_seed(7)


def foreign(*layers):
    """Change the matrices of these layers, of all tensors without any, into those of a model trained apart."""

    def change(tensors):
        for name, tensor in tensors.items():
            inside = not layers or any(f"layers.{layer}." in name for layer in layers)
            if inside and tensor.dim() > 1:
                tensors[name] = (torch.randn(tensor.shape, generator=APART) * 0.02).to(tensor.dtype)

    return {"change": change}


def scaled(kind, size):
    """Add a step of `size` times the weights to the tensors whose names have `kind`."""

    def change(tensors):
        for name, tensor in tensors.items():
            if kind in name:
                tensor += (torch.randn(tensor.shape, generator=APART) * size * tensor.float().std()).to(
                    tensor
                )

    return {"change": change}


def look(pair):
    return looked_at(pair, unrelated=False)[0]


def findings(pair, unrelated=False, vocabulary="error"):
    opened = open_pair(*pair, vocabulary)
    assert opened.errors == []
    looked, _ = looked_at(opened, unrelated)
    return [(each.level, each.message) for each in looked.findings[len(opened.findings) :]]


def exact(sft, aligned, names):
    """(correlation, |delta| / |theta1|) over whole tensors, the matrices among `names`."""
    one, zero = load(aligned), load(sft)
    names = [name for name in one if one[name].dim() > 1 and re.search(names, name)]
    ours, theirs = (torch.cat([each[name].double().flatten() for name in names]) for each in (one, zero))
    ratio = (ours - theirs).norm() / ours.norm()
    return torch.corrcoef(torch.stack([ours, theirs]))[0, 1].item(), ratio.item()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_a_sample_has_the_figures_of_the_whole(make_pair, dtype):
    pair = make_pair(dtype=dtype, hidden=96, aligned={"shards": 3, **scaled("mlp.up", 0.1)})
    found = measure(open_pair(*pair))
    assert found.whole.measured == 4096 * (2 + 2 * 7)
    for sums, names in (
        (found.whole, "."),
        (found.kinds["attention"], "self_attn"),
        (found.kinds["mlp"], "mlp"),
        (found.kinds["embeddings"], "embed"),
        (found.layers["model.layers", 1], "layers.1"),
    ):
        correlation, ratio = exact(*pair, names)
        assert sums.correlation == pytest.approx(correlation, abs=2e-4)
        assert sums.ratio == pytest.approx(ratio, rel=0.04)
    assert findings(pair) == []


def test_small_tensors_are_looked_at_whole(make_pair):
    pair = make_pair(vocab=64, tokens=64)
    correlation, ratio = exact(*pair, ".")
    whole = measure(open_pair(*pair)).whole
    assert whole.ratio == pytest.approx(ratio, rel=1e-9)
    assert whole.correlation == pytest.approx(correlation, rel=1e-6)


def test_models_that_were_trained_apart_are_refused_in_spite_of_equal_norms(make_pair, tmp_path, capsys):
    pair = make_pair(aligned=foreign())
    ((level, text),) = findings(pair)
    assert level == "error"
    assert re.search(
        r"^this aligned model does not look trained from this SFT model: no likeness in any layer "
        r"\(correlation -?0.0\d, \|delta\| / \|theta1\| 1.4\); give the model that alignment began with as sft",
        text,
    )
    assert findings(pair, unrelated=True) == [("warning", text)]
    command = [
        "extrapolate",
        "--sft",
        pair[0],
        "--aligned",
        pair[1],
        "--alpha=0.3",
        "--out",
        tmp_path / "out",
    ]
    command = [str(each) for each in command]
    for more in ([], ["--dry-run"]):
        assert main([*command, *more]) == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    assert main(["preflight", *command[1:5]]) == 1
    assert text in capsys.readouterr().out
    assert main([*command, "--unrelated"]) == 0
    assert f"warning: {text}" in capsys.readouterr().err
    assert (tmp_path / "out/recipe.json").is_file()


def test_the_layers_that_a_merge_took_from_elsewhere_are_named(make_pair):
    """A frankenmerge: the second half is the first half's layers once more, well trained and at the wrong place."""

    def doubled(tensors):
        for name in [name for name in tensors if re.search(r"layers\.[4-7]\.", name)]:
            tensors[name] = tensors[re.sub(r"\d", lambda at: str(int(at[0]) - 4), name)].clone()

    ((level, text),) = findings(make_pair(layers=8, aligned={"change": doubled}))
    assert level == "error"
    assert "no likeness in layers 4 to 7 of 8 (model.layers) (correlation" in text


def test_single_layers_and_embeddings_too(make_pair):
    ((_, text),) = findings(make_pair(layers=6, aligned=foreign(1, 4)))
    assert "no likeness in layers 1, 4 of 6 (model.layers)" in text


def test_embeddings_of_another_model(make_pair):
    def change(tensors):
        tensors["model.embed_tokens.weight"] = torch.randn(320, 32, generator=APART).bfloat16()

    ((_, text),) = findings(make_pair(aligned={"change": change}))
    assert "no likeness in the embeddings" in text


def test_a_delta_far_above_alignment_is_a_warning_with_its_place(make_pair):
    pair = make_pair(layers=4, aligned=scaled("layers.3", 0.5))
    ((level, text),) = findings(pair)
    assert level == "warning"
    ratio = measure(open_pair(*pair)).halves()["model.layers, second half"].ratio
    assert ratio == pytest.approx(exact(*pair, r"layers\.[23]")[1], rel=0.02)
    assert ratio > likeness.FAR
    assert f"and {ratio:.2g} in model.layers, second half (alignment: below 0.05)" in text
    looked = extrapolate(*pair, {"0.3": pair[0].parent / "out"}, look=look)["0.3"]
    assert text in looked.warnings
    assert f"warning: {text}" in planned(*pair, {"0.3": pair[0].parent / "new"}, Options(), look=look)


def test_rows_that_only_one_vocabulary_has_do_not_count(make_pair):
    def longer(tensors):
        tensors.update(weights(seed=1))
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            rows = 50 * torch.randn(1680, 32, generator=APART)
            tensors[name] = torch.cat([tensors[name], rows.bfloat16()])

    pair = make_pair(aligned={"vocab": 2000, "tokens": 2000, "change": longer})
    assert findings(pair, vocabulary="shared_rows") == []


def test_constants_and_tied_heads_do_not_count(make_pair):
    """All ones in both models, a mask of -inf, and a head that only one stores in spite of its tie."""

    def both(tensors):
        tensors["model.layers.0.gate.weight"] = torch.ones(64, 64, dtype=torch.bfloat16)
        tensors["model.layers.0.mask"] = torch.full((64, 64), -torch.inf, dtype=torch.bfloat16)

    def stored(tensors):
        both(tensors)
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()

    assert findings(make_pair(tied=True, sft={"change": both}, aligned={"change": stored})) == []


def test_constants_alone_say_nothing(make_pair):
    def ones(tensors):
        for name in tensors:
            tensors[name] = torch.ones_like(tensors[name])

    def others(tensors):
        for name in tensors:
            tensors[name] = torch.ones_like(tensors[name]) * 1.01

    pair = make_pair(sft={"change": ones}, aligned={"change": others})
    assert measure(open_pair(*pair)).whole.correlation is None
    assert findings(pair) == []


@pytest.mark.parametrize("size", [1e-2, 3.0])
def test_an_adapter_is_looked_at_as_the_model_that_it_makes(tmp_path, size):
    base = save_base(tmp_path / "base", torch.float32)
    adapter = train(base, tmp_path / "lora", size, r=4, target_modules=["q_proj", "up_proj"])
    whole = save(tmp_path / "whole", dict(sorted(merged_by_peft(base, adapter).items())))
    one, other = (measure(open_pair(base, each)) for each in (adapter, whole))
    assert one.whole.ratio == pytest.approx(other.whole.ratio, rel=1e-4)
    assert one.layers["model.layers", 1].correlation == pytest.approx(
        other.layers["model.layers", 1].correlation, rel=1e-5
    )
    found = findings((base, adapter))
    assert [level for level, _ in found] == ([] if size < 1 else ["error"])


def test_equal_models_are_said(make_pair):
    pair = make_pair(aligned={"change": lambda tensors: tensors.update(weights())})
    ((level, text),) = findings(pair)
    assert level == "warning"
    assert re.search(r"none of \d+ sampled elements differs", text)


UP = "model.layers.0.mlp.up_proj.weight"


def setting(value):
    return {"change": lambda tensors: tensors[UP].view(-1)[700].fill_(value)}


@pytest.mark.parametrize(
    ("sft", "aligned", "words"),
    [
        ("nan", "nan", "elements are NaN in both models, so neither can answer"),
        ("nan", "inf", "elements are NaN or Inf in one model only"),
        ("0", "nan", "elements are NaN or Inf in one model only"),
        ("inf", "0", "elements are NaN or Inf in one model only"),
    ],
)
def test_numbers_that_are_none_are_an_error_if_the_sample_has_them(make_pair, tmp_path, sft, aligned, words):
    pair = make_pair(sft=setting(float(sft)), aligned=setting(float(aligned)))
    ((level, text),) = findings(pair)
    assert level == "error"
    assert text.startswith(f"tensor {UP}: ")
    assert re.search(words, text)
    with pytest.raises(PairError, match=UP):
        extrapolate(*pair, {"0.3": tmp_path / "out"}, look=look)


def test_what_is_looked_at_is_bounded(make_pair, monkeypatch):
    for count in (4097, 10_000, 320 * 32, 8192 * 28672):
        starts = np.array(likeness._starts(count))
        assert (np.diff(starts) >= likeness.LENGTH).all()
        assert starts[0] >= 0
        assert starts[-1] + likeness.LENGTH <= count
    pair = open_pair(*make_pair(layers=8))
    monkeypatch.setattr(likeness, "TENSORS", 20)
    found = measure(pair)
    assert found.whole.measured <= 20 * 4096
    assert len(found.layers) == 8
