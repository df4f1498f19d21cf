"""Architectures that are no plain decoders: what the transformers engine says is what transformers' own generate says, alone and
in a batch, and likelihoods are those of the steps.
"""

import base64
import hashlib

import pytest
import torch
from expoflow.config.stages import GenerateConfig
from expoflow.engines import tokenizer, vision
from expoflow.engines.chat import Chat
from expoflow.engines.model import Model, Request
from expoflow.engines.transformers import TransformersEngine
from expoflow.errors import CheckpointError, DataError
from expoflow.extrapolation.extrapolate import extrapolate
from expoflow.extrapolation.streamed_checkpoint import Streamed
from expoflow.results import Generation, Image, Message, Prompt
from expoflow.scoring.likelihood import likelihoods
from tiny_decoders import CONFIGS, picture, save
from transformers import PaliGemmaConfig, PaliGemmaForConditionalGeneration

GREEDY = GenerateConfig(temperature=0, presence_penalty=0, frequency_penalty=0, max_tokens=8)
PAPER = GenerateConfig(max_tokens=8)
# Of different lengths, and some of the same one.
TEXTS = ("who is anna ?", "what is tea ?", "tell me more about golf and coffee", "hot tea", "hi", "red milk")
SEEING = ("llava", "qwen2_vl")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder of each tiny model, made when it is asked for."""
    root, made = tmp_path_factory.mktemp("architectures"), {}

    def folder(name: str, seed: int = 0, step: float = 0.02):
        key = f"{name}-{seed}-{step}"
        if key not in made:
            made[key] = save(name, root / key, seed, step)
        return made[key]

    return folder


@pytest.fixture(scope="module")
def engines(folders):
    """An engine with each tiny model."""
    made = {}

    def engine(name: str) -> TransformersEngine:
        if name not in made:
            made[name] = TransformersEngine(Model(folder=folders(name)))
        return made[name]

    yield engine
    for each in made.values():
        each.close()


def image(seed: int, size=(24, 16)) -> Image:
    data = picture(seed, size)
    return Image(sha256=hashlib.sha256(data).hexdigest(), data=base64.b64encode(data).decode())


def conversations(name: str) -> list[list[Message]]:
    asked = [[Message(role="user", content=text)] for text in TEXTS]
    if name in SEEING:
        shown = [[image(1)], [image(2)], [image(3, (40, 32))], [image(1), image(2)]]
        asked[1:1] = [[Message(role="user", content=TEXTS[0], images=each)] for each in shown]
    return asked


def requests(engine: TransformersEngine, name: str) -> list[Request]:
    chat = Chat.of(engine.tokenizer, engine.loaded, images=True)
    asked = conversations(name)
    ids = chat.all_token_ids((messages, None) for messages in asked)
    return [Request(row, 7 + at, str(at), chat.pictures(asked[at])) for at, row in enumerate(ids)]


def answers(engine, asked, config=PAPER):
    return [each for _, each in sorted(each for step in engine.generate(asked, config) for each in step)]


def logps(engine, rows, pictures=()):
    return [each for _, each in sorted(each for step in engine.logps(rows, pictures) for each in step)]


def generated(engine, request: Request):
    """Token ids and their log-probability, by transformers' own generate and processor alone."""
    given = {"input_ids": torch.tensor([request.token_ids])}
    if request.pictures:
        own = vision.processor(engine.loaded, engine.tokenizer).own
        shown = [[vision.picture(each) for each in request.pictures.images]]
        given = own(text=[request.pictures.text], images=shown, return_tensors="pt", add_special_tokens=False)
        assert given["input_ids"][0].tolist() == request.token_ids
    made = engine.model.generate(
        **given,
        do_sample=False,
        max_new_tokens=GREEDY.max_tokens,
        eos_token_id=sorted(engine.stop),
        output_logits=True,
        return_dict_in_generate=True,
    )
    tokens = made.sequences[0, given["input_ids"].shape[1] :].tolist()
    steps = zip(made.logits, tokens, strict=True)
    return tokens, sum(float(logits[0].log_softmax(-1)[token]) for logits, token in steps)


@pytest.mark.parametrize("name", CONFIGS)
def test_an_engine_says_what_generate_says_in_any_batch(engines, name):
    engine = engines(name)
    asked = requests(engine, name)
    expected = [generated(engine, each) for each in asked]
    assert answers(engine, asked, GREEDY) == [
        tokenizer.completion(engine.tokenizer, tokens, engine.stop) for tokens, _ in expected
    ]
    rows = [(each.token_ids, tokens) for each, (tokens, _) in zip(asked, expected, strict=True)]
    pictures = [each.pictures for each in asked]
    together = logps(engine, rows, pictures)
    assert together == pytest.approx([logp for _, logp in expected], abs=1e-4)
    alone = [logps(engine, [row], [shown])[0] for row, shown in zip(rows, pictures, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)

    together = answers(engine, asked)
    assert len({each.text for each in together}) > 2  # they depend on the prompt
    assert together == [answers(engine, [each])[0] for each in asked]
    assert together == answers(engine, asked[::-1])[::-1]
    left = dict(each for step in engine.generate(asked, PAPER, done={0, 2, 5}) for each in step)
    assert left == {at: each for at, each in enumerate(together) if at not in {0, 2, 5}}


@pytest.mark.parametrize("name", ["mamba2", "llava"])
def test_streamed_is_stored_and_an_engine_moves_there_and_back(folders, tmp_path, name):
    sft, aligned = folders(name), folders(name, 1, 0.3)
    extrapolate(sft, aligned, {"0.5": tmp_path / "half"})
    models = [Model(folder=tmp_path / "half"), Model(folder=aligned)]
    models.append(Model(folder=aligned, streamed=Streamed(sft=sft, aligned=aligned, alpha=0.5)))
    engine = TransformersEngine(models[1])
    asked = requests(engine, name)
    before = answers(engine, asked)
    engine.move(models[0])
    stored = answers(engine, asked)
    engine.move(models[2])
    assert answers(engine, asked) == stored != before
    engine.move(models[1])
    assert answers(engine, asked) == before


@pytest.mark.parametrize("name", SEEING)
def test_images_count(engines, name):
    """Two prompts that differ in their images alone have different likelihoods of one response."""
    engine = engines(name)
    one, other = requests(engine, name)[1:3]
    assert one.token_ids == other.token_ids
    first, second = logps(engine, [(one.token_ids, [9, 8])] * 2, [one.pictures, other.pictures])
    assert abs(first - second) > 1e-3


def test_what_stands_for_an_image_in_a_text_is_refused(engines):
    engine = engines("llava")
    chat = Chat.of(engine.tokenizer, engine.loaded, images=True)
    with pytest.raises(DataError, match=r"its text has '<image>', which stands for an image, and it has no"):
        chat.token_ids([Message(role="user", content="see <image> ?")])
    shown = Message(role="user", content="see <image> ?", images=[image(1)])
    with pytest.raises(DataError, match=r"writes 2 places '<image>' for 1 images"):
        chat.token_ids([shown])


def test_a_response_that_writes_what_stands_for_an_image_shows_none(folders):
    model = Model(folder=folders("llava"))
    said = Generation(prompt_id="p", sample=0, seed=0, response="red <image> tea", response_tokens=3,
                      finish_reason="length", engine="transformers")  # fmt: skip
    prompt = Prompt(prompt_id="p", messages=[Message(role="user", content="who ?", images=[image(1)])])
    (row,) = likelihoods({"m": model}, [prompt], [said], "transformers")
    own = tokenizer.tokenizer(model)
    unknown = own("red <other> tea", add_special_tokens=False)["input_ids"]  # to the miniature's words
    assert row["tokens"] == len(unknown)
    other = said.model_copy(update={"response": "red <other> tea"})
    assert row == likelihoods({"m": model}, [prompt], [other], "transformers")[0]


@pytest.mark.parametrize(
    ("template", "places"), [("{{ messages[0]['content'][-1]['text'] }}", 0), (None, 1)], ids=["none", "one"]
)
def test_a_template_with_fewer_places_than_images_is_refused(folders, template, places):
    model = Model(folder=folders("llava"), chat_template=template)
    own = tokenizer.tokenizer(model)
    if template is None:
        own.chat_template = own.chat_template.replace(
            "selectattr('type', 'equalto', 'image') %}{{ '<image>' }}",
            "selectattr('type', 'equalto', 'image') %}{{ '<image>' if loop.first }}",
        )
        tokenizer.kept.clear()
    shown = Message(role="user", content="who ?", images=[image(1), image(2)])
    with pytest.raises(
        DataError, match=rf"writes {places} places '<image>' for 2 images; give prompts with as many"
    ):
        Chat.of(own, model, images=True).token_ids([shown])


def test_a_model_without_vision_is_refused(folders, tmp_path):
    model = Model(folder=folders("llama"))
    shown = [Message(role="user", content="who ?", images=[image(1)])]
    with pytest.raises(CheckpointError, match=r"LlamaForCausalLM takes no images; remove the images"):
        Chat.of(tokenizer.tokenizer(model), model, images=True).token_ids(shown)
    with pytest.raises(DataError, match=r"has images, but only its text would be read"):
        Chat.of(tokenizer.tokenizer(model), model).token_ids(shown)
    bare = save("llava", tmp_path / "bare")
    (bare / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"has neither preprocessor_config.json nor processor_config"):
        Chat.of(tokenizer.tokenizer(Model(folder=bare)), Model(folder=bare), images=True).token_ids(shown)


def test_a_system_message_that_is_merged_leaves_images_where_they_are(folders):
    model = Model(folder=folders("qwen2_vl"), system="merge")
    said = [
        Message(role="system", content="be kind"),
        Message(role="user", content="who ?", images=[image(1)]),
    ]
    text = Chat.of(tokenizer.tokenizer(model), model, images=True).text(said)
    assert "<user><|vision_start|><|image_pad|><|vision_end|>be kind\n\nwho ?" in text


def test_a_template_that_stands_with_the_processor_is_found(folders, tmp_path):
    """As transformers 4 saved vision-language models."""
    folder = save("llava", tmp_path / "old")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text('{"chat_template": "OLD" }')
    assert tokenizer.tokenizer(Model(folder=folder)).chat_template == "OLD" != template


def test_a_class_in_which_tokens_see_what_follows_has_no_likelihood(folders, tmp_path):
    """PaliGemma sees a prompt as a whole."""
    text = {
        "model_type": "gemma",
        "vocab_size": 160,
        "hidden_size": 64,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
    }
    text |= {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32, "initializer_range": 0.5}
    eyes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    eyes |= {"image_size": 16, "patch_size": 8, "model_type": "siglip_vision_model"}
    torch.manual_seed(0)
    config = PaliGemmaConfig(text_config=text, vision_config=eyes, image_token_index=159, projection_dim=64)
    PaliGemmaForConditionalGeneration(config).save_pretrained(tmp_path)
    for path in folders("llama").iterdir():
        if path.name.startswith(("tokenizer", "chat")):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    engine = TransformersEngine(Model(folder=tmp_path))
    with pytest.raises(CheckpointError, match=r"tokens see later tokens.*choose by reward"):
        logps(engine, [([5, 6, 7], [8, 9])])
