"""An engine that has both models of a pair takes another alpha without reading: the bits of what it would have read."""

import os
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from checkpoints import bits, save, weights
from expoflow.engines import in_place, memory
from expoflow.engines.model import Model
from expoflow.engines.transformers import TransformersEngine
from expoflow.errors import PairError
from expoflow.extrapolation.options import Options
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.extrapolation.tensor_stream import tensors_of

ALPHAS = (0.3, -0.4, 0, 8.0, -1, 0.3, -1.5, 1.0)
TYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def pair(root: Path, dtype: str = "bfloat16", **aligned) -> tuple[Path, Path]:
    """Equal elements are among them, and -0.0."""
    sft, theta1 = weights(TYPES[dtype]), weights(TYPES[dtype], seed=1, **aligned)
    for each in (sft, theta1):
        each["model.layers.0.mlp.up_proj.weight"][:3] = -0.0
    theta1["model.layers.1.mlp.up_proj.weight"] = sft["model.layers.1.mlp.up_proj.weight"].clone()
    rows = aligned.get("vocab", 320)
    return save(root / "sft", sft, dtype=dtype), save(root / "aligned", theta1, dtype=dtype, vocab=rows)


def at(sft: Path, aligned: Path, alpha: float, options: Options | None = None) -> Model:
    streamed = Streamed(sft=sft, aligned=aligned, alpha=alpha, options=options or Options())
    return Model(folder=aligned, streamed=streamed)


def has(engine: TransformersEngine, model: Model) -> bool:
    """Whether the engine's weights are those of `model`, bit for bit."""
    state, given = engine.model.state_dict(), dict(tensors_of(model.streamed))
    return all(
        torch.equal(bits(state[name].view(-1)), bits(each.to(state[name].dtype).contiguous().view(-1)))
        for name, each in given.items()
    )


@pytest.mark.parametrize("dtype", [*TYPES])
def test_every_alpha_has_the_bits_that_are_read(tmp_path, dtype):
    sft, aligned = pair(tmp_path, dtype)
    engine = TransformersEngine(at(sft, aligned, 2.0))
    kept = []
    for alpha in ALPHAS:
        engine.move(at(sft, aligned, alpha))
        assert has(engine, at(sft, aligned, alpha))
        kept.append(engine.parents)
    assert kept[0]
    assert all(each is kept[0] for each in kept)


def test_both_models_are_read_if_two_alphas_of_a_pair_follow_each_other(tmp_path, monkeypatch):
    """Going between two pairs, an engine reads one alpha each time."""
    pairs = [pair(tmp_path / "one"), pair(tmp_path / "other")]
    engine, asked = TransformersEngine(at(*pairs[0], 2.0)), []
    read = in_place._read
    monkeypatch.setattr(in_place, "_read", lambda *given: asked.append(given) or read(*given))
    for alpha in (0.5, 1.0):
        for each in reversed(pairs):
            engine.move(at(*each, alpha))
            assert has(engine, at(*each, alpha))
    assert not asked
    for alpha in (1.5, 2.0):
        engine.move(at(*pairs[0], alpha))
        engine.move(Model(folder=pairs[0][1]))  # the aligned model between them
    engine.move(at(*pairs[0], 3.0))
    assert has(engine, at(*pairs[0], 3.0))
    assert len(asked) == 1


def test_rows_that_one_model_lacks_and_what_overflows(tmp_path):
    sft, aligned = pair(tmp_path, "float16", vocab=330)
    options = Options(vocabulary="shared_rows", overflow="clamp")
    engine = TransformersEngine(at(sft, aligned, 0.5, options))
    for alpha in (0.3, 1e6, -1, 2e8):
        engine.move(at(sft, aligned, alpha, options))
        assert engine.parents
        assert has(engine, at(sft, aligned, alpha, options))
    strict = Options(vocabulary="shared_rows")
    with pytest.raises(
        PairError, match=r"tensor .*: \d+ elements overflow float16 at alpha 2e\+08; take a smaller"
    ):
        engine.move(at(sft, aligned, 2e8, strict))


@pytest.mark.parametrize(
    "options",
    [Options(compute="bfloat16"), Options(alpha_for=(("mlp", 2.0),)), Options(dtype="float32")],
    ids=["compute", "alpha_for", "dtype"],
)
def test_what_is_more_than_the_formula_on_the_engines_types_is_read(tmp_path, options):
    sft, aligned = pair(tmp_path)
    engine = TransformersEngine(at(sft, aligned, 0.5))
    for each in (Options(), options, Options(), Options()):
        engine.move(at(sft, aligned, 0.5, each))
        engine.move(at(sft, aligned, 0.7, each))
        assert bool(engine.parents) == (each == Options())
        expected = dict(tensors_of(at(sft, aligned, 0.7, each).streamed))
        state = engine.model.state_dict()
        assert all(torch.equal(state[name], value.to(state[name].dtype)) for name, value in expected.items())


def test_where_memory_is_short_the_files_are_read(tmp_path, monkeypatch):
    sft, aligned = pair(tmp_path)
    engine = TransformersEngine(at(sft, aligned, 0.5))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (500_000, 500_000))
    engine.move(at(sft, aligned, 0.3))
    assert engine.parents is None
    assert has(engine, at(sft, aligned, 0.3))


@pytest.mark.parametrize(
    ("gpu", "main", "place"),
    [(5, 0, "device"), (4, 50, "pin_memory"), (4, 10, None)],
    ids=["on the GPU", "in main memory", "nowhere"],
)
def test_both_models_lie_where_there_is_room_beside_a_batch(monkeypatch, gpu, main, place):
    """Weights of 1.5 GB on a GPU, of which a batch needs 1 GB."""
    weight = SimpleNamespace(nbytes=3 << 29, device=torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (gpu << 30, 80 << 30))
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (main << 30, main << 30))
    monkeypatch.setattr(Path, "read_text", lambda path: "")  # /proc, /sys
    found = in_place.room({"weight": weight}, needed=1 << 30)
    assert (found and [*found]) == (place and [place])


def test_other_files_in_the_same_folder_are_seen(tmp_path):
    sft, aligned = pair(tmp_path)
    engine = TransformersEngine(at(sft, aligned, 0.5))
    engine.move(at(sft, aligned, 0.3))
    other = save(tmp_path / "other", weights(seed=2))
    os.replace(other / "model.safetensors", aligned / "model.safetensors")
    engine.move(at(sft, aligned, 0.3))
    assert engine.parents
    assert has(engine, at(sft, aligned, 0.3))
    sft.rename(tmp_path / "gone")
    with pytest.raises(Exception, match="no such folder"):
        engine.move(at(sft, aligned, 0.4))


def test_a_stored_model_in_between_and_another_pair(tmp_path):
    sft, aligned = pair(tmp_path)
    third = save(tmp_path / "third", weights(seed=3))
    engine = TransformersEngine(at(sft, aligned, 0.5))
    for model in (
        at(sft, aligned, 0.3),
        at(sft, third, 0.3),
        at(third, aligned, -2.0),
        at(sft, aligned, 1.0),
    ):
        engine.move(model)
        assert has(engine, model)
        engine.move(Model(folder=third))
        assert has(engine, at(sft, third, 0))
        engine.move(model)
        assert has(engine, model)


def test_what_a_clusters_job_or_a_container_may_use(tmp_path):
    """The least that any of the control groups leaves, in both versions of them."""
    process, none = tmp_path / "cgroup", 1 << 62
    process.write_text("0::/job_1/step\n")
    assert memory.allowed_memory(tmp_path, process) == none
    (tmp_path / "job_1" / "step").mkdir(parents=True)
    for folder, limit in ((tmp_path / "job_1", "5000"), (tmp_path / "job_1" / "step", "max")):
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("2000\n")
    assert memory.allowed_memory(tmp_path, process) == 3000
    process.write_text("4:memory:/not/mounted/here\n0::/elsewhere\n")
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("900\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("100\n")
    assert memory.allowed_memory(tmp_path, process) == 800
    assert memory.allowed_memory(tmp_path, tmp_path / "none") == none


def test_files_that_were_read_leave_room_in_a_clusters_job(tmp_path):
    """Both checkpoints lie in memory as files when parents are to be kept, and a job's group counts them."""
    process = tmp_path / "cgroup"
    process.write_text("0::/job\n")
    (tmp_path / "job").mkdir()
    for name, text in {
        "max": "5000",
        "current": "4900",
        "stat": "anon 900\nactive_file 1500\ninactive_file 2500",
    }.items():
        (tmp_path / "job" / f"memory.{name}").write_text(text + "\n")
    assert memory.allowed_memory(tmp_path, process) == 4100
    process.write_text("4:memory:/job\n")
    (tmp_path / "memory/job").mkdir(parents=True)
    state = "cache 9\nactive_file 0\ninactive_file 7\ntotal_active_file 100\ntotal_inactive_file 300"
    for name, text in {"limit_in_bytes": "900", "usage_in_bytes": "800", "stat": state}.items():
        (tmp_path / "memory/job" / f"memory.{name}").write_text(text + "\n")
    assert memory.allowed_memory(tmp_path, process) == 500


def test_what_a_gpu_cannot_hold_is_read(tmp_path, monkeypatch):
    """The memory that was free when it was asked for is gone when it is taken."""
    sft, aligned = pair(tmp_path)
    engine = TransformersEngine(at(sft, aligned, 0.5))
    for place in ("copied", "_compute"):
        ours, taken = getattr(in_place, place), iter(range(3))

        def full(*arguments, ours=ours, taken=taken):
            if next(taken, None) is None:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return ours(*arguments)

        with monkeypatch.context() as patched:
            patched.setattr(in_place, place, full)
            engine.move(at(sft, aligned, 0.3))
        assert engine.parents is None
        assert has(engine, at(sft, aligned, 0.3))
    engine.move(at(sft, aligned, -0.4))
    assert engine.parents
    assert has(engine, at(sft, aligned, -0.4))


def test_memory_that_cannot_be_pinned_is_taken_as_it_is(monkeypatch):
    made = torch.empty

    def empty(*sizes, pin_memory=False, **given):
        if pin_memory:
            raise RuntimeError("CUDA error: out of memory")
        return made(*sizes, **given)

    monkeypatch.setattr(torch, "empty", empty)
    weight = torch.arange(6.0).view(2, 3)
    assert in_place.copied(weight, {"pin_memory": True}).tolist() == weight.flatten().tolist()
