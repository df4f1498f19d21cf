"""What is NaN or infinite is refused where it first shows, by the same words with and without an engine host."""

import json
import math
import subprocess
import tempfile
from pathlib import Path

import pytest
import torch
from expoflow.config.stages import GenerateConfig, ScoreConfig
from expoflow.engines import generate
from expoflow.engines import tokenizer as engine_tokenizer
from expoflow.engines.model import Model
from expoflow.engines.transformers import sample
from expoflow.errors import CheckpointError
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.files.records import write_json, write_jsonl
from expoflow.hosts.head import Head
from expoflow.miniature import model as miniature
from expoflow.miniature.tokenizer import tokenizer
from expoflow.miniature.world import prompts
from expoflow.results import Generation
from expoflow.scoring import likelihood, rewards
from expoflow.system import processes
from expoflow.theory import question
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

PROMPTS = prompts("dev", 0)[:6]
TEXTS = ["I think it is red.", "tea", "The city is Rome.", "Yes.", "a city", "no"]
SAMPLING = GenerateConfig(max_tokens=8)
NAN = float("nan")
CITY, TEA = tokenizer().convert_tokens_to_ids(["city", "tea"])  # said in one prompt, and in none
EMBEDDINGS = "model.embed_tokens.weight"


@pytest.fixture(scope="module", params=["in-process", "host"])
def where(request):
    """The work is done in this process, or by a real host."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "in-process":
            patch.setenv("EXPOFLOW_HOST", "off")
            yield
            return
        patch.delenv("EXPOFLOW_HOST", raising=False)
        process = subprocess.Popen(["sleep", "600"])
        with tempfile.TemporaryDirectory(prefix="expoflow-test-", ignore_cleanup_errors=True) as parent:
            start = processes.started(process.pid)
            head = Head(pid=process.pid, start=start, folder=Path(parent) / "run", slots=(None,), idle=600.0)
            patch.setenv("EXPOFLOW_HEAD", head.model_dump_json())
            yield
            process.kill()
            process.wait()


def untied() -> LlamaForCausalLM:
    config = miniature.config()
    config.tie_word_embeddings = False
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def save(model, folder: Path, name: str, place, value: float) -> Path:
    """A model with one tensor's elements set to `value`."""
    with torch.no_grad():
        model.state_dict()[name][place] = value
    miniature.save(model, folder)
    return folder


def reward_folder(folder: Path, name: str, place, value: float) -> Path:
    torch.manual_seed(0)
    config = miniature.config()
    config.num_labels, config.tie_word_embeddings = 1, False
    return save(LlamaForSequenceClassification(config), folder, name, place, value)


def responses() -> list[Generation]:
    fixed = {"sample": 0, "seed": 0, "response_tokens": 1, "finish_reason": "stop", "engine": "transformers"}
    return [
        Generation(prompt_id=prompt.prompt_id, response=text, **fixed)
        for prompt, text in zip(PROMPTS, TEXTS, strict=True)
    ]


def test_rewards_that_are_nan_name_model_prompt_and_response(where, tmp_path):
    folder = reward_folder(tmp_path / "rm", EMBEDDINGS, CITY, NAN)
    with pytest.raises(CheckpointError) as caught:
        rewards.score_responses(Model(folder=folder), PROMPTS, responses(), ScoreConfig())
    assert str(caught.value) == (
        f"reward model '{folder}': 2 of 6 rewards are NaN or infinite: nan for prompt {PROMPTS[2].prompt_id}, sample 0,"
        " response 'The city is Rome.'; take another reward_model"
    )
    kept = [each for each in responses() if "city" not in each.response]
    found = rewards.score_responses(Model(folder=folder), PROMPTS, kept, ScoreConfig())
    assert len(found) == 4
    assert all(map(math.isfinite, found))


def test_a_reward_model_that_gives_only_nan_is_to_be_replaced(tmp_path):
    folder = reward_folder(tmp_path / "rm", "score.weight", 0, NAN)
    with pytest.raises(
        CheckpointError, match=r"; set score.dtype: float32 if it overflows in 16 bits, or take"
    ):
        rewards.score_responses(Model(folder=folder), PROMPTS, responses(), ScoreConfig(dtype="bfloat16"))
    with pytest.raises(CheckpointError, match=r"6 of 6 rewards.*; take another reward_model, or download it"):
        rewards.score_responses(Model(folder=folder), PROMPTS, responses(), ScoreConfig(dtype="float32"))


def ask(model: Model, part: Path) -> list[Generation]:
    return generate.generate(model, PROMPTS, SAMPLING, part, "key")


def test_logits_that_are_nan_name_model_alpha_and_prompt(where, tmp_path):
    folder = save(untied(), tmp_path / "lm", EMBEDDINGS, CITY, NAN)
    with pytest.raises(CheckpointError) as caught:
        ask(Model(folder=folder), tmp_path / "part")
    assert str(caught.value) == (
        f"model '{folder}': the logits for token 1 of the response to prompt {PROMPTS[4].prompt_id} are NaN or infinite;"
        f" the weights in {folder} hold NaN or Inf, or overflow in their type: save or download them again"
    )
    parents = Streamed(sft=folder, aligned=folder, alpha=0)
    with pytest.raises(CheckpointError, match=rf"\(alpha 0\): .*; the weights in {folder} hold NaN"):
        ask(Model(folder=folder, streamed=parents), tmp_path / "part")
    write_json(folder / "recipe.json", {"alpha": 20})
    with pytest.raises(CheckpointError, match=rf"'{folder}' \(alpha 20\): .*; take a smaller alpha, or set"):
        ask(Model(folder=folder), tmp_path / "part")


def test_a_model_is_sound_until_it_says_a_word_whose_embedding_is_nan(tmp_path):
    model = untied()
    model.lm_head.weight.data.zero_()  # every token is as likely as any other
    folder = save(model, tmp_path / "lm", EMBEDDINGS, TEA, NAN)
    asked = GenerateConfig(max_tokens=400, temperature=1, top_k=0, top_p=1)
    with pytest.raises(CheckpointError, match="the logits for token") as caught:
        generate.generate(Model(folder=folder), PROMPTS, asked, tmp_path / "part", "key")
    assert int(str(caught.value).split("token ")[1].split()[0]) > 1


@pytest.mark.parametrize("temperature", [0, 0.7])
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_a_token_drawn_from_broken_logits_has_a_broken_one(temperature, value):
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(0))
    logits[1, 7] = value
    logits[2] = -torch.inf
    logits[2, 5] = 1.0
    drawn = sample(
        logits, torch.zeros(3, 50), torch.full((3,), 0.99), GenerateConfig(temperature=temperature)
    )
    assert logits.gather(1, drawn[:, None])[:, 0].isfinite().tolist() == [True, False, True]
    assert drawn[2] == 5


def test_a_likelihood_that_is_nan_is_refused(where, tmp_path):
    folder = save(untied(), tmp_path / "lm", EMBEDDINGS, CITY, NAN)
    words = rf"model '{folder}': the log-probability of response 0 to prompt \w+ is NaN or infinite"
    with pytest.raises(CheckpointError, match=words):
        likelihood.likelihoods({"aligned": Model(folder=folder)}, PROMPTS, responses(), "transformers")


def test_theory_names_the_point(tmp_path):
    miniature.save(miniature.new(0), tmp_path / "sft")
    folder = save(miniature.new(0), tmp_path / "aligned", "model.norm.weight", 0, NAN)
    streamed = Streamed(sft=folder, aligned=folder, alpha=0)
    model = Model(folder=folder, streamed=streamed)
    task = question.TheoryTask(
        model=model,
        corners=question.parents(model),
        responses=((-0.5, 1.5),),
        prompts=tuple(PROMPTS),
        config=SAMPLING,
    )
    with pytest.raises(
        CheckpointError, match=rf"weights -0.5 x {folder} \+ 1.5 x {folder}: the logits for token 1"
    ):
        list(question.ask(task))


class Surrogates:
    """A tokenizer, such as one of a repository's own code, whose texts no file takes."""

    def decode(self, tokens: list[int], **_: object) -> str:
        return "a\ud83db"


def test_a_response_that_is_no_unicode_is_written(tmp_path):
    completion = engine_tokenizer.completion(Surrogates(), [5, 6], {2})
    row = responses()[0].model_copy(update={"response": completion.text})
    write_jsonl(tmp_path / "rows.jsonl", [row])
    assert json.loads((tmp_path / "rows.jsonl").read_text())["response"] == "a?b"
