"""The section theory: measurements of why extrapolation works."""

from typing import Annotated

from pydantic import Field

from expoflow.config.base import MINIATURE, Name, PathName, Strict


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

    preferences: PathName = MINIATURE
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
