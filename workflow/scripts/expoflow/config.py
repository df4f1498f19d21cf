"""The config: strict models that are the only source of defaults, of the checks and of config/schema.json.

`python -m expoflow.config > config/schema.json` writes the schema; a test fails when it drifts.
"""

import hashlib
import json
import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
LONGEST = 64  # characters of a name or an alpha: several stand in one file's name
ALPHA = r"-?\d+(\.\d+)?"
REFERENCE_ALPHAS = ("-1", "0")
REVISION = r"^[A-Za-z0-9][A-Za-z0-9_-]*([./][A-Za-z0-9_-]+)*$"  # it becomes a path in the hub's cache: no ..
COMMIT = re.compile(r"[0-9a-f]{40}")
SOURCES = ("train", "path", "hub")
VARIANTS = ("sft", "aligned", "expo")
PROMPT_SOURCES = ("miniature", "file", "hub")
MINIATURE = "miniature"
# Of a judge: what changes no verdict.
INCIDENTAL = {"api_key_env", "max_cost", "prices", "concurrency", "timeout", "retries", "backoff"}
DATASET_SOURCES = ("file", "hub")
TRAINED_ON = ("miniature", "dataset")
RECIPES = ("sft", "dpo", "reward", "iterative_dpo", "rlhf")


def spell(alpha: float) -> str:
    """The one spelling of an alpha in file names and tables: `0.3`, `-0.5`, `25`."""
    text = format(Decimal(repr(alpha)), "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _check_name(value: str) -> str:
    if not re.fullmatch(NAME, value) or len(value) > LONGEST:
        raise PydanticCustomError(
            "name",
            "a name is letters, digits, '.', '_' and '-', at most {longest}, and begins with a letter or a digit;"
            " rename it",
            {"longest": LONGEST},
        )
    return value


def _check_path(value: str) -> str:
    if re.search(r"[{}\x00-\x1f\x7f]", value):
        raise PydanticCustomError(
            "path",
            "a path has no braces, which Snakemake takes for wildcards, and no control characters; rename it",
        )
    return value


def _check_repository(value: str) -> str:
    if not re.fullmatch(rf"({NAME}/)?{NAME}", value):
        raise PydanticCustomError("hub", "a repository of the hub is ORG/NAME, as in its address on the hub")
    return value


def _check_judge(value: str) -> str:
    return value if value == MINIATURE else _check_endpoint(value)


def _check_endpoint(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
        raise PydanticCustomError(
            "endpoint", "an endpoint is an address such as http://127.0.0.1:8000/v1, without key or password"
        )
    return value.rstrip("/")


def _check_variable(value: str) -> str:
    if not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", value):
        raise PydanticCustomError(
            "variable",
            "names an environment variable such as OPENAI_API_KEY; the key itself does not stand here",
        )
    return value


def _check_alpha(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise PydanticCustomError("alpha", "an alpha is a finite number such as 0.3")
    if len(spell(float(value))) > LONGEST:  # it stands in file names
        raise PydanticCustomError("alpha", "an alpha is a number such as 0.3, of a few digits")
    return float(value)


def _check_distinct(values: list[float]) -> list[float]:
    seen: set[str] = set()
    for value in values:
        if spell(value) in seen:
            raise PydanticCustomError(
                "alphas", "alpha {alpha} stands twice; remove one", {"alpha": spell(value)}
            )
        seen.add(spell(value))
    return values


Name = Annotated[str, AfterValidator(_check_name), Field(json_schema_extra={"pattern": f"^{NAME}$"})]
PathName = Annotated[str, AfterValidator(_check_path)]
Alpha = Annotated[float, BeforeValidator(_check_alpha)]
Fraction = Annotated[float, Field(gt=0, le=1)]


class Strict(BaseModel):
    """Base of all config sections: an unknown key is an error."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, validate_by_name=True, use_attribute_docstrings=True
    )

    def canonical(self, **kwargs: Any) -> str:
        """Canonical JSON of this section, defaults filled in: what a rule has as its parameter."""
        data = self.model_dump(mode="json", exclude_none=True, by_alias=True, **kwargs)
        return json.dumps(data, sort_keys=True, separators=(",", ":"))


class _Recipe(Strict):
    epochs: int = Field(ge=1)
    """Passes over the training data."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW."""


class _Miniature(_Recipe):
    data: Literal["miniature"]
    """The data a model is trained on: `miniature` is the built-in world."""
    examples: int = Field(ge=1)
    """Training examples (SFT), preference pairs (DPO, reward) or prompts (iterative DPO, RLHF)."""
    trainer: Literal["loop", "trl"] = "loop"
    """What trains: `loop`, the miniature's own and fast, or `trl`, what trains real models."""
    seed: int | None = Field(None, ge=0)
    """Seed of the initial weights and of the order of the data; by default the config's, the world's."""


class _Stoppable(_Miniature):
    until: Fraction | None = None
    """Stop after this share of the steps, their learning rates unchanged: a checkpoint that the whole training passes."""

    @model_validator(mode="after")
    def _is_stopped_by_its_own_loop(self) -> Self:
        if self.until is not None and self.trainer != "loop":
            raise PydanticCustomError("until", "until needs trainer: loop; change one, or remove until")
        return self


class _Aligned(Strict):
    base: Name = Field(alias="from")
    """The model that training begins with, which is also the reference."""


class _Labelled(_Aligned):
    reward_model: Name
    """The model that scores what the trained model says; not the one that chooses alpha, if you can."""
    samples: int = Field(4, ge=2)
    """Responses that are sampled for every prompt."""


class _Iterated(_Labelled):
    iterations: int = Field(3, ge=1)
    """Rounds; each has its share of the prompts, and begins with the last one's model, also as reference."""
    beta: float = Field(0.01, gt=0)
    """DPO's beta: strength of the tie to the reference model."""


class MiniatureSft(_Stoppable):
    """Supervised fine-tuning, from random weights or from the model `from`."""

    recipe: Literal["sft"]
    base: Name | None = Field(None, alias="from")
    """The model that training begins with; random weights without it."""
    size: Literal["small", "large"] = "small"
    """Hidden size 64 and 2 layers, or 128 and 3; what is trained from it has its size."""
    examples: int = Field(8000, ge=1)
    epochs: int = Field(6, ge=1)
    learning_rate: float = Field(6e-3, gt=0)

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if self.base and "size" in self.model_fields_set:
            raise PydanticCustomError("size", "size is that of the model in from; remove size")
        return self


class MiniatureDpo(_Stoppable, _Aligned):
    """Direct preference optimisation on pairs of the miniature's writers."""

    recipe: Literal["dpo"]
    prompts: Literal["train", "dev"] = "train"
    """The split that the pairs' prompts are of; `dev` is the one that chooses alpha (Appendix F)."""
    fraction: Fraction = 1.0
    """Share of the preference data that is used, from its beginning."""
    examples: int = Field(6000, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    beta: float = Field(0.01, gt=0)
    """DPO's beta: strength of the tie to the reference model."""
    annotator_temperature: float = Field(0.7, gt=0)
    """How unsure the annotator is, in units of true quality."""
    length_bias: float = 0.06
    """Log-odds that the annotator adds for each word more; 0 is an annotator without this bias."""
    label_noise: float = Field(0.0, ge=0, le=1)
    """Share of the pairs whose label is turned round."""

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if round(self.fraction * self.examples) < 1:
            share = {"fraction": self.fraction, "examples": self.examples}
            raise PydanticCustomError(
                "data", "fraction {fraction} of {examples} examples is none; raise one", share
            )
        return self


class MiniatureReward(_Miniature):
    """Bradley-Terry reward model, from random weights."""

    recipe: Literal["reward"]
    examples: int = Field(10000, ge=1)
    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(1.5e-3, gt=0)


class MiniatureIterativeDpo(_Miniature, _Iterated):
    """DPO on pairs of the model's own responses, the best and the worst by `reward_model`, in rounds."""

    recipe: Literal["iterative_dpo"]
    examples: int = Field(2400, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)

    @model_validator(mode="after")
    def _has_data(self) -> Self:
        if self.examples < self.iterations:
            raise PydanticCustomError("data", "fewer examples than iterations; raise examples")
        return self


class MiniatureRlhf(_Stoppable, _Labelled):
    """RLHF by REINFORCE leave-one-out (RLOO) on the reward less a KL penalty."""

    recipe: Literal["rlhf"]
    examples: int = Field(1600, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the reference model, a response."""


class Lora(Strict):
    """Low-rank adaptation: small matrices are trained and merged into the weights at the end."""

    rank: int = Field(64, ge=1)
    """Rank of the matrices."""
    scale: int = Field(64, ge=1)
    """LoRA's alpha: the matrices' product counts scale / rank times."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the matrices."""
    modules: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the modules that get them."""


class _Dataset(_Recipe):
    data: Name
    """A dataset of `datasets`."""
    base: Name = Field(alias="from")
    """The model that training begins with, which is also the reference where one is needed."""
    trainer: Literal["trl"] = "trl"
    """What trains: TRL."""
    fraction: Fraction = 1.0
    """Share of the dataset that is used, from its beginning."""
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(5e-7, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises; it then falls as a cosine."""
    batch_size: int = Field(128, ge=1)
    """Rows (RLHF: responses) in an optimiser step, over all devices and accumulated steps."""
    max_length: int = Field(1024, ge=2)
    """Tokens of prompt and response, where longer ones are cut."""
    lora: Lora | None = None
    """Train low-rank matrices instead of all weights; `{}` for the defaults."""
    gradient_checkpointing: bool = True
    """Compute activations again in the backward pass, to save memory."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type that the model computes in; the result has the type of the model in `from`."""
    seed: int = Field(42, ge=0)
    """Seed of the order of the data, of sampling and of new weights."""
    per_device: int = Field(8, ge=1)
    """Rows on one device at a time; changes no result but for rounding, and so starts nothing again."""
    accelerate: str = "zero3-offload"
    """A file of config/accelerate by its name, or a path: devices, processes, DeepSpeed. Starts nothing again."""

    @model_validator(mode="after")
    def _can_be_divided(self) -> Self:
        if self.batch_size % self.per_device:
            sizes = {"batch_size": self.batch_size, "per_device": self.per_device}
            raise PydanticCustomError(
                "batch",
                "batch_size {batch_size} is no multiple of per_device {per_device}; change one",
                sizes,
            )
        return self


class SftRecipe(_Dataset):
    """Supervised fine-tuning on rows with `messages` (all tokens count) or with `prompt` and `completion`."""

    recipe: Literal["sft"]
    learning_rate: float = Field(2e-5, gt=0)


class DpoRecipe(_Dataset):
    """DPO on rows with `prompt`, `chosen` and `rejected`; the defaults are the paper's (Appendix E)."""

    recipe: Literal["dpo"]
    beta: float = Field(0.01, gt=0)
    """DPO's beta: strength of the tie to the reference model."""


class RewardRecipe(_Dataset):
    """Bradley-Terry reward model, a classifier with one logit, on rows as DPO's."""

    recipe: Literal["reward"]
    learning_rate: float = Field(1e-5, gt=0)


class IterativeDpoRecipe(_Dataset, _Iterated):
    """DPO on pairs of the model's own responses to `prompt`, the best and the worst by `reward_model`, in rounds."""

    recipe: Literal["iterative_dpo"]
    max_tokens: int = Field(512, ge=1)
    """Tokens of a response at most; unfinished ones take no part."""


class RlhfRecipe(_Dataset, _Labelled):
    """RLHF by REINFORCE leave-one-out (TRL's RLOO) on responses to `prompt`, scored by `reward_model`."""

    recipe: Literal["rlhf"]
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the reference model, a response."""
    max_tokens: int = Field(512, ge=1)
    """Tokens of a response at most."""

    @model_validator(mode="after")
    def _has_whole_groups(self) -> Self:
        if self.batch_size % self.samples:
            sizes = {"batch_size": self.batch_size, "samples": self.samples}
            raise PydanticCustomError(
                "batch", "batch_size {batch_size} is no multiple of samples {samples}; change one", sizes
            )
        return self


LAUNCH = frozenset({"per_device", "accelerate"})  # of a recipe: how it is run, not what comes out

MiniatureRecipe = Annotated[
    MiniatureSft | MiniatureDpo | MiniatureReward | MiniatureIterativeDpo | MiniatureRlhf,
    Field(discriminator="recipe"),
]
DatasetRecipe = Annotated[
    SftRecipe | DpoRecipe | RewardRecipe | IterativeDpoRecipe | RlhfRecipe, Field(discriminator="recipe")
]


def _world(recipe: Any) -> str:
    """`miniature` or `dataset`: which of the two a recipe, of a config or already parsed, is trained on."""
    data = recipe.get("data") if isinstance(recipe, dict) else getattr(recipe, "data", None)
    return "miniature" if data == "miniature" else "dataset"


Recipe = Annotated[
    Annotated[MiniatureRecipe, Tag("miniature")] | Annotated[DatasetRecipe, Tag("dataset")],
    Discriminator(_world),
]


class ResourcesConfig(Strict):
    """What jobs that run the model ask a cluster for; no result depends on it."""

    gpus: int | None = Field(None, ge=0)
    """GPUs that the model is spread over. Without it: enough of 80 GB each; none for what is trained here."""


class ModelConfig(Strict):
    """A checkpoint and where it comes from: exactly one of `train`, `path` and `hub`."""

    train: Recipe | None = None
    """Train it here."""
    path: PathName | None = None
    """A Hugging Face checkpoint folder, relative to the Snakemake directory."""
    hub: Annotated[str, AfterValidator(_check_repository)] | None = None
    """A model on the Hugging Face hub: ORG/NAME."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`; a branch is resolved to a commit once, which the manifest keeps."""
    chat_template: str | None = None
    """A Jinja file that is used instead of the tokenizer's chat template."""
    stop: list[Annotated[int, Field(ge=0)]] = []
    """Token ids that end a response, beside those of the model's generation_config."""
    trust_remote_code: bool = False
    """Run the Python code that lies in the checkpoint's folder: only for code that you have read."""
    resources: ResourcesConfig = Field(ResourcesConfig(), exclude=True)
    """What jobs that run the model ask a cluster for; among no rule's params."""

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
        return self.train.data if isinstance(self.train, _Dataset) else None

    @property
    def base(self) -> str | None:
        """The model that this one is trained from."""
        return getattr(self.train, "base", None)

    @property
    def judge(self) -> str | None:
        """The reward model that labels this one's training data."""
        return getattr(self.train, "reward_model", None)

    def needed(self) -> dict[str, str]:
        """The models that this one's training needs, by role: `base`, `judge`."""
        roles = {"base": self.base, "judge": self.judge}
        return {role: model for role, model in roles.items() if model}

    def usage(self) -> str:
        """Canonical JSON of what changes how the model is run: the template's text, stop tokens, code."""
        template = Path(self.chat_template).read_text(encoding="utf-8") if self.chat_template else None
        usage = {"chat_template": template, "stop": self.stop, "trust_remote_code": self.trust_remote_code}
        return json.dumps(usage, sort_keys=True)


class DataConfig(Strict):
    """Rows of a local file, or of a dataset on the Hugging Face hub."""

    file: PathName | None = None
    """JSON lines, .csv or .parquet, relative to the Snakemake directory."""
    hub: Annotated[str, AfterValidator(_check_repository)] | None = None
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
    """The field of each row: a text, or a list of {role, content} messages."""
    subset: int | None = Field(None, ge=1)
    """That many prompts, drawn with `seed`, in their order in the set; all where there are no more."""
    seed: int = Field(42, ge=0)
    """Seed of `subset`."""


class GenerateConfig(Strict):
    """How responses are sampled; the defaults are the paper's (Appendix E)."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """What runs the models: `auto` is vllm where it is installed and CUDA is present, else transformers."""
    prompts: Name = "dev"
    """The prompt set whose responses choose alpha."""
    temperature: float = Field(0.7, ge=0)
    """0 is greedy decoding."""
    top_k: int = Field(40, ge=0)
    """Sample among this many most likely tokens; 0 is off."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Sample among the most likely tokens that together have this probability."""
    presence_penalty: float = Field(0.1, ge=-2, le=2)
    """Taken off the logit of every token that the response already has."""
    frequency_penalty: float = Field(0.1, ge=-2, le=2)
    """Taken off the logit of a token once for every time that the response has it."""
    seed: int = Field(42, ge=0)
    """Sample i of a prompt is drawn with a seed made of seed + i and the prompt's id."""
    max_tokens: int = Field(2048, ge=1)
    """A response that is still going after this many tokens counts as unfinished."""
    too_long: Literal["error", "skip", "truncate"] = "error"
    """A prompt that leaves no room for a response: `skip` leaves it out, `truncate` keeps its end."""
    samples: int = Field(1, ge=1)
    """Responses per prompt."""


class ScoreConfig(Strict):
    """How the reward model scores responses."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """What runs the reward model: `auto` is vllm where it is installed and CUDA is present, else transformers."""
    dtype: Literal["keep", "float32", "bfloat16"] = "keep"
    """Type that the reward model computes in; `keep` is that of its files."""


class ExtrapolateConfig(Strict):
    """How theta2 = theta1 + alpha * (theta1 - theta0) is computed and kept."""

    weights: Literal["stored", "streamed"] = "stored"
    """`stored` writes every alpha's weights; `streamed` computes them while an engine loads them."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Precision of the arithmetic; bfloat16 repeats the roundings of the authors' checkpoints."""
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    """Element type of the result; `keep` is the aligned model's."""
    vocabulary: Literal["error", "shared_rows"] = "error"
    """What to do where the vocabularies differ in size: `shared_rows` extrapolates the common rows."""


Criterion = Literal["reward", "nll", "implicit"]


class SelectConfig(Strict):
    """How alpha >= 0 is chosen on the prompts of `generate`."""

    by: Criterion = "reward"
    """`reward`: the largest mean reward (the paper's rule). `nll`, the default without a reward_model: the largest
    alpha whose responses are, a token, no less likely under the aligned model than its own. `implicit`: the largest
    of DPO's implicit reward less the KL."""
    compare: list[Criterion] | None = None
    """What each of these would choose on the same responses is said too; without it nothing more is computed."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Level of the bootstrap intervals over prompts."""
    resamples: int = Field(9999, ge=100)
    """Bootstrap resamples."""
    require_certified: bool = False
    """Fall back to alpha 0 unless the interval of the gain lies above 0 (by nll: that of the change not above 0)."""

    def others(self) -> list[Criterion]:
        """What is compared with what chooses."""
        return [name for name in dict.fromkeys(self.compare or ()) if name != self.by]


class Price(Strict):
    """What a model's tokens cost, in USD per million."""

    input: float = Field(ge=0)
    """Of prompts."""
    output: float = Field(ge=0)
    """Of replies."""


class JudgeConfig(Strict):
    """A model that judges responses, behind any OpenAI-compatible endpoint."""

    base_url: Annotated[str, AfterValidator(_check_judge)] = "https://api.openai.com/v1"
    """The endpoint, up to and without /chat/completions; `miniature` is one on this machine that knows the truth."""
    model: str = Field("gpt-4", min_length=1)
    """The judge's name at the endpoint."""
    api_key_env: Annotated[str, AfterValidator(_check_variable)] = "OPENAI_API_KEY"
    """The environment variable that holds the key; empty where the endpoint needs none."""
    max_cost: float | None = Field(None, ge=0)
    """USD that this benchmark may cost in this folder altogether: the call that might pass it is not made."""
    prices: dict[str, Price] = {
        "gpt-4": Price(input=30, output=60),
        "gpt-4-1106-preview": Price(input=10, output=30),
    }
    """Prices by model."""
    concurrency: int = Field(8, ge=1)
    """Calls at a time."""
    timeout: float = Field(120, gt=0)
    """Seconds after which a call counts as hung."""
    retries: int = Field(4, ge=0)
    """Further tries of a call that failed, or whose verdict cannot be read."""
    backoff: float = Field(1, ge=0)
    """Seconds before the first further try, twice as long before every next one; a Retry-After counts instead."""

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if self.max_cost is not None and self.model not in self.prices:
            raise PydanticCustomError(
                "price",
                "max_cost needs the price of '{model}'; add prices: {'{model}': {input: USD, output: USD}}",
                {"model": self.model},
            )
        return self

    def identity(self) -> str:
        """Canonical JSON of what a verdict depends on."""
        return self.canonical(exclude=INCIDENTAL)


def _constrained(field: FieldInfo) -> Any:
    """The annotation of `field` with its constraints and without its default."""
    return Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation


def _partial(section: type[Strict]) -> type[Strict]:
    """`section` with every field optional: what a pair may override."""
    fields = {
        name: (_constrained(field) | None, Field(None, description=field.description))
        for name, field in section.model_fields.items()
    }
    return create_model(f"Pair{section.__name__}", __base__=Strict, __doc__=section.__doc__, **fields)


PairGenerate: Any = _partial(GenerateConfig)


class _Benchmark(Strict):
    """Base of the sections of benchmarks."""

    APART: ClassVar[frozenset[str]] = frozenset()
    """Keys that the answers do not depend on beside the files: where these come from, and how much is done at a time."""
    SOURCE: ClassVar[frozenset[str]] = frozenset()
    """Keys that say where files come from, if the benchmark has any."""

    def identity(self) -> str:
        """Canonical JSON of what a result depends on beside the files: of a judge no key, cost or patience."""
        judge = {"judge": INCIDENTAL} if "judge" in type(self).model_fields else {}
        return self.canonical(exclude=dict.fromkeys(self.APART, True) | judge)

    def source(self) -> str:
        """Canonical JSON of where the files come from that are not local."""
        return self.canonical(include=set(self.SOURCE))

    def source_name(self) -> str:
        """Short name of the source in file names."""
        return hashlib.sha256(self.source().encode()).hexdigest()[:8]


class RewardBenchmark(_Benchmark):
    """Reward (and, on a miniature's prompts, which need no reward_model, true quality and accuracy) on a prompt set of
    its own."""

    prompts: Name
    """A prompt set that took no part in choosing alpha."""


class AlpacaEvalBenchmark(_Benchmark):
    """AlpacaEval 2.0: win rates against reference outputs, raw and length-controlled."""

    APART = frozenset({"reference", "df_gamed", "instruction_difficulty", "hub", "revision"})
    SOURCE = frozenset({"hub", "revision"})

    reference: PathName | None = None
    """The reference's outputs: JSON, {instruction, output} each, the 805 of GPT-4 Turbo in official order;
    `miniature` makes some about the built-in world."""
    df_gamed: PathName | None = None
    """The dataset's df_gamed.csv; without it no length-controlled win rate."""
    instruction_difficulty: PathName | None = None
    """The dataset's instruction_difficulty.csv: checked against what df_gamed says."""
    hub: Annotated[str, AfterValidator(_check_repository)] | None = None
    """The dataset that files come from which are not given: tatsu-lab/alpaca_eval."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    annotator: str = Field("weighted_alpaca_eval_gpt4_turbo", min_length=1)
    """Prompt and parser of the verdicts: one of alpaca_eval's, or a folder by a path with a slash."""
    generate: PairGenerate | None = None
    """Another way to generate than the run's own, field by field."""
    judge: JudgeConfig = JudgeConfig(model="gpt-4-1106-preview")
    """The model that compares."""

    @model_validator(mode="before")
    @classmethod
    def _has_its_judge(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("judge"), dict):
            return {**data, "judge": {"model": "gpt-4-1106-preview", **data["judge"]}}
        return data

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if self.reference is None and self.hub is None:
            raise PydanticCustomError(
                "source", "a source is needed; give reference: FILE or hub: tatsu-lab/alpaca_eval"
            )
        return self

    def source(self) -> str:
        """Canonical JSON of where files come from that are not local."""
        made = {"reference"} if self.reference == MINIATURE else set()
        return self.canonical(include=self.SOURCE | made)


class MtBenchBenchmark(_Benchmark):
    """MT-Bench: 80 questions of two turns, each answer graded from 1 to 10."""

    APART = SOURCE = frozenset({"data", "hub", "revision"})

    data: PathName | None = None
    """A folder with FastChat's files (fastchat/llm_judge/data): judge_prompts.jsonl, question.jsonl,
    reference_answer/gpt-4.jsonl, there or below; `miniature` makes such files about the built-in world."""
    hub: Annotated[str, AfterValidator(_check_repository)] | None = None
    """A dataset of the hub with these files, instead of `data`."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    judge: JudgeConfig = JudgeConfig()
    """The model that grades."""
    max_tokens: int = Field(1024, ge=1)
    """Tokens of an answer at most."""
    seed: int = Field(42, ge=0)
    """Of the answers that are sampled: those to writing, roleplay, stem and humanities."""

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if (self.data is None) == (self.hub is None):
            raise PydanticCustomError("source", "one source is needed; give data: FOLDER or hub: ORG/NAME")
        return self


OpenLlmTask = Literal[
    "arc",
    "hellaswag",
    "mmlu",
    "gsm8k",
    "winogrande",
    "truthfulqa",
    "miniature_choice",
    "miniature_answer",
]


class OpenLlmBenchmark(_Benchmark):
    """The Open LLM Leaderboard, version 1, through lm-eval."""

    APART = frozenset({"data", "base_url", "batch_size", "concurrency"})
    SOURCE = frozenset({"data", "tasks"})

    tasks: list[OpenLlmTask] = Field(
        ["arc", "hellaswag", "mmlu", "gsm8k", "winogrande", "truthfulqa"], min_length=1
    )
    """The leaderboard's six, of which `average` is the mean; the miniature_ ones ask about the built-in world."""
    data: PathName | None = None
    """A folder with the datasets as they are on the hub, in ORG/NAME; `miniature` makes those of the miniature_ tasks. Without it they come from the hub."""
    limit: int | None = Field(None, ge=2)
    """Only the first documents of every task (of every MMLU subject): for a trial, not for a result."""
    chat_template: bool = False
    """Ask in the model's chat format; the leaderboard did not."""
    seed: int = Field(1234, ge=0)
    """Draws the examples in the prompts."""
    context: int = Field(4096, ge=256)
    """Tokens of a prompt with its answer, the model's own limit where that is less; longer ones lose their beginning."""
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    """Type that the model computes in; `keep` is that of its files."""
    backend: Literal["hf", "vllm", "completions"] = "hf"
    """What lm-eval runs models in; `completions` is a server that has the model loaded, at `base_url`."""
    base_url: Annotated[str, AfterValidator(_check_endpoint)] | None = None
    """The server of `completions`, up to and without /completions."""
    batch_size: int | Literal["auto"] = "auto"
    """Sequences at a time; `auto` is what fits into memory."""
    concurrency: int = Field(8, ge=1)
    """Requests at a time to a server."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise PydanticCustomError("tasks", "a task stands twice in tasks; remove one")
        if (self.backend == "completions") != (self.base_url is not None):
            raise PydanticCustomError(
                "server", "backend: completions and base_url belong together; give both or none"
            )
        miniature = {task.startswith("miniature_") for task in self.tasks}
        if self.data == "miniature" and False in miniature:
            raise PydanticCustomError(
                "data",
                "data: miniature has only the miniature_ tasks; name a folder, or leave data out for the hub",
            )
        if self.data is None and True in miniature:
            raise PydanticCustomError("data", "the miniature_ tasks need data: miniature; add it")
        return self


class RewardCheck(Strict):
    """How often the reward model prefers the chosen response: choosing alpha is only as good as that.

    Exactly one of `file`, `hub` and `miniature`.
    """

    file: PathName | None = None
    """Preferences as JSON lines, CSV or Parquet, relative to the Snakemake directory."""
    hub: Annotated[str, AfterValidator(_check_repository)] | None = None
    """A dataset of the hub; RewardBench's own is allenai/reward-bench, with split: filtered and subset: subset."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    miniature: bool = False
    """Preferences of the built-in world that no model was trained on."""
    split: str = "train"
    """The split of `hub`."""
    prompt: str = "prompt"
    """The column of the prompt: a text, or a list of {role, content} messages."""
    chosen: str = "chosen"
    """The column of the better response: a text, or messages whose last one it is."""
    rejected: str = "rejected"
    """The column of the worse response."""
    subset: str | None = None
    """A column by whose values the accuracy is told apart."""

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if [self.file is not None, self.hub is not None, self.miniature].count(True) != 1:
            raise PydanticCustomError(
                "source", "one source is needed; give file: FILE, hub: ORG/NAME or miniature: true"
            )
        if self.revision and not self.hub:
            raise PydanticCustomError("revision", "revision belongs to hub; remove it, or give hub")
        return self


class BenchmarksConfig(Strict):
    """What sft, aligned and expo are compared on."""

    reward: RewardBenchmark | None = None
    alpaca_eval: AlpacaEvalBenchmark | None = None
    mt_bench: MtBenchBenchmark | None = None
    open_llm: OpenLlmBenchmark | None = None

    def names(self) -> list[str]:
        """The benchmarks that are switched on."""
        return [name for name in type(self).model_fields if getattr(self, name) is not None]


class PlaneConfig(Strict):
    """The plane through an SFT model and two models aligned from it: reward and quality at points of it."""

    pairs: Annotated[list[Name], Field(min_length=2, max_length=2)]
    """Two pairs with the same `sft`; the first one's aligned model lies on the horizontal axis, and its tokenizer
    and chat template serve for all points."""
    points: int = Field(6, ge=2)
    """Points along each of the two axes; the three models themselves are added."""
    reach: float = Field(1.0, gt=0)
    """How far the points go, as a share of the pairs' largest alphas."""


class TheoryConfig(Strict):
    """Measurements of why extrapolation works (the paper's Section 2.2 and Figures 3 and 5); without it none."""

    preferences: str = MINIATURE
    """Held-out preferences whose margin is an objective: a JSON lines, CSV or Parquet file with the columns prompt,
    chosen and rejected; `miniature` writes some on the test split of the built-in world."""
    examples: int = Field(300, ge=2)
    """That many of them, from the beginning."""
    prompts: Name | None = None
    """The prompt set of the expected reward and of planes; by default the one that chooses the pair's alpha."""
    limit: int = Field(200, ge=2)
    """That many of its prompts, from the beginning."""
    samples: int = Field(4, ge=2)
    """Responses to a prompt, drawn at temperature 1, of which the expected reward is estimated."""
    max_tokens: int = Field(64, ge=1)
    """Tokens of such a response at most."""
    step: float = Field(0.01, gt=0, le=1)
    """Step of the margin's finite difference, as a share of the pair's largest alpha."""
    reward_step: float = Field(0.1, gt=0, le=1)
    """The same of the expected reward, which sampling blurs."""
    tolerance: float = Field(0.1, gt=0)
    """The first order holds where it is no further off than this share of the predicted change."""
    planes: dict[Name, PlaneConfig] = {}
    """Planes by name."""


PairSelect: Any = _partial(SelectConfig)
PairBenchmarks: Any = _partial(BenchmarksConfig)


class PairConfig(Strict):
    """An SFT checkpoint, the model aligned from it (or a LoRA adapter on it), and the alphas to try."""

    # What is left out is filled in before the config is checked.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("sft"))

    sft: Name
    """theta0: the model that alignment began with. Where `aligned` is an adapter in a folder, its base by default."""
    aligned: Name
    """theta1: the model after DPO or RLHF."""
    alphas: Annotated[list[Alpha], AfterValidator(_check_distinct)] = Field(min_length=1)
    """Extrapolation lengths; 0 (aligned) and -1 (sft) are always added."""
    generate: PairGenerate | None = None
    """Overrides of `generate` for this pair."""
    select: PairSelect | None = None
    """Overrides of `select` for this pair."""
    benchmarks: PairBenchmarks | None = None
    """Overrides of `benchmarks` for this pair."""
    paper: str | None = None
    """The paper's model that this pair repeats, such as `DPO (20% data)`: published values stand beside its own."""
    trained_on_dev: Name | None = None
    """The pair whose aligned model is this one's, trained further on the prompts that choose alpha (Appendix F)."""

    def grid(self) -> list[str]:
        """Canonical alphas in ascending order, -1 and 0 included."""
        return sorted({spell(alpha) for alpha in self.alphas} | set(REFERENCE_ALPHAS), key=float)


# What a figure may say beside its kind, pairs, labels and caption.
FIGURE_KEYS = {
    "sweep": (),
    "curves": ("groups",),
    "path": (),
    "histograms": ("benchmark", "variants"),
    "bars": ("metrics", "variants"),
    "first_order": (),
    "cosines": (),
    "plane": ("plane",),
}
# Metrics of benchmarks that a reward model gives.
REWARD_METRICS = ("reward.reward", "reward.win_rate", "alpaca_eval.reward")
MEASURED = ("first_order", "cosines", "plane")  # kinds that need the section theory


class FigureConfig(Strict):
    """A figure of results/figures/: what it shows, and of which pairs."""

    kind: Literal["sweep", "curves", "path", "histograms", "bars", "first_order", "cosines", "plane"]
    """`sweep`: reward and length against alpha, a panel for each pair; `curves`: the same, pairs in one panel (the
    paper's Figures 6 to 8); `path`: reward from SFT to the aligned model and on (2); `histograms`: of rewards
    (Appendix C); `bars`: metrics of benchmarks side by side (1 and 4). With the section `theory` also `first_order`:
    an objective along alpha and its slope at 0 (3); `cosines`: between the deltas of pairs; `plane`: reward and
    quality around an SFT model and two aligned ones (5)."""
    pairs: list[Name] | None = Field(None, min_length=1)
    """What is shown, in this order; without it all pairs (that have the benchmark)."""
    groups: dict[str, Annotated[list[Name], Field(min_length=1)]] | None = Field(None, min_length=1)
    """Of `curves`, instead of pairs: pairs that share panels, by the title of these panels."""
    benchmark: Literal["reward", "alpaca_eval"] = "reward"
    """Of `histograms`: the benchmark whose responses' rewards are shown."""
    metrics: list[Annotated[str, Field(pattern=r"^[a-z_]+\.[a-zA-Z0-9_]+$")]] | None = Field(
        None, min_length=1
    )
    """Of `bars`: a panel each, BENCHMARK.METRIC such as `alpaca_eval.lc_win_rate`."""
    variants: list[Literal["sft", "aligned", "expo"]] = Field(["sft", "aligned", "expo"], min_length=1)
    """Of `histograms` and `bars`: what stands side by side."""
    plane: Name | None = None
    """Of `plane`: one of `theory.planes`."""
    labels: dict[Name, str] = {}
    """What a pair is called in the figure, by pair; without it its name."""
    caption: str | None = None
    """The text below the figure; without it the kind's own."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        own = {"kind", "pairs", "labels", "caption", *FIGURE_KEYS[self.kind]}
        fields = type(self).model_fields
        for key in [key for key in fields if key not in own and getattr(self, key) != fields[key].default]:
            kinds = " and ".join(kind for kind, keys in FIGURE_KEYS.items() if key in keys)
            raise PydanticCustomError(
                "kind", "{key} belongs to kind {kinds}; remove it", {"key": key, "kinds": kinds}
            )
        if self.kind == "bars" and self.metrics is None:
            raise PydanticCustomError("metrics", "kind bars needs metrics: [BENCHMARK.METRIC]; add it")
        if self.kind == "plane" and self.plane is None:
            raise PydanticCustomError("plane", "kind plane needs plane: NAME, one of theory.planes; add it")
        if self.groups is not None and self.pairs is not None:
            raise PydanticCustomError("groups", "groups stand instead of pairs; remove one of the two")
        return self

    def canonical(self, **kwargs: Any) -> str:
        """JSON in the config's own order, which groups are drawn in; they stand instead of the pairs that
        `Config.drawn` filled in."""
        filled = {"pairs"} if self.groups is not None else None
        return self.model_dump_json(exclude_none=True, exclude=filled, **kwargs)

    def named(self) -> list[str] | None:
        """The pairs that the config names, each once."""
        if self.groups is not None:
            return list(dict.fromkeys(pair for group in self.groups.values() for pair in group))
        return self.pairs

    def shows_rewards(self) -> bool:
        """Whether nothing can be drawn without a reward model."""
        return self.kind in ("path", "histograms") or bool(set(REWARD_METRICS) & set(self.metrics or ()))

    def benchmarks(self) -> list[str]:
        """The benchmarks that it reads."""
        if self.kind == "histograms":
            return [self.benchmark]
        return list(dict.fromkeys(metric.partition(".")[0] for metric in self.metrics or []))


# Without a section of their own.
FIGURES = {kind: FigureConfig(kind=kind) for kind in ("sweep", "path", "histograms")}


# Claims that are shown by pairs which differ in one setting of the aligned model's training: that setting.
VARIED = {
    "fractions": "fraction",
    "learning_rates": "learning_rate",
    "epochs": "epochs",
    "in_time": "until",
    "length_bias": "length_bias",
    "betas": "beta",
    "label_noise": "label_noise",
}


class CombinationsClaims(Strict):
    """Pairs whose second model was not aligned from the first (section 4.4)."""

    different_bases: list[Name] = []
    """Two SFT models of different base models."""
    base_and_sft: list[Name] = []
    """A base model and the SFT model trained from it."""
    separate: list[Name] = []
    """Two SFT or two RLHF models, trained separately from one base."""

    def pairs(self) -> list[str]:
        """All of them."""
        return [*self.different_bases, *self.base_and_sft, *self.separate]


class ClaimsConfig(Strict):
    """Which pairs answer which claim of the paper: results/claims.csv has what they say.

    A claim whose pairs are not named is left out. Pairs `trained_on_dev` and the section `theory` answer others.
    """

    fractions: list[Name] = []
    """DPO on different shares of the data (4.2); the largest share is the fully trained model."""
    learning_rates: list[Name] = []
    """DPO at different learning rates (4.3); the smallest one is the default."""
    epochs: list[Name] = []
    """DPO for different numbers of epochs (4.3); the smallest one is the default."""
    in_time: list[Name] = []
    """One training, stopped at different times; the latest one is its end."""
    length_bias: list[Name] = Field([], max_length=2)
    """Two trainings, one on labels of an annotator who likes length less, or not at all."""
    betas: list[Name] = []
    """DPO with different beta (2.2)."""
    label_noise: list[Name] = []
    """DPO on labels of which different shares are turned round (2.2)."""
    labelled: list[Name] = []
    """Models whose training was labelled by a reward model that does not choose alpha (3.1): it scores their
    responses too."""
    capability: list[Name] = []
    """Pairs whose tasks are compared before and after (3.2, Appendix D)."""
    combinations: CombinationsClaims = CombinationsClaims()

    def named(self) -> dict[str, list[str]]:
        """The pairs by the key that names them."""
        keys = {key: getattr(self, key) for key in type(self).model_fields if key != "combinations"}
        below = {f"combinations.{key}": value for key, value in self.combinations.model_dump().items()}
        return {key: pairs for key, pairs in (keys | below).items() if pairs}


class Config(Strict):
    """A whole expoflow config."""

    seed: int = Field(42, ge=0)
    """Seed of everything the miniature makes and trains."""
    models: dict[Name, ModelConfig]
    """Checkpoints by name."""
    datasets: dict[Name, DataConfig] = {}
    """What models are trained on, by name: exactly one of `file` and `hub` each."""
    pairs: dict[Name, PairConfig] = Field(min_length=1)
    """Pairs to extrapolate, by name."""
    prompts: dict[Name, PromptsConfig]
    """Prompt sets by name."""
    reward_model: Name | None = None
    """The model whose raw logit is the reward of a response; without it alpha is chosen by nll, or by implicit."""
    generate: GenerateConfig = GenerateConfig()
    score: ScoreConfig = ScoreConfig()
    extrapolate: ExtrapolateConfig = ExtrapolateConfig()
    select: SelectConfig = SelectConfig()
    benchmarks: BenchmarksConfig = BenchmarksConfig()
    theory: TheoryConfig | None = None
    figures: dict[Name, FigureConfig] | None = None
    """Figures by name; without this section sweep, path and histograms of all pairs, and those of `theory`."""
    claims: ClaimsConfig | None = None
    """Which pairs answer which claim of the paper; without it results/claims.csv is not made."""

    @model_validator(mode="before")
    @classmethod
    def _is_chosen_without_rewards(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("reward_model") is None:
            select = data.get("select", {})
            return {**data, "select": {"by": "nll", **select} if isinstance(select, dict) else select}
        return data

    def drawn(self) -> dict[str, FigureConfig]:
        """The figures that are drawn, each with its pairs; one that no pair can fill is left out."""
        figures = FIGURES | self._of_theory() if self.figures is None else self.figures
        filled = {
            name: figure.model_copy(update={"pairs": figure.named() or self._able(figure)})
            for name, figure in figures.items()
        }
        return {
            name: figure
            for name, figure in filled.items()
            if figure.pairs and (self.reward_model or not figure.shows_rewards())
        }

    def _of_theory(self) -> dict[str, FigureConfig]:
        """The figures of the section theory, where there is one."""
        if self.theory is None:
            return {}
        kinds = ["first_order", *(["cosines"] if self.kin() else [])]
        planes = {
            name: FigureConfig(kind="plane", plane=name)
            for name in self.theory.planes
            if name not in (*FIGURES, *kinds)
        }
        return {kind: FigureConfig(kind=kind) for kind in kinds} | planes

    def _able(self, figure: FigureConfig) -> list[str]:
        """The pairs that have what a figure shows."""
        if figure.kind == "plane":
            return self.theory.planes[figure.plane].pairs
        if figure.kind == "cosines":
            return [pair for pairs in self.kin().values() for pair in pairs]
        needed = set(figure.benchmarks())
        return [pair for pair in self.pairs if needed <= set(self.section(pair, "benchmarks").names())]

    def kin(self) -> dict[str, list[str]]:
        """The pairs that share their SFT model with another one, by that model."""
        families: dict[str, list[str]] = {}
        for name, pair in self.pairs.items():
            families.setdefault(pair.sft, []).append(name)
        return {sft: pairs for sft, pairs in families.items() if len(pairs) > 1}

    reward_check: RewardCheck | None = None

    def claims_basis(self) -> str:
        """Canonical JSON of what the claims of a run depend on beside its results."""
        parts = {"claims", "models", "pairs", "generate", "reward_model"}
        return self.canonical(include=parts, exclude={"pairs": {"__all__": {"benchmarks"}}})

    def labellers(self, model: str) -> list[str]:
        """The reward models that labelled the training of `model`, or of what it was trained from."""
        found, name = [], model
        while name:
            found.append(self.models[name].judge)
            name = self.models[name].base
        return sorted({judge for judge in found if judge})

    def setting(self, pair: str, name: str) -> float | None:
        """A number of the recipe that the pair's aligned model is trained by."""
        value = getattr(self.models[self.pairs[pair].aligned].train, name, None)
        return 1.0 if value is None and name == "until" else value

    def section(self, pair: str, name: str) -> Any:
        """Section `name` (generate, select or benchmarks) with the overrides of `pair` applied."""
        section, override = getattr(self, name), getattr(self.pairs[pair], name)
        if override is None:
            return section
        changed = section.model_dump(exclude_none=True) | override.model_dump(exclude_none=True)
        return type(section).model_validate(changed)


BENCHMARKS = tuple(BenchmarksConfig.model_fields)


def schema() -> str:
    """config/schema.json: JSON schema of the whole config, for editors."""
    return json.dumps(Config.model_json_schema(by_alias=True), indent=2, ensure_ascii=False) + "\n"


def schema_path(root: Path) -> Path:
    """Where the schema lies in a checkout."""
    return root / "config" / "schema.json"


if __name__ == "__main__":
    print(schema(), end="")
