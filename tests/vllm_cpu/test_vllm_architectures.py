"""vLLM on architectures that are no plain decoders, two of them with images: transformers' responses and likelihoods, also after
a move to other weights and back.
"""

import importlib.util

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed here; `make test-vllm` has it")

import base64
import hashlib

from expoflow.config.stages import GenerateConfig
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model, Request
from expoflow.engines.transformers import TransformersEngine
from expoflow.engines.vllm import VllmEngine
from expoflow.results import Image, Message
from safetensors.torch import load_file, save_file
from tiny_decoders import picture, save

pytestmark = pytest.mark.vllm
GREEDY = GenerateConfig(temperature=0, presence_penalty=0, frequency_penalty=0, max_tokens=8)
SEEING = pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is None, reason="vLLM's classes for images need torchvision"
)


def image(seed: int, size=(24, 16)) -> Image:
    data = picture(seed, size)
    return Image(sha256=hashlib.sha256(data).hexdigest(), data=base64.b64encode(data).decode())


def rename(folder) -> None:
    """To the names of the hub's LLaVAs, which vLLM knows."""
    path = folder / "model.safetensors"
    tensors = {
        name.replace("vision_tower.", "vision_tower.vision_model."): tensor
        for name, tensor in load_file(path).items()
    }
    save_file(tensors, path, {"format": "pt"})


def said(engine, asked):
    """Texts, and the log-probability of a response to each prompt."""
    made = sorted(each for step in engine.generate(asked, GREEDY) for each in step)
    rows = [(request.token_ids, [10, 11, 1]) for request in asked]
    logps = sorted(each for step in engine.logps(rows, [each.pictures for each in asked]) for each in step)
    return [completion.text for _, completion in made], [logp for _, logp in logps]


@pytest.mark.parametrize(
    "name", ["mamba2", pytest.param("llava", marks=SEEING), pytest.param("qwen2_vl", marks=SEEING)]
)
def test_responses_and_likelihoods_are_those_of_transformers_there_and_back(tmp_path, name):
    folders = [save(name, tmp_path / "sft"), save(name, tmp_path / "aligned", 1, 0.3)]
    if name == "llava":
        for folder in folders:
            rename(folder)
    models = [Model(folder=folder) for folder in folders]
    theirs = TransformersEngine(models[0])
    chat = Chat.of(theirs.tokenizer, models[0], images=True)
    shown = [[image(1)], [image(2, (40, 32))], [image(1), image(3)]] if name != "mamba2" else []
    asked = [[Message(role="user", content=text)] for text in ("who is anna ?", "tell me about tea")]
    asked += [[Message(role="user", content="who is anna ?", images=images)] for images in shown]
    requests = [
        Request(chat.token_ids(messages), at, str(at), chat.pictures(messages))
        for at, messages in enumerate(asked)
    ]
    expected = [said(theirs, requests)]
    theirs.move(models[1])
    expected.append(said(theirs, requests))
    assert expected[0][0] != expected[1][0]
    engine = VllmEngine(models[0])
    try:
        for at in (0, 1, 0):
            if at != 0 or engine.loaded != models[at]:
                engine.move(models[at])
            texts, logps = said(engine, requests)
            assert texts == expected[at][0]
            # torchvision's pixels, which vLLM's processor of Qwen2-VL has, are not Pillow's to the last bit
            assert logps == pytest.approx(expected[at][1], abs=1e-2 if name == "qwen2_vl" else 1e-4)
    finally:
        engine.close()
