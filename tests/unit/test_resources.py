"""What jobs ask a cluster for, at the sizes of real models."""

from datetime import date
from pathlib import Path

import pytest
from expoflow.config.sources import ModelConfig
from expoflow.dag import resources
from expoflow.files.records import provenance, write_json
from expoflow.results import File, Manifest

# Bytes of bfloat16 weights.
SIZES = {"7B": 14_483_464_192, "13B": 26_031_728_640, "70B": 137_953_296_384}


def manifest(path: Path, **files: int) -> str:
    described = {name.replace("__", "."): File(size=size, sha256="0" * 64) for name, size in files.items()}
    record = Manifest(model="m", source={}, folder="m", files=described, provenance=provenance())
    write_json(path, record)
    return str(path)


HUB = ModelConfig(hub="org/model")


def test_size_is_that_of_a_models_weights(tmp_path):
    small = manifest(tmp_path / "a.json", model__safetensors=70, tokenizer__json=1000)
    copies = manifest(tmp_path / "b.json", x1__safetensors=60, x2__safetensors=50, pytorch_model__bin=110)
    pickled = manifest(tmp_path / "c.json", pytorch_model__bin=90)
    assert [resources.size(HUB, each) for each in (small, copies, pickled)] == [70, 110, 90]


def test_a_manifest_that_is_missing_or_broken_asks_for_the_least(tmp_path):
    (tmp_path / "broken.json").write_text('{"model": ')
    for name in ("broken.json", "none.json"):
        assert resources.size(HUB, str(tmp_path / name)) == 0


def test_without_a_manifest_a_users_folder_says_its_size(tmp_path):
    for name, size in {"model.safetensors": 50, "pytorch_model.bin": 50, "tokenizer.json": 9}.items():
        (tmp_path / name).write_bytes(b" " * size)
    ours = ModelConfig(path=str(tmp_path))
    assert resources.size(ours, str(tmp_path / "none.json")) == 50
    assert resources.size(ours, manifest(tmp_path / "made.json", model__safetensors=70)) == 70


@pytest.mark.parametrize(
    ("model", "gpus", "threads", "memory", "minutes"),
    [("7B", 1, 8, 29726, 118), ("13B", 1, 8, 47048, 165), ("70B", 4, 8, 214930, 612)],
)
def test_what_a_model_of_a_size_is_given(model, gpus, threads, memory, minutes):
    weights = SIZES[model]
    assert resources.gpus(weights) == gpus
    assert resources.threads(weights) == threads
    assert resources.engine_memory(weights, 1) == memory
    assert resources.engine_minutes(weights, 1) == minutes
    # Reading and writing needs no model in memory, but time for every byte.
    assert resources.file_memory(weights, 1) < memory
    assert resources.file_minutes(weights, 1) * 60 > 3 * weights / resources.DISK


def test_a_second_attempt_asks_for_half_as_much_again():
    for amount in (
        resources.engine_memory,
        resources.engine_minutes,
        resources.file_memory,
        resources.file_minutes,
    ):
        first, second, third = (amount(SIZES["7B"], attempt) for attempt in (1, 2, 3))
        assert second == pytest.approx(1.5 * first, abs=1)
        assert third == pytest.approx(2 * first, abs=1)


def test_resources_are_no_part_of_what_a_result_depends_on():
    plain, wide = ModelConfig(path="m"), ModelConfig(path="m", resources={"gpus": 4})
    assert wide.resources.gpus == 4
    assert plain.canonical() == wide.canonical()
    assert plain.usage(date.today()) == wide.usage(date.today())


@pytest.mark.parametrize("gpus", [True, "2", 2.0, -1])
def test_a_number_of_gpus_is_a_whole_number(gpus):
    with pytest.raises(ValueError, match=r"resources\.gpus"):
        ModelConfig(path="m", resources={"gpus": gpus})
