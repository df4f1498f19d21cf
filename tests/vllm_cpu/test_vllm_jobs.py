"""Jobs without a host that spread a model over two ranks (tensor parallel): the results of one rank, and nothing left behind."""

import csv
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

import jobs
from expoflow.checkpoints.manifests import manifest
from expoflow.config.sources import ModelConfig
from expoflow.config.stages import ScoreConfig
from expoflow.engines.vllm import VllmEngine
from expoflow.files.records import read_jsonl, write_json, write_jsonl
from expoflow.results import Generation
from expoflow.scoring import likelihood, rewards
from fake_gpus import Gpu, fake_gpus
from miniatures import GREEDY, PROMPTS, answer

pytestmark = pytest.mark.vllm
ASKED = PROMPTS[:60]
NAMES = {"pair": "mini", "alpha": "0.5", "prompts": "dev"}
SETTINGS = GREEDY.model_copy(update={"engine": "vllm", "samples": 6})
MEMORY = Path("/dev/shm")


@pytest.fixture(scope="module")
def run(pair, reward_folder, tmp_path_factory):
    """The folder of a job of a rule that was given two GPUs; it has ended well, and no shared memory remains."""
    folder = tmp_path_factory.mktemp("jobs")
    for name, model in (("sft", pair.sft), ("aligned", pair.aligned), ("reward_model", reward_folder)):
        write_json(folder / f"{name}.json", manifest(name, ModelConfig(path=str(model)), model))
    write_jsonl(folder / "prompts.jsonl", ASKED)
    seen = fake_gpus(folder / "gpus", Gpu(), Gpu(), Gpu()) | {"CUDA_VISIBLE_DEVICES": "2,0"}
    members = {name: folder / f"{name}.json" for name in ("sft", "aligned")}

    def run(rule: str, given: dict, made: str, meanwhile=lambda folder: None, **params) -> Path:
        before = {*MEMORY.iterdir()}
        log = jobs.run(
            rule,
            folder / rule,
            seen | {"EXPOFLOW_STORE": str(folder / "store")},
            lambda: meanwhile(folder / rule),
            input={**members, "prompts": folder / "prompts.jsonl", **given},
            output={made: folder / rule / made},
            params={"usage": "{}", "code": "", **params},
            wildcards=NAMES,
        )
        assert "Worker_TP1" in log or "VllmWorker-1" in log
        left = {*MEMORY.iterdir()} - before
        for path in left.intersection(
            MEMORY.glob("vllm_dist_*")
        ):  # which vLLM's CPU build alone makes, and leaves
            path.unlink()
            left.remove(path)
        assert not any(path.exists() for path in left)
        return folder / rule / made

    return run


def kill_a_rank(folder: Path) -> None:
    """Kill the process of the second rank when the first responses are there."""
    for _ in range(60_000):
        if any(
            path.read_bytes().count(b"\n") > 1 for path in folder.glob(".*.part")
        ):  # its first line says what it is
            break
        time.sleep(0.01)
    (host,) = re.findall(r"host (\d+) of slot 0", (folder / "job.log").read_text())
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            session = (process / "stat").read_text().rpartition(")")[2].split()[3]
            if session == host and b"Worker_TP1" in (process / "cmdline").read_bytes():
                os.kill(int(process.name), signal.SIGKILL)


@pytest.fixture(scope="module")
def generations(run, pair) -> Path:
    """What a "generate" job writes, one of whose ranks dies in the middle of it."""
    recipe = pair.streamed(0.5).folder / "recipe.json"
    made = run("generate", {"recipe": recipe}, "generations", kill_a_rank, config=SETTINGS.model_dump_json())
    log = (made.parent / "job.log").read_text()
    assert re.search(r"host of slot 0 \(process \d+\) has died; starting another one", log)
    assert len(re.findall(r"host \d+ of slot 0 serves", log)) == 2
    return made


def test_two_ranks_write_the_tokens_of_one(generations, pair, requests):
    engine = VllmEngine(pair.streamed(0.5))
    alone = [each for each in answer(engine, requests[: len(ASKED)]) for _ in range(SETTINGS.samples)]
    engine.close()
    written = read_jsonl(generations, Generation)
    assert [row.prompt_id for row in written[:: SETTINGS.samples]] == [prompt.prompt_id for prompt in ASKED]
    assert [(row.response, row.response_tokens) for row in written] == [
        (row.text, row.tokens) for row in alone
    ]


def test_two_ranks_find_a_response_as_likely_as_one_at_every_alpha(run, generations, pair):
    alphas = {"sft": -1, "aligned": 0, "own": 0.5}
    made = run(
        "likelihood",
        {
            "generations": generations,
            "recipes": [pair.streamed(at).folder / "recipe.json" for at in alphas.values()],
        },
        "likelihoods",
        models=list(alphas),
        engine="vllm",
    )
    models = {name: pair.streamed(at) for name, at in alphas.items()}
    expected = likelihood.likelihoods(models, ASKED, read_jsonl(generations, Generation), "transformers")
    with open(made, newline="") as file:
        found = list(csv.DictReader(file))
    assert [int(row["tokens"]) for row in found] == [row["tokens"] for row in expected]
    for name in alphas:
        ours, theirs = ([float(row[f"logp_{name}"]) for row in rows] for rows in (found, expected))
        assert ours == pytest.approx(theirs, abs=2e-3, rel=1e-5)


def test_two_ranks_give_the_rewards_of_one(run, generations, reward_folder, tmp_path):
    config = ScoreConfig(engine="vllm")
    reward = generations.parents[1] / "reward_model.json"
    made = run(
        "score",
        {"generations": generations, "reward_model": reward},
        "rewards",
        config=config.model_dump_json(),
    )
    with open(made, newline="") as file:
        found = [float(row["reward"]) for row in csv.DictReader(file)]
    written = read_jsonl(generations, Generation)
    expected = rewards.score_responses(
        rewards.reward_model(reward, "{}"), ASKED, written, ScoreConfig(engine="transformers")
    )
    assert found == pytest.approx(expected, abs=1e-4)
