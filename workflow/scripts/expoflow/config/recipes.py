"""How a model is trained: recipes for the miniature, and recipes for a dataset."""

from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from expoflow.config.base import Fraction, Name, PathName, Strict

TRAINED_ON = ("miniature", "dataset")


class _Recipe(Strict):
    SCORES: ClassVar[bool] = False
    """Whether the recipe makes a reward model instead of a language model."""

    recipe: str
    """What the training does."""
    epochs: int = Field(ge=1)
    """Passes over the training data."""
    learning_rate: float = Field(gt=0)
    """Peak learning rate of AdamW."""


class _Miniature(_Recipe):
    data: Literal["miniature"]
    """The training data: `miniature` is the built-in world."""
    examples: int = Field(ge=1)
    """Training examples (SFT), preference pairs (DPO, reward) or prompts (iterative DPO, RLHF)."""
    trainer: Literal["loop", "trl"] = "loop"
    """The training code: `loop`, the miniature's own fast loop, or `trl`, which trains real
    models."""
    seed: int | None = Field(None, ge=0)
    """Seed of the initial weights and of the order of the data. The default is the config's seed,
    which also makes the world."""

    def settings(self) -> dict[str, Any]:
        """The arguments of `training.loop.RECIPE.train` besides models and seeds.

        Their defaults are defined only in this module.
        """
        apart = {"recipe", "data", "trainer", "base", "reward_model", "seed"}
        return self.model_dump(exclude=apart, exclude_none=True)


class _Stoppable(_Miniature):
    until: Fraction | None = None
    """Stop after this share of the steps, with unchanged learning rates: a checkpoint from the
    middle of the full training."""

    @model_validator(mode="after")
    def _is_stopped_by_its_own_loop(self) -> Self:
        if self.until is not None and self.trainer != "loop":
            raise PydanticCustomError("until", "until needs trainer: loop; change one, or remove until")
        return self


class _Aligned(Strict):
    base: Name = Field(alias="from")
    """The model that training starts from, which is also the reference model."""


class _Labelled(_Aligned):
    reward_model: Name
    """The model that scores the responses of the trained model. Better not the one that chooses
    alpha."""
    samples: int = Field(4, ge=2)
    """Number of responses sampled per prompt."""


class _Iterated(_Labelled):
    iterations: int = Field(3, ge=1)
    """Number of rounds. Each uses its own share of the prompts and starts from the previous round's
    model, which is also its reference."""
    beta: float = Field(0.01, gt=0)
    """DPO's beta: strength of the tie to the reference model."""


class MiniatureSft(_Stoppable):
    """Supervised fine-tuning, from random weights or from the model `from`."""

    recipe: Literal["sft"]
    base: Name | None = Field(None, alias="from")
    """The model that training starts from. By default training starts from random weights."""
    size: Literal["small", "large"] = "small"
    """Hidden size 64 and 2 layers, or 128 and 3. Models trained from it have the same size."""
    examples: int = Field(8000, ge=1)
    epochs: int = Field(6, ge=1)
    learning_rate: float = Field(6e-3, gt=0)

    @model_validator(mode="after")
    def _has_one_size(self) -> Self:
        if self.base and "size" in self.model_fields_set:
            raise PydanticCustomError("size", "size is that of the model in from; remove size")
        return self


class MiniatureDpo(_Stoppable, _Aligned):
    """Direct preference optimisation on response pairs from the miniature's writers."""

    recipe: Literal["dpo"]
    prompts: Literal["train", "dev"] = "train"
    """The split that the pairs' prompts come from; `dev` is the split that chooses alpha (Appendix
    F)."""
    fraction: Fraction = 1.0
    """Share of the preference data that is used, from the beginning."""
    examples: int = Field(6000, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(5e-5, gt=0)
    beta: float = Field(0.01, gt=0)
    """DPO's beta: strength of the tie to the reference model."""
    annotator_temperature: float = Field(0.7, gt=0)
    """How unsure the annotator is, in units of true quality."""
    length_bias: float = 0.06
    """Log-odds that the annotator adds per additional word; 0 is an annotator without this bias."""
    label_noise: float = Field(0.0, ge=0, le=1)
    """Share of the pairs with a flipped label."""

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

    SCORES = True

    recipe: Literal["reward"]
    examples: int = Field(10000, ge=1)
    epochs: int = Field(3, ge=1)
    learning_rate: float = Field(1.5e-3, gt=0)


class MiniatureIterativeDpo(_Miniature, _Iterated):
    """DPO on pairs of the model's own responses, the best and the worst by `reward_model`, in
    rounds."""

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
    """RLHF by REINFORCE leave-one-out (RLOO) on the reward minus a KL penalty."""

    recipe: Literal["rlhf"]
    examples: int = Field(1600, ge=1)
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(1e-4, gt=0)
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the reference model, per response."""


class Lora(Strict):
    """Low-rank adaptation: small matrices are trained and merged into the weights at the end."""

    rank: int = Field(64, ge=1)
    """Rank of the matrices."""
    scale: int = Field(64, ge=1)
    """LoRA's alpha: the product of the matrices is multiplied by scale / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the matrices."""
    modules: Literal["all-linear"] | list[str] = "all-linear"
    """Names of the modules that get adapters."""


class OnDataset(_Recipe):
    data: Name
    """The name of a dataset in `datasets`."""
    base: Name = Field(alias="from")
    """The model that training starts from, which is also the reference model if one is needed."""
    trainer: Literal["trl"] = "trl"
    """The training code: TRL."""
    fraction: Fraction = 1.0
    """Share of the dataset that is used, from the beginning."""
    epochs: int = Field(1, ge=1)
    learning_rate: float = Field(5e-7, gt=0)
    warmup: float = Field(0.1, ge=0, lt=1)
    """Share of the steps during which the learning rate rises. Afterwards it follows a cosine
    decay."""
    batch_size: int = Field(128, ge=1)
    """Rows (RLHF: responses) per optimiser step, over all devices and accumulated steps."""
    max_length: int = Field(1024, ge=2)
    """Maximum number of tokens of prompt and response. Longer ones are truncated."""
    lora: Lora | None = None
    """Train low-rank matrices instead of all weights; `{}` uses the defaults."""
    gradient_checkpointing: bool = True
    """Recompute activations in the backward pass to save memory."""
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """Type that the model computes in; the result has the type of the model in `from`."""
    seed: int = Field(42, ge=0)
    """Seed of the order of the data, of sampling and of new weights."""
    per_device: int = Field(8, ge=1)
    """Rows on one device at a time. It changes results only by rounding, so a new value reruns
    nothing."""
    accelerate: PathName = "zero3-offload"
    """The name of a file in config/accelerate, or a path: devices, processes, DeepSpeed. A new
    value reruns nothing."""

    @model_validator(mode="after")
    def _can_be_divided(self) -> Self:
        if self.batch_size % self.per_device:
            sizes = {"batch_size": self.batch_size, "per_device": self.per_device}
            raise PydanticCustomError(
                "batch",
                "batch_size {batch_size} is not a multiple of per_device {per_device}; change one",
                sizes,
            )
        return self


class SftRecipe(OnDataset):
    """Supervised fine-tuning on rows with `messages` (all tokens count) or with `prompt` and
    `completion`."""

    recipe: Literal["sft"]
    learning_rate: float = Field(2e-5, gt=0)


class DpoRecipe(OnDataset):
    """DPO on rows with `prompt`, `chosen` and `rejected`; the defaults are the paper's (Appendix
    E)."""

    recipe: Literal["dpo"]
    beta: float = Field(0.01, gt=0)
    """DPO's beta: strength of the tie to the reference model."""


class RewardRecipe(OnDataset):
    """Bradley-Terry reward model, a classifier with one logit, on rows like those of DPO."""

    SCORES = True

    recipe: Literal["reward"]
    learning_rate: float = Field(1e-5, gt=0)


class IterativeDpoRecipe(OnDataset, _Iterated):
    """DPO on pairs of the model's own responses to `prompt`, the best and the worst by
    `reward_model`, in rounds."""

    recipe: Literal["iterative_dpo"]
    max_tokens: int = Field(512, ge=1)
    """Maximum number of tokens per response. Unfinished responses are not used."""


class RlhfRecipe(OnDataset, _Labelled):
    """RLHF by REINFORCE leave-one-out (TRL's RLOO) on responses to `prompt`, scored by
    `reward_model`."""

    recipe: Literal["rlhf"]
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the reference model, per response."""
    max_tokens: int = Field(512, ge=1)
    """Maximum number of tokens per response."""

    @model_validator(mode="after")
    def _has_whole_groups(self) -> Self:
        if self.batch_size % self.samples:
            sizes = {"batch_size": self.batch_size, "samples": self.samples}
            raise PydanticCustomError(
                "batch", "batch_size {batch_size} is not a multiple of samples {samples}; change one", sizes
            )
        return self


LAUNCH = frozenset({"per_device", "accelerate"})  # keys that change how training is run, not its result

MiniatureRecipe = Annotated[
    MiniatureSft | MiniatureDpo | MiniatureReward | MiniatureIterativeDpo | MiniatureRlhf,
    Field(discriminator="recipe"),
]
# The miniature's recipes by name. The recipes for a dataset have the same names.
MINIATURE_RECIPES: dict[str, type[_Miniature]] = {
    get_args(each.model_fields["recipe"].annotation)[0]: each
    for each in get_args(get_args(MiniatureRecipe)[0])
}
RECIPES = tuple(MINIATURE_RECIPES)
DatasetRecipe = Annotated[
    SftRecipe | DpoRecipe | RewardRecipe | IterativeDpoRecipe | RlhfRecipe, Field(discriminator="recipe")
]


def _world(recipe: Any) -> str:
    """Say whether a recipe, raw or parsed, is trained on the `miniature` or on a `dataset`."""
    data = recipe.get("data") if isinstance(recipe, dict) else getattr(recipe, "data", None)
    return "miniature" if data == "miniature" else "dataset"


TrainingRecipe = Annotated[
    Annotated[MiniatureRecipe, Tag("miniature")] | Annotated[DatasetRecipe, Tag("dataset")],
    Discriminator(_world),
]
