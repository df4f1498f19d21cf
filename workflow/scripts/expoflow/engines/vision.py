"""Images for a vision-language model, prepared by the processor in its folder.

Only PIL prepares images, whatever is installed: torchvision would give different pixels.
"""

import inspect
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expoflow.checkpoints.checkpoint import read_json_file
from expoflow.engines.model import Model, Pictures
from expoflow.errors import CheckpointError, DataError

if TYPE_CHECKING:
    import torch

PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
BACKEND = "pil"
PARTS = {"tokenizer", "image_processor", "video_processor"}
# The processor that was made last, by its folder and tokenizer.
kept: dict[tuple[str, int], "Processor"] = {}


class Processor:
    """A checkpoint's processor, which turns texts with images into token ids and features."""

    def __init__(self, model: Model, tokenizer: Any):
        """Raise CheckpointError if the model takes no images or its processor cannot be made."""
        _require_vision(model)
        try:
            self.own = _made(model, tokenizer)
        except Exception as error:  # a user's files, or the code beside them, may raise anything
            raise CheckpointError(
                f"{model.folder}: its processor cannot be made ({' '.join(str(error).split())[:200]}); copy"
                f" {PREPROCESSOR} and {PROCESSOR} from the model that it was trained from"
            ) from None
        self.tokenizer = tokenizer

    @property
    def place(self) -> str:
        """The placeholder of an image: once in a text, and many times once it is processed."""
        return self.own.image_token

    def token_ids(self, text: str, images: Sequence[bytes]) -> list[int]:
        """Return token ids of a text with images, with as many per image as the model uses."""
        return [*self._called(text, images)["input_ids"][0]]

    def features(self, pictures: Pictures, length: int) -> dict[str, "torch.Tensor"]:
        """Return what the class takes besides token ids: pixels, and the types of `length` tokens.

        A BOS before the text and the tokens after it do not count as an image.
        """
        import torch

        made = self._called(pictures.text, pictures.images, return_tensors="pt")
        ids = made.pop("input_ids")
        made.pop("attention_mask", None)
        before = len(pictures.token_ids) - len(self._plain(pictures.text))
        for name in [name for name, value in made.items() if name.endswith("token_type_ids")]:
            made[name] = torch.nn.functional.pad(made[name], (before, length - before - ids.shape[1]))
        return {name: value for name, value in made.items() if isinstance(value, torch.Tensor)}

    def _plain(self, text: str) -> list[int]:
        return self.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _called(self, text: str, images: Sequence[bytes], **options: Any) -> dict[str, Any]:
        places = text.count(self.place)
        if places != len(images):
            raise DataError(
                f"its chat template writes {places} places '{self.place}' for {len(images)} images; give prompts with as many"
                " images as it has places, or another template as `chat_template:` of the model"
            )
        try:
            return dict(
                self.own(
                    text=[text],
                    images=[[picture(each) for each in images]],
                    add_special_tokens=False,
                    **options,
                )
            )
        except Exception as error:
            raise DataError(
                f"its processor does not take the images ({' '.join(str(error).split())[:200]}); give other images"
            ) from None


def picture(data: bytes) -> Any:
    """Return the image in a file's bytes as a model gets it: upright, in RGB."""
    from PIL import Image, ImageOps

    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def processor(model: Model, tokenizer: Any) -> Processor:
    """Return the model's processor with this tokenizer; reuse the last one if unchanged."""
    key = (str(model.folder), id(tokenizer))
    if key not in kept:
        made = Processor(model, tokenizer)
        kept.clear()
        kept[key] = made
    return kept[key]


def place(folder: Path) -> int | None:
    """Return the image token of the vision-language model in `folder`; None for other models."""
    said = read_json_file(folder / "config.json")
    return said.get("image_token_id", said.get("image_token_index"))


def has_processor(folder: Path) -> bool:
    """Whether a folder says how to prepare images."""
    return any((folder / name).is_file() for name in (PREPROCESSOR, PROCESSOR))


def _require_vision(model: Model) -> None:
    from expoflow.checkpoints.loading import model_class, read_config, sees

    config = read_config(model.folder, model.trust_remote_code)
    architecture = model_class(config, model.folder, "language model", model.trust_remote_code)
    takes = "pixel_values" in inspect.signature(architecture.forward).parameters
    if not takes or not (sees(architecture) or model.trust_remote_code):
        raise CheckpointError(
            f"{model.folder}: {architecture.__name__} takes no images; remove the images from the prompts, or name a"
            " vision-language model"
        )
    if not has_processor(model.folder):
        raise CheckpointError(
            f"{model.folder}: has neither {PREPROCESSOR} nor {PROCESSOR}, which say how images are prepared; copy"
            " them from the model that it was trained from"
        )


def _made(model: Model, tokenizer: Any) -> Any:
    """Return transformers' processor with this tokenizer.

    A processor with its own code is loaded as a whole.
    """
    import transformers
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

    folder = model.folder
    named = [read_json_file(folder / name).get("processor_class") for name in (PROCESSOR, PREPROCESSOR)]
    kind = read_json_file(folder / "config.json").get("model_type")
    name = next(filter(None, [*named, PROCESSOR_MAPPING_NAMES.get(kind)]), None)
    made = getattr(transformers, str(name), None)
    if made is None or not set(made.get_attributes()) <= PARTS:
        return transformers.AutoProcessor.from_pretrained(
            folder, backend=BACKEND, trust_remote_code=model.trust_remote_code
        )
    images = transformers.AutoImageProcessor.from_pretrained(folder, backend=BACKEND)
    parts = {"tokenizer": tokenizer, "image_processor": images, "video_processor": None}
    settings, _ = made.get_processor_dict(folder)
    return _without_videos(made).from_args_and_dict([parts[each] for each in made.get_attributes()], settings)


def _without_videos(made: type) -> type:
    """Return a subclass that works without a video processor.

    That one needs torchvision and is never used here.
    """

    class WithoutVideos(made):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            if argument_name != "video_processor":
                return super().check_argument_for_proper_class(argument_name, argument)
            return None

    return WithoutVideos
