"""A pair whose delta also raises the end-of-text token, so that at a large alpha all responses are empty."""

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from expoflow.config.stages import GenerateConfig, ScoreConfig, SelectConfig
from expoflow.engines import generate, responses
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model
from expoflow.engines.transformers import TransformersEngine
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.files.records import read_jsonl, write_jsonl
from expoflow.miniature.world import prompts
from expoflow.results import Generation, Manifest
from expoflow.scoring import likelihood
from expoflow.scoring.responses import evaluate, write_rewards
from expoflow.selection import select, tables
from expoflow.training.loop import sft
from loops import run_loop
from safetensors.torch import load_file, save_file

PROMPTS = prompts("dev", 0)[:20]
GENERATE = GenerateConfig(max_tokens=40)
END = 2
ALPHAS = ("0", "0.5", "30")
EMBEDDING = "model.embed_tokens.weight"


class Swept(NamedTuple):
    """The pair's folders, and the responses of every alpha."""

    sft: Path
    aligned: Path
    generations: dict[str, list[Generation]]

    def at(self, alpha: str) -> Model:
        streamed = Streamed(sft=self.sft, aligned=self.aligned, alpha=float(alpha))
        return Model(folder=self.aligned, streamed=streamed)


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Swept:
    root = tmp_path_factory.mktemp("pair")
    run_loop(sft, root / "sft", seed=0, examples=600, epochs=2, progress=lambda line: None)
    shutil.copytree(root / "sft", root / "aligned")
    engine = TransformersEngine(Model(folder=root / "sft"))
    with torch.no_grad():
        asked = [Chat(engine.tokenizer).token_ids(prompt.messages) for prompt in PROMPTS]
        states = [engine.model.model(torch.tensor([ids])).last_hidden_state[0, -1] for ids in asked]
    first = torch.stack(states).mean(0)
    tensors = load_file(root / "aligned/model.safetensors")
    tensors[EMBEDDING][END] += 0.5 * first / first.norm() ** 2  # half a unit of logit at the first place
    save_file(tensors, root / "aligned/model.safetensors", {"format": "pt"})
    made = Swept(root / "sft", root / "aligned", {})
    for alpha in ALPHAS:
        made.generations[alpha] = generate.generate(
            made.at(alpha), PROMPTS, GENERATE, root / f".{alpha}.part", alpha
        )
    return made


def choose(swept: Swept, folder: Path, **settings):
    """What the rules score, likelihood and select make of the responses, without a reward model."""
    models = {name: swept.at(alpha) for name, alpha in (("sft", "-1"), ("aligned", "0"))}
    rewards, likelihoods = {}, {}
    for alpha, rows in swept.generations.items():
        scored = evaluate(PROMPTS, rows, None, ScoreConfig())
        write_rewards(folder / "dev.rewards.csv", scored, "p", alpha, "dev")
        rewards[alpha] = tables.read_rewards(folder / "dev.rewards.csv", "p", alpha)
        found = likelihood.likelihoods(models | {"own": swept.at(alpha)}, PROMPTS, rows, "transformers")
        labels = {"pair": "p", "alpha": alpha, "prompts": "dev"}
        likelihood.write_likelihoods(folder / "dev.likelihoods.csv", rows, found, labels)
        likelihoods[alpha] = tables.read_likelihoods(folder / "dev.likelihoods.csv", "p", alpha)
    config = SelectConfig(**{"by": "nll", "compare": ["implicit"], "resamples": 500} | settings)
    rows, best = select.select("p", rewards, dict.fromkeys(rewards), config, 0, likelihoods)
    return {row["alpha"]: row for row in rows}, best


def test_the_token_that_ended_a_response_is_kept(swept):
    rows = [row for rows in swept.generations.values() for row in rows]
    assert {(row.finish_reason, row.stop_token) for row in rows} <= {("stop", END), ("length", None)}
    assert {row.stop_token for row in swept.generations["30"]} == {END}
    assert {(row.response, row.response_tokens) for row in swept.generations["30"]} == {("", 0)}
    assert sum(row.response_tokens > 2 for row in swept.generations["0"]) > 15


def test_empty_responses_are_as_unlikely_as_their_stop_token_and_are_not_chosen(swept, tmp_path):
    rows, best = choose(swept, tmp_path)
    engine = TransformersEngine(Model(folder=swept.aligned))
    asked = [(Chat(engine.tokenizer).token_ids(prompt.messages), [END]) for prompt in PROMPTS]
    ends = dict(each for scored in engine.logps(asked) for each in scored)
    assert rows["30"]["nll"] == pytest.approx(-sum(ends.values()) / len(PROMPTS), rel=1e-4)
    assert rows["30"]["nll_change_low"] > 1
    assert (rows["30"]["length"], rows["30"]["empty"], rows["30"]["degenerate"]) == (0, 1, 1)
    assert rows["30"]["chosen_share"] == 0
    assert best.alpha in ("0", "0.5")
    assert best.others["implicit"] in ("0", "0.5")
    (said,) = best.warnings
    assert said.startswith("alpha 30 left out: 100% of its responses are degenerate (empty 100%), ")
    # nor by the NLL alone
    rows, best = choose(swept, tmp_path, degenerate_rise=1, compare=None)
    assert best.alpha in ("0", "0.5")
    assert rows["30"]["chosen_share"] == 0


def test_an_aligned_model_that_does_not_end_its_responses_is_told_of(swept, tmp_path):
    write_jsonl(tmp_path / "prompts.jsonl", PROMPTS)
    nothing = Manifest(model="m", source={}, folder=".", files={}, provenance={})
    folders = {alpha: tmp_path / alpha for alpha in ("0", "0.5")}
    extrapolate(swept.sft, swept.aligned, folders)
    for alpha, tokens, told in (("0", 1, 1), ("0", 40, 0), ("0.5", 1, 0)):
        out, said = folders[alpha] / f"{tokens}.generations.jsonl", []
        recipe, asked = folders[alpha] / "recipe.json", tmp_path / "prompts.jsonl"
        config = GENERATE.model_copy(update={"max_tokens": tokens})
        responses.respond(recipe, nothing, nothing, asked, out, config, "{}", "code", said.append)
        assert len(read_jsonl(out, Generation)) == len(PROMPTS)
        assert len(said) == told
        for line in said:
            assert line.startswith(f"warning: {out}: 100% of alpha 0's responses are unfinished")
            assert "generate.max_tokens" in line
