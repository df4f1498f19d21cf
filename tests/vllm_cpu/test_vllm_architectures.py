"""vLLM on architectures that are no plain decoders, two of them with images: transformers' responses and likelihoods, also after
moves to other weights and back; and what it cannot serve.
"""

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

import base64
import hashlib

import transformers
from expoflow.checks.models import Question, examine
from expoflow.config.stages import GenerateConfig
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model, Request
from expoflow.engines.transformers import TransformersEngine
from expoflow.engines.vllm import VllmEngine
from expoflow.errors import CheckpointError
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.results import Image, Message
from safetensors.torch import load_file, save_file
from tiny_decoders import picture, save

pytestmark = pytest.mark.vllm
GREEDY = GenerateConfig(temperature=0, presence_penalty=0, frequency_penalty=0, max_tokens=8)
SEEING = ("llava", "qwen2_vl")


def image(seed: int, size=(24, 16)) -> Image:
    data = picture(seed, size)
    return Image(sha256=hashlib.sha256(data).hexdigest(), data=base64.b64encode(data).decode())


def rename(folder) -> None:
    """To the names of the hub's LLaVAs, from those that transformers 5 saves."""
    path = folder / "model.safetensors"
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, {"format": "pt"})


def requests(engine, name: str) -> list[Request]:
    """Prompts without images, and with one, with one of another size, and with two if the model sees them."""
    chat = Chat.of(engine.tokenizer, engine.loaded, images=True)
    asked = [[Message(role="user", content=text)] for text in ("who is anna ?", "tell me about tea")]
    shown = [[image(1)], [image(2, (40, 32))], [image(1), image(3)]] if name in SEEING else []
    asked += [[Message(role="user", content="who is anna ?", images=images)] for images in shown]
    return [
        Request(chat.token_ids(messages), at, str(at), chat.pictures(messages))
        for at, messages in enumerate(asked)
    ]


def said(engine, asked):
    """Texts, and the log-probability of a response to each prompt."""
    made = sorted(each for step in engine.generate(asked, GREEDY) for each in step)
    rows = [(request.token_ids, [10, 11, 1]) for request in asked]
    logps = sorted(each for step in engine.logps(rows, [each.pictures for each in asked]) for each in step)
    return [completion.text for _, completion in made], [logp for _, logp in logps]


@pytest.mark.parametrize("name", ["mamba2", "mixtral", "gemma3", *SEEING])
def test_responses_and_likelihoods_are_those_of_transformers_there_and_back(tmp_path, name):
    sft, aligned = save(name, tmp_path / "sft"), save(name, tmp_path / "aligned", 1, 0.3)
    if name == "llava":  # one side as the hub has it, one as transformers 5 saves it
        rename(sft)
    models = [
        Model(folder=sft),
        Model(folder=aligned),
        Model(folder=aligned, streamed=Streamed(sft=sft, aligned=aligned, alpha=0.5)),
    ]
    theirs = TransformersEngine(models[0])
    asked, expected = requests(theirs, name), []
    for model in models:
        theirs.move(model)
        expected.append(said(theirs, asked))
    logps = [each for _, each in expected]
    assert min(abs(logps[a][0] - logps[b][0]) for a, b in ((0, 1), (0, 2), (1, 2))) > 3e-3
    engine = VllmEngine(models[0])
    try:
        for at in (0, 1, 2, 0):
            if engine.loaded != models[at]:
                engine.move(models[at])
            texts, given = said(engine, asked)
            assert texts == expected[at][0]
            # torchvision's pixels, which vLLM's processor of Qwen2-VL has, are not Pillow's to the last bit
            assert given == pytest.approx(logps[at], abs=1e-2 if name == "qwen2_vl" else 1e-4)
    finally:
        engine.close()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("jamba", "vLLM's CPU build has no kernel for the Mamba layers of jamba; set generate.engine: trans"),
        ("openai-gpt", "vLLM has no class OpenAIGPTLMHeadModel; set generate.engine: transformers"),
    ],
)
def test_what_it_cannot_serve_is_refused_before_any_job(tmp_path, name, reason):
    model = Model(folder=save(name, tmp_path / name))
    more = {"scored_by": None, "weights": True, "prompts": {}, "too_long": "error"}
    (problem,) = examine(Question(name="m", model=model, engine="vllm", **more)).problems
    assert reason in problem
    assert examine(Question(name="m", model=model, engine="auto", **more)).problems == []
    with pytest.raises(CheckpointError, match=reason):
        VllmEngine(model)


def test_names_that_it_does_not_know_are_said(tmp_path):
    folder = save("mixtral", tmp_path / "m")
    own = transformers.MixtralForCausalLM.from_pretrained(folder)
    own.save_pretrained(folder, save_original_format=False)
    with pytest.raises(CheckpointError, match=r"does not know the names .*layers.0.mlp.* save it again by"):
        VllmEngine(Model(folder=folder))
