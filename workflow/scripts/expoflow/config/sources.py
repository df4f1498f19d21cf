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
"""The day that chat templates are told, as Llama 3.1's names it by itself."""


class ResourcesConfig(Strict):
    """What jobs that run the model ask a cluster for; no result depends on it."""

    gpus: int | None = Field(None, ge=0)
    """GPUs that the model is spread over. Without it: enough of 80 GB each; none for the miniature. Holds for what is trained from it, too."""


class ModelConfig(Strict):
    """A checkpoint and where it comes from: exactly one of `train`, `path` and `hub`."""

    train: TrainingRecipe | None = None
    """Train it here."""
    path: PathName | None = None
    """A Hugging Face checkpoint folder, relative to the config's folder; for snakemake itself, to its directory."""
    hub: Annotated[str, AfterValidator(check_repository)] | None = None
    """A model on the Hugging Face hub: ORG/NAME."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`; a branch is resolved to a commit once, which the manifest keeps."""
    chat_template: PathName | None = None
    """A Jinja file that is used instead of the tokenizer's chat template."""
    stop: list[Annotated[int, Field(ge=0)]] = []
    """Token ids that end a response, beside those of the model's generation_config."""
    system: Literal["keep", "merge", "drop"] = "keep"
    """What becomes of system messages: given to the chat template, put before the first user message, or left out."""
    pad_token: str | None = None
    """The text of a reward model's padding token, if neither its config nor its tokenizer names one."""
    trust_remote_code: bool = False
    """Run the Python code that lies in the checkpoint's folder: only for code that you have read."""
    resources: ResourcesConfig = Field(ResourcesConfig(), exclude=True)
    """What jobs that run the model ask a cluster for; among no rule's params."""
    engine: EngineConfig = Field(BY_ITSELF, exclude=True)
    """What is other than in the section `engine`, for this model. A pair's sweep goes by the aligned model's."""

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
        """Canonical JSON of what the model depends on: how a training is run is left out."""
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
        """Canonical JSON of what changes how the model is run, as `engines.model.Model` has it.

        `date` is the config's; the template is its text; of `engine` it has what counts.
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
    """JSON lines, .json, .csv, .tsv or .parquet, also as .gz or .zst; relative as `path` of a model."""
    hub: Annotated[str, AfterValidator(check_repository)] | None = None
    """A dataset on the Hugging Face hub: ORG/NAME."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    config: str | None = None
    """The configuration of `hub`, where it has several."""
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
    """The field of each row: a text, or a list of {role, content} messages; an answer at its end is left out."""
    subset: int | None = Field(None, ge=1)
    """That many prompts, drawn with `seed`, in their order in the set; all where there are no more."""
    seed: int = Field(42, ge=0)
    """Seed of `subset`."""
