"""How responses are generated and scored, how weights are extrapolated, and how alpha is chosen."""

from typing import Any, Literal

from pydantic import Field

from expoflow.config.base import Name, Strict, partial


class GenerateConfig(Strict):
    """How responses are sampled; the defaults are the paper's (Appendix E)."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """The engine that runs the models: `auto` is vllm if it is installed and CUDA is present, else
    transformers."""
    prompts: Name = "dev"
    """The prompt set that chooses alpha."""
    temperature: float = Field(0.7, ge=0)
    """0 is greedy decoding."""
    top_k: int = Field(40, ge=0)
    """Sample among this many of the most likely tokens; 0 turns it off."""
    top_p: float = Field(0.9, gt=0, le=1)
    """Sample among the most likely tokens that together have this probability."""
    presence_penalty: float = Field(0.1, ge=-2, le=2)
    """Subtracted from the logit of every token that the response already contains."""
    frequency_penalty: float = Field(0.1, ge=-2, le=2)
    """Subtracted from the logit of a token once for every time that the response contains it."""
    seed: int = Field(42, ge=0)
    """Sample i of a prompt is drawn with a seed made from seed + i and the prompt's id."""
    max_tokens: int = Field(2048, ge=1)
    """Maximum number of tokens per response. A response that has not ended by then counts as
    unfinished."""
    too_long: Literal["error", "skip", "truncate"] = "error"
    """What to do with a prompt that leaves no room for a response: `skip` leaves it out, `truncate`
    keeps its end."""
    samples: int = Field(1, ge=1)
    """Responses per prompt."""


class ScoreConfig(Strict):
    """How the reward model scores responses."""

    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """The engine that runs the reward model: `auto` is vllm if it is installed and CUDA is present,
    else transformers."""
    dtype: Literal["keep", "float32", "bfloat16"] = "keep"
    """Type that the reward model computes in; `keep` is that of its files."""
    images: Literal["text", "refuse"] = "text"
    """What to do with prompts that have images, which no reward model here can see. `text` scores
    prompt and response without the images and reports it; `refuse` is an error."""


Compute = Literal["float32", "bfloat16"]
Dtype = Literal["keep", "float32", "bfloat16", "float16"]
Vocabulary = Literal["error", "shared_rows"]


class ExtrapolateConfig(Strict):
    """How theta2 = theta1 + alpha * (theta1 - theta0) is computed and stored."""

    weights: Literal["stored", "streamed"] = "stored"
    """`stored` writes the weights of every alpha; `streamed` computes them while an engine loads
    them."""
    compute: Compute = "float32"
    """Precision of the arithmetic; bfloat16 repeats the roundings of the authors' checkpoints."""
    dtype: Dtype = "keep"
    """Element type of the result; `keep` is the aligned model's."""
    vocabulary: Vocabulary = "error"
    """What to do if the vocabularies differ in size: `shared_rows` extrapolates the common rows."""


Criterion = Literal["reward", "nll", "implicit"]
# The default criterion if there is no reward model.
WITHOUT_REWARDS: Criterion = "nll"


class SelectConfig(Strict):
    """How alpha >= 0 is chosen on the prompts of `generate`."""

    by: Criterion = "reward"
    """`reward`: the alpha with the largest mean reward (the paper's rule). `nll`, the default
    without a reward_model: the largest alpha at which the aligned model finds the responses, per
    token, at least as likely as its own. `implicit`: the alpha with the largest value of DPO's
    implicit reward minus the KL divergence."""
    compare: list[Criterion] | None = None
    """Further criteria: the alpha that each would choose on the same responses is reported too. By
    default nothing more is computed."""
    confidence: float = Field(0.95, gt=0, lt=1)
    """Level of the bootstrap intervals over prompts."""
    resamples: int = Field(9999, ge=100)
    """Bootstrap resamples."""
    require_certified: bool = False
    """Fall back to alpha 0 unless the interval of the gain lies above 0 (for nll: unless the
    interval of the change is not above 0). The interval holds for all alphas of the grid at
    once."""
    judge: float | None = Field(None, gt=0, lt=1)
    """Share of the prompts that judges the choice and takes no part in it. Only without the
    benchmark reward."""
    degenerate_rise: float = Field(0.1, ge=0, le=1)
    """Allowed rise of the share of degenerate responses (empty, unfinished or repeating themselves)
    from alpha 0. An alpha is left out if the low end of the interval of its rise lies above this
    value. 1 leaves out none."""

    def others(self) -> list[Criterion]:
        """The criteria to compare, without the one that chooses."""
        return [name for name in dict.fromkeys(self.compare or ()) if name != self.by]


PairGenerate: Any = partial(GenerateConfig)


PairSelect: Any = partial(SelectConfig)
