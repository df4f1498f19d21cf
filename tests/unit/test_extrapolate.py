"""Whole checkpoints: exact, the same by every route, complete, and loadable."""

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from checkpoints import bits, load, same_bits, save, weights
from expoflow.errors import CheckpointError, PairError
from expoflow.extrapolation import effect, kernel, writer
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.model_card import model_card
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.extrapolation.tensor_stream import tensors
from expoflow.files import uncached_output
from expoflow.files.hashing import sha256
from expoflow.files.records import read_json
from expoflow.system import progress
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


def reference(sft, aligned, alpha, dtype=None):
    """The formula in float64 on whole tensors."""
    theta0, theta1 = load(sft), load(aligned)
    return {
        name: (theta1[name].double() + alpha * (theta1[name].double() - theta0[name].double())).to(
            dtype or theta1[name].dtype
        )
        for name in theta1
    }


def close(found, expected):
    """At most a few elements differ, by one rounding."""
    for name, each in expected.items():
        assert found[name].dtype == each.dtype
        assert torch.allclose(
            found[name].double(), each.double(), rtol=2 * torch.finfo(each.dtype).eps, atol=1e-9
        )
        if each.dtype != torch.float64:  # there the reference itself is rounded at every step
            assert (found[name] != each).float().mean() < 2e-3, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [(1, 1), (1, 3), (3, 1), (2, 3)])
def test_any_layout_and_type(make_pair, tmp_path, dtype, layout):
    sft, aligned = make_pair(dtype=dtype, sft={"shards": layout[0]}, aligned={"shards": layout[1]})
    recipe = extrapolate(sft, aligned, {"0.3": tmp_path / "out"})["0.3"]
    close(load(tmp_path / "out"), reference(sft, aligned, 0.3))
    assert same_bits(
        dict(tensors(sft, aligned, 0.3)),
        {name: load(tmp_path / "out")[name] for name, _ in tensors(sft, aligned, 0.3)},
    )
    assert recipe.effective_alpha == pytest.approx(0.3, rel=0.02)
    for file in aligned.glob("model*.safetensors*"):
        copy = tmp_path / "out" / file.name
        assert copy.stat().st_size == file.stat().st_size or file.suffix == ".json"
        if file.suffix != ".json":
            length = int.from_bytes(file.read_bytes()[:8], "little") + 8
            assert copy.read_bytes()[:length] == file.read_bytes()[:length]


@pytest.mark.parametrize(
    "kinds",
    [(torch.float16, torch.bfloat16), (torch.bfloat16, torch.float32), (torch.float32, torch.float16)],
)
def test_types_that_differ_give_theta1s(make_pair, tmp_path, kinds):
    sft, aligned = make_pair(sft={"dtype": kinds[0]}, aligned={"dtype": kinds[1]})
    extrapolate(sft, aligned, {"0.3": tmp_path / "out"})
    close(load(tmp_path / "out"), reference(sft, aligned, 0.3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_another_output_type(make_pair, tmp_path, dtype):
    def add(tensors):
        tensors["steps"] = torch.arange(3)

    sft, aligned = make_pair(change=add, aligned={"shards": 2})
    options = Options(dtype=dtype)
    extrapolate(sft, aligned, {"0.5": tmp_path / "out"}, options)
    found = load(tmp_path / "out")
    assert found.pop("steps").tolist() == [0, 1, 2]
    expected = reference(sft, aligned, 0.5, getattr(torch, dtype))
    expected.pop("steps")
    close(found, expected)
    assert json.loads((tmp_path / "out" / "config.json").read_text())["dtype"] == dtype
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(each.nbytes for each in load(tmp_path / "out").values())
    streamed = dict(tensors(sft, aligned, 0.5, options))
    assert all(torch.equal(bits(streamed[name]), bits(each)) for name, each in load(tmp_path / "out").items())


def test_alpha_0_gives_theta1s_bytes_and_minus_1_theta0s_values(make_pair, tmp_path):
    sft, aligned = make_pair(aligned={"shards": 2})
    extrapolate(sft, aligned, {"0": tmp_path / "zero", "-1": tmp_path / "minus"})
    for file in aligned.glob("*.safetensors"):
        assert (tmp_path / "zero" / file.name).read_bytes() == file.read_bytes()
    theta0 = load(sft)
    assert all(torch.equal(bits(each), bits(theta0[name])) for name, each in load(tmp_path / "minus").items())
    assert all(torch.equal(bits(each), bits(theta0[name])) for name, each in tensors(sft, aligned, -1))
    assert same_bits(dict(sorted(tensors(sft, aligned, 0))), dict(sorted(load(aligned).items())))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(61, 3000), st.integers(1, 9), st.integers(1, 4), st.booleans(), st.booleans())
def test_blocks_threads_direct_and_short_writes_never_change_a_bit(
    tmp_path_factory, monkeypatch, block, spans, threads, direct, short
):
    folder = tmp_path_factory.mktemp("blocks")
    alphas = ("0.3", "2", "-0.5")
    if direct:
        block = (
            uncached_output.PAGE * len(alphas) * (1 + block // 1000)
        )  # else borders that cut an element, too
    pwrite = os.pwrite
    sft, aligned = save(folder / "sft", weights()), save(folder / "aligned", weights(seed=1), shards=2)
    extrapolate(sft, aligned, {alpha: folder / f"whole{alpha}" for alpha in alphas}, Options(threads=1))
    with monkeypatch.context() as patch:
        patch.setattr(writer, "BLOCK", block)
        patch.setattr(writer, "SPAN", block * spans)
        patch.setattr(uncached_output, "LARGE", 0 if direct else 1 << 60)
        if not direct:
            patch.setattr(writer, "PAGE", 1)
        if short:  # the system may write less than it was asked to
            patch.setattr(
                os, "pwrite", lambda file, data, at: pwrite(file, data[: 1 + len(data) * 2 // 3], at)
            )
        extrapolate(
            sft, aligned, {alpha: folder / f"parts{alpha}" for alpha in alphas}, Options(threads=threads)
        )
    for alpha in alphas:
        names = sorted(os.listdir(folder / f"whole{alpha}"))
        assert names == sorted(os.listdir(folder / f"parts{alpha}"))
        assert all(
            (folder / f"whole{alpha}" / name).read_bytes() == (folder / f"parts{alpha}" / name).read_bytes()
            for name in names
        )


def test_several_alphas_in_one_pass_are_the_single_ones(make_pair, tmp_path):
    sft, aligned = make_pair()
    alphas = ("0.1", "0.5", "1", "0", "-0.25", "-0.75", "-1", "-2", "3", "30")
    assert len(alphas) > kernel.TOGETHER
    extrapolate(sft, aligned, {alpha: tmp_path / f"fused{alpha}" for alpha in alphas})
    for alpha in alphas:
        extrapolate(sft, aligned, {alpha: tmp_path / f"single{alpha}"})
        for name in os.listdir(tmp_path / f"single{alpha}"):
            assert (tmp_path / f"single{alpha}" / name).read_bytes() == (
                tmp_path / f"fused{alpha}" / name
            ).read_bytes()


def test_bfloat16_compute_of_a_whole_model(make_pair, tmp_path):
    sft, aligned = make_pair()
    options = Options(compute="bfloat16")
    extrapolate(sft, aligned, {"0.3": tmp_path / "out"}, options)
    theta0, theta1 = load(sft), load(aligned)
    expected = {name: theta1[name] + 0.3 * (theta1[name] - theta0[name]) for name in theta1}
    assert same_bits(load(tmp_path / "out"), expected)
    assert not same_bits(dict(tensors(sft, aligned, 0.3)), dict(tensors(sft, aligned, 0.3, options)))


@pytest.mark.parametrize(("sft_rows", "rows"), [(320, 322), (322, 320)])
def test_shared_rows(make_pair, tmp_path, sft_rows, rows):
    pair = make_pair(sft={"vocab": sft_rows, "tokens": sft_rows}, aligned={"vocab": rows, "tokens": rows})
    options = Options(vocabulary="shared_rows")
    extrapolate(*pair, {"0.3": tmp_path / "out"}, options)
    found, theta1, theta0 = load(tmp_path / "out"), load(pair[1]), load(pair[0])
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert found[name].shape == (rows, 32)
        assert torch.equal(found[name][320:], theta1[name][320:])
        expected = theta1[name][:320].double() + 0.3 * (
            theta1[name][:320].double() - theta0[name][:320].double()
        )
        close({name: found[name][:320]}, {name: expected.bfloat16()})
    for alpha in (0.3, -1, 0):
        shapes = {name: each.shape for name, each in tensors(*pair, alpha, options)}
        assert shapes == {name: each.shape for name, each in theta1.items()}
    for name in ("tokenizer.json", "config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (pair[1] / name).read_bytes()
    with pytest.raises(PairError, match="set vocabulary: shared_rows"):
        extrapolate(*pair, {"0.3": tmp_path / "other"})


def test_an_alpha_by_tensor_name(make_pair, tmp_path):
    sft, aligned = make_pair()
    options = Options(alpha_for=(("mlp", 1.0), ("layers.0.mlp", 0.0)))
    recipe = extrapolate(sft, aligned, {"0.3": tmp_path / "out"}, options)["0.3"]
    found, streamed = load(tmp_path / "out"), dict(tensors(sft, aligned, 0.3, options))
    for name, theta1 in load(aligned).items():
        alpha = 0.0 if "layers.0.mlp" in name else 1.0 if "mlp" in name else 0.3
        close({name: found[name]}, {name: reference(sft, aligned, alpha)[name]})
        assert torch.equal(found[name], streamed[name])
        assert alpha or torch.equal(found[name], theta1)
    assert read_json(tmp_path / "out" / "recipe.json", ExtrapolationRecipe) == recipe
    assert recipe.alpha_for == options.alpha_for
    assert recipe.warnings == ()


def test_the_recipe_says_what_was_done(make_pair, tmp_path):
    sft, aligned = make_pair(aligned={"shards": 2})
    recipe = extrapolate(
        sft, aligned, {"0.3": tmp_path / "out"}, Options(hash_outputs=True), card=model_card,
        labels=("org/sft", "org/dpo"), revisions=("abc", None),
    )["0.3"]  # fmt: skip
    assert read_json(tmp_path / "out" / "recipe.json", ExtrapolationRecipe) == recipe
    assert (recipe.sft.source, recipe.sft.revision) == ("org/sft", "abc")
    assert str(tmp_path) not in (tmp_path / "out" / "recipe.json").read_text()
    assert recipe.aligned.weights == {file.name: sha256(file) for file in aligned.glob("*.safetensors")}
    assert recipe.outputs == {file.name: sha256(file) for file in (tmp_path / "out").glob("*.safetensors")}
    assert recipe.files == {
        name: sha256(tmp_path / "out" / name) for name in ("config.json", "tokenizer.json")
    }
    theta0, theta1, theta2 = load(sft), load(aligned), load(tmp_path / "out")
    flat = [
        torch.cat([each[name].double().flatten() for name in theta1]) for each in (theta0, theta1, theta2)
    ]
    delta, step = flat[1] - flat[0], flat[2] - flat[1]
    assert recipe.elements == recipe.measured == delta.numel()
    assert recipe.effective_alpha == pytest.approx(((step @ delta) / (delta @ delta)).item(), rel=1e-4)
    assert recipe.moved_share == pytest.approx((step != 0).double().mean().item(), rel=1e-9)
    assert recipe.delta_norm_ratio == pytest.approx((delta.norm() / flat[1].norm()).item(), rel=1e-4)
    assert recipe.alpha_delta_norm_ratio == pytest.approx(0.3 * recipe.delta_norm_ratio, rel=1e-6)
    assert set(recipe.kinds) == {"attention", "embeddings", "head", "mlp", "norms"}
    assert sum(each.elements for each in recipe.kinds.values()) == recipe.elements
    card = (tmp_path / "out" / "README.md").read_text()
    assert "# Extrapolated model, alpha = 0.3" in card
    assert "| SFT (theta0) | `org/sft` at `abc` |" in card


def test_steps_that_rounding_swallows_are_warned_of(make_pair, tmp_path):
    def nudge(tensors):
        for name, tensor in weights().items():
            tensors[name] = (tensor.double() * (1 + 2**-8)).to(tensor.dtype)

    sft, aligned = make_pair(aligned={"change": nudge})
    outs = {"0.1": tmp_path / "bf16"}
    recipe = extrapolate(sft, aligned, outs)["0.1"]
    assert recipe.effective_alpha < 0.05
    assert "rounding swallows most of the step" in recipe.warnings[0]
    recipe = extrapolate(sft, aligned, {"0.1": tmp_path / "fp32"}, Options(dtype="float32"))["0.1"]
    assert recipe.effective_alpha == pytest.approx(0.1, rel=1e-3)
    assert recipe.warnings == ()


def test_equal_models_have_no_effective_alpha(make_pair, tmp_path):
    sft, _ = make_pair()
    recipe = extrapolate(sft, sft, {"0.3": tmp_path / "out"})["0.3"]
    assert (recipe.effective_alpha, recipe.moved_share, recipe.delta_norm_ratio) == (None, 0.0, 0.0)
    assert same_bits(load(tmp_path / "out"), load(sft))


def test_large_tensors_are_measured_on_a_sample_that_is_near_the_whole():
    covered = [0] * (5 * effect.PERIOD + 3)
    for start, stop in effect.slices(len(covered)):
        covered[start:stop] = [1] * (stop - start)
    assert sum(covered) == pytest.approx(len(covered) * effect.SLICE / effect.PERIOD, rel=0.2)
    assert list(effect.slices(0)) == [(0, 0)]
    assert list(effect.slices(effect.WHOLE)) == [(0, effect.WHOLE)]
    sums = effect.Sums()
    sums.add(1000, 0.5, [(10, 5, 1.0, 0.5, 4.0), (10, 10, 1.0, 0.5, 4.0)])
    result = sums.effect()
    assert (result.elements, result.measured, result.moved_share) == (1000, 20, 0.75)
    assert (result.effective_alpha, result.delta_norm_ratio, result.alpha_delta_norm_ratio) == (
        0.5,
        0.5,
        0.25,
    )


def test_without_weights_everything_else_is_there(make_pair, tmp_path):
    sft, aligned = make_pair()
    stored = extrapolate(sft, aligned, {"0.3": tmp_path / "stored"})["0.3"]
    streamed = extrapolate(sft, aligned, {"0.3": tmp_path / "streamed"}, write_weights=False)["0.3"]
    assert sorted(os.listdir(tmp_path / "streamed")) == [
        "config.json",
        "recipe.json",
        "tokenizer.json",
    ]
    assert (stored.weights, streamed.weights) == ("stored", "streamed")
    assert streamed.effective_alpha == stored.effective_alpha
    assert streamed.content_digest() == stored.content_digest()


def test_references_without_weights_import_no_torch_and_use_known_sha256s(make_pair, tmp_path):
    sft, aligned = make_pair()
    code = f"""
import sys
from pathlib import Path
from expoflow.extrapolation.extrapolate import extrapolate
sft, aligned = Path({str(sft)!r}), Path({str(aligned)!r})
known = {{sft: {{"model.safetensors": "a" * 64}}, aligned: {{"model.safetensors": "b" * 64}}}}
recipes = extrapolate(sft, aligned, {{"0": Path("zero"), "-1": Path("minus")}}, known=known, write_weights=False)
print("torch" in sys.modules, recipes["-1"].effective_alpha, recipes["0"].weights, recipes["0"].sft.weights)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"False -1.0 parents {{'model.safetensors': '{'a' * 64}'}}\n"


def test_the_digest_follows_behaviour_not_places(make_pair, tmp_path):
    sft, aligned = make_pair()

    def digest(name, source=aligned, options=None, alpha="0.3", **kwargs):
        return extrapolate(sft, source, {alpha: tmp_path / name}, options, **kwargs)[alpha].content_digest()

    first = digest("first")
    moved = shutil.copytree(aligned, tmp_path / "moved")
    assert digest("second", moved, labels=("x", "y"), revisions=("r", "s")) == first
    others = [
        digest("alpha", alpha="0.4"),
        digest("compute", options=Options(compute="bfloat16")),
        digest("dtype", options=Options(dtype="float32")),
        digest("for", options=Options(alpha_for=(("mlp", 0.1),))),
    ]
    (moved / "chat_template.jinja").write_text("{{ messages }}")
    others.append(digest("template", moved))
    save(tmp_path / "seed2", weights(seed=2))
    others.append(digest("weights", tmp_path / "seed2"))
    assert len({first, *others}) == 7


def test_existing_outputs_are_refused_or_replaced_whole(make_pair, tmp_path):
    sft, aligned = make_pair()
    out = tmp_path / "out"
    out.mkdir()
    (out / "old.txt").write_text("old")
    with pytest.raises(CheckpointError, match=r"out: exists; give another --out or remove it"):
        extrapolate(sft, aligned, {"0.3": out})
    assert os.listdir(out) == ["old.txt"]
    extrapolate(sft, aligned, {"0.3": out}, replace=True)
    assert "old.txt" not in os.listdir(out)
    assert (out / "recipe.json").is_file()
    assert sorted(os.listdir(tmp_path)) == ["aligned", "out", "sft", "store"]


@pytest.mark.parametrize("place", ["sft", "aligned", "."])
def test_an_output_that_is_or_holds_an_input_is_refused(make_pair, tmp_path, place):
    sft, aligned = make_pair()
    with pytest.raises(CheckpointError, match="is or contains one of the inputs"):
        extrapolate(sft, aligned, {"0.3": tmp_path / place}, replace=True)
    assert len(load(sft)) == len(load(aligned))


@pytest.mark.parametrize("alphas", [("nan",), ("inf",), ("0.3", "0.30")])
def test_alphas_are_finite_and_distinct(make_pair, tmp_path, alphas):
    with pytest.raises(PairError, match="not finite, or one is given twice"):
        extrapolate(*make_pair(), {alpha: tmp_path / f"out{alpha}" for alpha in alphas})


def test_progress_counts_every_byte(make_pair, tmp_path, monkeypatch):
    calls, heard = [], []
    outputs = {"0.3": tmp_path / "a", "1": tmp_path / "b"}
    monkeypatch.setattr(progress, "PAUSE", 0)
    with progress.heard_by(lambda *said: heard.append(said[:3])):
        extrapolate(*make_pair(), outputs, progress=lambda *call: calls.append(call))
    size = (tmp_path / "a" / "model.safetensors").stat().st_size
    assert calls[-1] == (2 * size, 2 * size)
    assert heard == [(done, total, "bytes") for done, total in calls]
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_transformers_loads_and_runs_the_result(make_pair, tmp_path):
    from transformers import AutoModelForCausalLM

    sft, aligned = make_pair(dtype=torch.float32)
    extrapolate(sft, aligned, {"0.3": tmp_path / "out"})
    models = [
        AutoModelForCausalLM.from_pretrained(each, dtype=torch.float64)
        for each in (sft, aligned, tmp_path / "out")
    ]
    expected = {
        name: each + 0.3 * (each - models[0].state_dict()[name])
        for name, each in models[1].state_dict().items()
    }
    assert all(
        torch.allclose(each, expected[name], atol=1e-8) for name, each in models[2].state_dict().items()
    )
    models[1].load_state_dict(expected)
    ids = torch.arange(10)[None]
    with torch.no_grad():
        assert torch.allclose(models[1](ids).logits, models[2](ids).logits, atol=1e-6)
