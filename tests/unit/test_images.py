"""Images of prompt files: read, kept with the prompt, and refused in one line; what is said of them before any job."""

import base64
import gzip
import hashlib
import io
import json
from pathlib import Path

import pyarrow
import pytest
from expoflow.checks import machine, parse
from expoflow.checks.early import check_models
from expoflow.config.benchmarks import RewardCheck
from expoflow.config.sources import PromptsConfig
from expoflow.config.stages import ScoreConfig
from expoflow.data import images, preferences
from expoflow.data.prompts import image_files, load, prompt_id, read
from expoflow.engines.model import Model
from expoflow.errors import ConfigError, DataError
from expoflow.files.records import write_jsonl
from expoflow.results import Generation, Message, read_prompts
from expoflow.scoring.rewards import score_responses
from PIL import Image
from pyarrow import parquet
from tiny_decoders import picture, save, save_reward_model
from transformers import T5Config, T5ForConditionalGeneration

PNG, JPEG = picture(0), picture(1, kind="JPEG")
TEXT = "what is it ?"
PLACE, PART = {"type": "image"}, {"type": "text", "text": TEXT}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """If no run has left results, which the checks before a run would take."""
    monkeypatch.chdir(tmp_path)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write(folder: Path, *rows: dict, name: str = "seen.jsonl") -> Path:
    (folder / "one.png").write_bytes(PNG)
    (folder / "deep").mkdir(exist_ok=True)
    (folder / "deep/two.jpg").write_bytes(JPEG)
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def shown(prompt) -> list[list[bytes]]:
    return [[base64.b64decode(each.data) for each in m.images or ()] for m in prompt.messages]


def test_every_way_to_give_an_image_gives_the_same_prompt(tmp_path):
    ways = ["one.png", str(tmp_path / "one.png"), encoded(PNG), f"data:image/png;base64,{encoded(PNG)}"]
    rows = [{"prompt": TEXT, "images": [each]} for each in ways]
    rows += [{"prompt": TEXT, "image": "one.png"}]
    rows += [{"prompt": [{"role": "user", "content": TEXT}], "images": ["one.png"]}]
    rows += [{"prompt": [{"role": "user", "content": [PLACE, PART]}], "images": ["one.png"]}]
    rows += [
        {"prompt": [{"role": "user", "content": [{**PLACE, "text": None}, PART]}], "images": ["one.png"]}
    ]
    prompts = [read([write(tmp_path, row)], "prompt")[0] for row in rows]
    table = pyarrow.table({"prompt": [TEXT], "images": [[{"bytes": PNG, "path": None}]]})
    parquet.write_table(table, tmp_path / "seen.parquet")
    prompts += read([tmp_path / "seen.parquet"], "prompt")
    assert {prompt.model_dump_json() for prompt in prompts} == {prompts[0].model_dump_json()}
    assert shown(prompts[0]) == [[PNG]]
    assert prompts[0].messages[0].images[0].sha256 == hashlib.sha256(PNG).hexdigest()


def test_the_id_covers_the_images_and_that_of_a_text_stays():
    text = [Message(role="user", content=TEXT)]
    canonical = json.dumps([{"role": "user", "content": TEXT}], separators=(",", ":"))
    assert prompt_id(text) == hashlib.sha256(canonical.encode()).hexdigest()[:16]
    one, other = (
        [Message(role="user", content=TEXT, images=[images.image(data, "here", None)])]
        for data in (PNG, JPEG)
    )
    assert len({prompt_id(text), prompt_id(one), prompt_id(other)}) == 3


def test_a_set_is_whole_without_the_files(tmp_path):
    path = write(tmp_path, {"prompt": TEXT, "images": ["one.png", "deep/two.jpg"]}, {"prompt": TEXT})
    prompts = load(PromptsConfig(file=str(path)), 0)
    write_jsonl(tmp_path / "set.jsonl", prompts)
    for file in ("one.png", "deep/two.jpg"):
        (tmp_path / file).unlink()
    assert read_prompts(tmp_path / "set.jsonl") == prompts
    assert [shown(each) for each in prompts] == [[[PNG, JPEG]], [[]]]
    line = (tmp_path / "set.jsonl").read_text().splitlines()[1]  # a text prompt's line is as it was
    assert json.loads(line) == {
        "prompt_id": prompts[1].prompt_id,
        "messages": [{"role": "user", "content": TEXT}],
    }


def test_images_are_the_messages_that_have_places_for_them(tmp_path):
    said = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": [PLACE, PLACE, PART]},
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": [{"text": None, **PLACE}]},  # as Parquet has parts
    ]
    third = encoded(picture(2))
    row = {"prompt": said, "images": ["one.png", "deep/two.jpg", third]}
    (prompt,) = read([write(tmp_path, row)], "prompt")
    assert shown(prompt) == [[], [PNG, JPEG], [], [picture(2)]]
    assert [message.content for message in prompt.messages] == ["be kind", TEXT, "a", ""]
    first = [said[0], {"role": "user", "content": TEXT}, said[2], {"role": "user", "content": "b"}]
    (prompt,) = read([write(tmp_path, {"prompt": first, "images": ["one.png"]})], "prompt")
    assert shown(prompt) == [[], [PNG], [], []]


def moving() -> bytes:
    file = io.BytesIO()
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


USER = {"role": "user"}
BAD = {
    "missing": ({"images": ["none.png"]}, "no image file 'none.png' in '"),
    "a web address": ({"images": ["https://a.b/c.png"]}, "no image file 'https://a.b/c.png' in '"),
    "text": ({"images": ["seen.jsonl"]}, "'seen.jsonl' is no image that can be read (no PNG, JPEG"),
    "base64 of text": ({"images": [encoded(b"a text")]}, "is no image that can be read (no PNG, JPEG"),
    "cut": ({"images": [encoded(PNG[:-200])]}, "it is no image that can be read ("),
    "moving": ({"images": [encoded(moving())]}, "is no image that can be read (it has 2 pictures)"),
    "a number": ({"images": [3]}, "an image is a int; give a path"),
    "empty": ({"images": [""]}, "an image is a str; give a path"),
    "both keys": ({"images": ["one.png"], "image": "one.png"}, "has both images and image; remove one"),
    "no image": ({"prompt": [USER | {"content": [PLACE, PART]}]}, "'prompt' has 1 places for images, and the row has 0"),
    "too many": (
        {"prompt": [USER | {"content": [PLACE, PART]}], "images": ["one.png", "one.png"]},
        "has 1 places for images, and the row has 2 `images`; give as many",
    ),
    "after": (
        {"prompt": [USER | {"content": [PART, PLACE]}], "images": ["one.png"]},
        "has an image after its text; put images before the text",
    ),
    "within": (
        {"prompt": [USER | {"content": [{**PLACE, "image": "one.png"}, PART]}]},
        "has an image in its content; give it beside the messages, as `images`",
    ),
    "in a message": (
        {"prompt": [USER | {"content": TEXT, "images": ["one.png"]}]},
        "has 'images', which would be lost; give images beside the messages",
    ),
    "the assistant's": (
        {"prompt": [{"role": "assistant", "content": [PLACE, PART]}, USER | {"content": "a"}], "images": ["one.png"]},
        "has an image and role 'assistant'; only the user shows images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_image_is_named_with_its_line(tmp_path, what):
    row, words = BAD[what]
    path = write(tmp_path, {"prompt": "first"}, {"prompt": TEXT} | row)
    with pytest.raises(DataError) as error:
        read([path], "prompt")
    assert str(error.value).startswith(f"{path}:2: ")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_of_the_hubs_names_no_file_here(tmp_path):
    path = write(tmp_path, {"prompt": TEXT, "images": ["one.png"]})
    with pytest.raises(DataError, match=r"'one.png' is no base64; give its bytes"):
        read([path], "prompt", local=False)


def test_images_are_lost_nowhere_else(tmp_path):
    row = {"prompt": TEXT, "chosen": "a", "rejected": "b", "images": ["one.png"]}
    with pytest.raises(DataError, match="has images, which are only read for prompts"):
        preferences.read([write(tmp_path, row)], RewardCheck(file="a"))


def test_files_of_images_are_known(tmp_path):
    path = write(
        tmp_path,
        {"prompt": TEXT, "images": ["one.png", encoded(PNG)]},
        {"prompt": "a", "images": ["one.png"]},
    )
    assert image_files(path) == [tmp_path / "one.png"]
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert image_files(packed) == [tmp_path / "one.png"]
    assert image_files(write(tmp_path, {"prompt": "a"})) == []
    assert image_files(tmp_path / "none") == []


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("made")
    for name in ("llava", "llama"):
        for seed in (0, 1):
            save(name, root / f"{name}{seed}", seed)
    save_reward_model(root / "rm")
    small = {"vocab_size": 160, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    for seed in (0, 1):
        T5ForConditionalGeneration(T5Config(**small)).save_pretrained(root / f"t5{seed}")
    return root


def config(made: Path, path: Path, *names: str, **more):
    models = {f"{name}{seed}": {"path": str(made / f"{name}{seed}")} for name in names for seed in (0, 1)}
    models["rm"] = {"path": str(made / "rm")}
    pairs = {name: {"sft": f"{name}0", "aligned": f"{name}1", "alphas": [1]} for name in names}
    data = {"models": models, "pairs": pairs, "prompts": {"dev": {"file": str(path)}}, "benchmarks": {}}
    return parse(data | {"reward_model": "rm"} | more)


def test_what_is_wrong_with_images_is_said_before_any_job(made, tmp_path):
    path = write(tmp_path, {"prompt": TEXT, "images": ["one.png"]}, {"prompt": "a"})
    theory = {"preferences": str(path), "prompts": "dev"}
    everything = config(made, path, "llava", "llama", "t5", score={"images": "refuse"}, theory=theory)
    with pytest.raises(ConfigError) as error:
        check_models(everything)
    said = str(error.value).splitlines()
    for begins, words in {
        "theory.prompts: 'dev' has images": "theory reads only text",
        "models.llama1: ": "LlamaForCausalLM takes no images; remove the images from the prompts",
        "models.t51: ": "t5 has an encoder and a decoder, and the sweep of ExPO is only for decoders; `expoflow extrapolate`",
        "models.rm: 'dev': ": "prompts have images, which the reward model does not see",
    }.items():
        assert any(line.lstrip("- ").startswith(begins) and words in line for line in said), (begins, said)
    assert not any("models.llava" in line for line in said)
    (note,) = check_models(config(made, path, "llava"))
    assert note.startswith("models.rm: 'dev': prompts have images, which the reward model does not see")


def test_a_missing_image_is_said_before_any_job(made, tmp_path):
    path = write(tmp_path, {"prompt": TEXT, "images": ["none.png"]})
    with pytest.raises(ConfigError, match=r"prompts.dev.file: .*seen.jsonl:1: no image file 'none.png'"):
        machine.check_sources(config(made, path, "llava"))


def test_a_reward_model_scores_the_text_and_says_so(made, tmp_path, capsys):
    seen, bare = (
        read([write(tmp_path, {"prompt": TEXT} | more)], "prompt")[0]
        for more in ({"images": ["one.png"]}, {})
    )
    assert seen.prompt_id != bare.prompt_id

    def reward(prompt, **settings) -> float:
        said = Generation(
            prompt_id=prompt.prompt_id, sample=0, seed=0, response="tea", response_tokens=1, finish_reason="stop", engine="transformers"
        )  # fmt: skip
        return score_responses(Model(folder=made / "rm"), [prompt], [said], ScoreConfig(**settings))[0]

    assert reward(seen) == reward(bare)
    assert "1 of 1 prompts have images, which the reward model does not see: it scores their text" in (
        capsys.readouterr().out
    )
    assert reward(bare, images="refuse") == reward(bare)
    with pytest.raises(DataError, match=r"set score.images: text, or remove reward_model"):
        reward(seen, images="refuse")
