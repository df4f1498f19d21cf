"""Where models, datasets and prompts come from."""

import datetime
import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from expoflow.config.base import COMMIT, REVISION, PathName, Strict, check_repository
from expoflow.config.engine import BY_ITSELF, EngineConfig
from expoflow.config.recipes import LAUNCH, OnDataset, TrainingRecipe

SOURCES = ("train", "path", "hub")
PROMPT_SOURCES = ("miniature", "file", "hub")
DATASET_SOURCES = ("file", "hub")
DATE = "2024-07-26"
"""The date that chat templates see; it is the default of Llama 3.1's template."""


class ResourcesConfig(Strict):
    """The resources that jobs running the model ask a cluster for. No result depends on them."""

    gpus: int | None = Field(None, ge=0, strict=True)
    """Number of GPUs that the model is spread over. The default is enough of 80 GB each, and none
    for the miniature. It also holds for models trained from this one."""


class ModelConfig(Strict):
    """A checkpoint and its source: exactly one of `train`, `path` and `hub`."""

    train: TrainingRecipe | None = None
    """Train it here."""
    path: PathName | None = None
    """A Hugging Face checkpoint folder. Relative paths start at the config's folder, or at the
    working directory if snakemake is called directly."""
    hub: Annotated[str, AfterValidator(check_repository)] | None = None
    """A model on the Hugging Face hub: ORG/NAME."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`. A branch is resolved to a commit once, and the manifest keeps
    that commit."""
    chat_template: PathName | None = None
    """A Jinja file that is used instead of the tokenizer's chat template."""
    stop: list[Annotated[int, Field(ge=0)]] = []
    """Token ids that end a response, in addition to those of the model's generation_config."""
    system: Literal["keep", "merge", "drop"] = "keep"
    """What to do with system messages: pass them to the chat template (`keep`), put them before the
    first user message (`merge`), or leave them out (`drop`)."""
    pad_token: str | None = None
    """The text of a reward model's padding token, if neither its config nor its tokenizer names
    one."""
    trust_remote_code: bool = False
    """Run the Python code in the checkpoint's folder. Use it only for code that you have read."""
    resources: ResourcesConfig = Field(ResourcesConfig(), exclude=True)
    """The resources that jobs running the model ask a cluster for. They are in no rule's params."""
    engine: EngineConfig = Field(BY_ITSELF, exclude=True)
    """Overrides of the section `engine` for this model. A pair's sweep uses those of the aligned
    model."""

    @model_validator(mode="after")
    def _is_pinned(self) -> Self:
        if self.revision and not self.hub:
            raise PydanticCustomError("revision", "revision belongs to hub; remove it, or give hub")
        if self.hub and self.trust_remote_code and not COMMIT.fullmatch(self.revision or ""):
            raise PydanticCustomError(
                "pinned",
                "trust_remote_code runs code of the hub; set revision to the commit that you have read",
            )
        return self

    def result(self) -> str:
        """Canonical JSON of what the model depends on. How its training is run is left out."""
        return self.canonical(exclude={"train": LAUNCH})

    @property
    def source(self) -> str:
        """`train`, `path` or `hub`."""
        return next(source for source in SOURCES if getattr(self, source) is not None)

    @property
    def dataset(self) -> str | None:
        """The dataset that this model is trained on."""
        return self.train.data if isinstance(self.train, OnDataset) else None

    @property
    def base(self) -> str | None:
        """The model that this one is trained from."""
        return getattr(self.train, "base", None)

    @property
    def reward_model(self) -> str | None:
        """The reward model that labels this one's training data."""
        return getattr(self.train, "reward_model", None)

    def needed(self) -> dict[str, str]:
        """The models that this one's training needs, by role: `base`, `reward_model`."""
        roles = {"base": self.base, "reward_model": self.reward_model}
        return {role: model for role, model in roles.items() if model}

    def usage(self, date: datetime.date, engine: EngineConfig = BY_ITSELF) -> str:
        """Canonical JSON of the settings that affect how the model is run, in the form of
        `engines.model.Model`.

        `date` is the config's. The template is included as text, and only those settings of
        `engine` that affect results.
        """
        usage = self.model_dump(include={"stop", "system", "pad_token", "trust_remote_code"})
        template = Path(self.chat_template).read_text(encoding="utf-8") if self.chat_template else None
        usage |= {"chat_template": template, "date": date.isoformat()}
        return json.dumps(
            usage | ({"engine": counted} if (counted := engine.counted()) else {}), sort_keys=True
        )


class DataConfig(Strict):
    """Rows of a local file, or of a dataset on the Hugging Face hub."""

    file: PathName | None = None
    """JSON lines, .json, .csv, .tsv or .parquet, also as .gz or .zst. Relative paths are resolved
    like a model's `path`."""
    hub: Annotated[str, AfterValidator(check_repository)] | None = None
    """A dataset on the Hugging Face hub: ORG/NAME."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    config: str | None = None
    """The configuration of `hub`, if it has several."""
    split: str | None = None
    """The split of `hub`, such as `test`."""

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.hub and not self.split:
            raise PydanticCustomError("split", "a dataset of the hub needs split; add it")
        for key in ("revision", "config", "split"):
            if getattr(self, key) and not self.hub:
                raise PydanticCustomError("hub", "{key} belongs to hub; remove it, or give hub", {"key": key})
        return self


class PromptsConfig(DataConfig):
    """A prompt set: exactly one of `miniature`, `file` and `hub`."""

    miniature: Literal["dev", "test"] | None = None
    """A split of the built-in world."""
    field: str = "prompt"
    """The field of each row that holds the prompt: a text, or a list of {role, content} messages.
    An answer at the end is left out."""
    subset: int | None = Field(None, ge=1)
    """Use this many prompts, drawn with `seed`, in the order of the set. All are used if there are
    no more than that."""
    seed: int = Field(42, ge=0)
    """Seed of `subset`."""
