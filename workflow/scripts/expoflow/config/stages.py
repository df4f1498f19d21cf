"""How responses are generated and scored, weights extrapolated, and alpha chosen."""

from typing import Any, Literal

from pydantic import Field

from expoflow.config.base import Name, Strict, partial


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
    images: Literal["text", "refuse"] = "text"
    """What becomes of prompts with images, which no reward model here sees: `text` scores prompt and response without them, and
    says so; `refuse` is an error."""


Compute = Literal["float32", "bfloat16"]
Dtype = Literal["keep", "float32", "bfloat16", "float16"]
Vocabulary = Literal["error", "shared_rows"]


class ExtrapolateConfig(Strict):
    """How theta2 = theta1 + alpha * (theta1 - theta0) is computed and kept."""

    weights: Literal["stored", "streamed"] = "stored"
    """`stored` writes every alpha's weights; `streamed` computes them while an engine loads them."""
    compute: Compute = "float32"
    """Precision of the arithmetic; bfloat16 repeats the roundings of the authors' checkpoints."""
    dtype: Dtype = "keep"
    """Element type of the result; `keep` is the aligned model's."""
    vocabulary: Vocabulary = "error"
    """What to do where the vocabularies differ in size: `shared_rows` extrapolates the common rows."""


Criterion = Literal["reward", "nll", "implicit"]
# What alpha is chosen by if there is no reward model and the config does not say.
WITHOUT_REWARDS: Criterion = "nll"


class SelectConfig(Strict):
    """How alpha >= 0 is chosen on the prompts of `generate`."""

    by: Criterion = "reward"
    """`reward`: the largest mean reward (the paper's rule). `nll`, the default without a reward_model: the largest
    alpha whose responses are, per token, no less likely under the aligned model than its own. `implicit`: the largest
    of DPO's implicit reward less the KL."""
    compare: list[Criterion] | None = None
    """What each of these would choose on the same responses is said too; without it nothing more is computed."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Level of the bootstrap intervals over prompts."""
    resamples: int = Field(9999, ge=100)
    """Bootstrap resamples."""
    require_certified: bool = False
    """Fall back to alpha 0 unless the interval of the gain lies above 0 (by nll: that of the change not above 0). It holds
    for all alphas of the grid at once."""
    judge: float | None = Field(None, gt=0, lt=1)
    """Share of the prompts that judges the choice and takes no part in it; only without the benchmark reward."""
    degenerate_rise: float = Field(0.1, ge=0, le=1)
    """An alpha is left out if the share of degenerate responses (empty, unfinished, or repeating themselves) has surely
    risen by more than this from alpha 0: if the low end of the interval of the rise lies above it. 1 leaves none out."""

    def others(self) -> list[Criterion]:
        """What is compared with what chooses."""
        return [name for name in dict.fromkeys(self.compare or ()) if name != self.by]


PairGenerate: Any = partial(GenerateConfig)


PairSelect: Any = partial(SelectConfig)
