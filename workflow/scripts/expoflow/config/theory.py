"""The section theory: measurements of why extrapolation works."""

from typing import Annotated

from pydantic import Field

from expoflow.config.base import MINIATURE, Name, PathName, Strict


class PlaneConfig(Strict):
    """The plane through an SFT model and two models aligned from it: reward and quality at points
    in this plane."""

    pairs: Annotated[list[Name], Field(min_length=2, max_length=2)]
    """Two pairs with the same `sft`. The first pair's aligned model lies on the horizontal axis,
    and its tokenizer and chat template are used for all points."""
    points: int = Field(6, ge=2)
    """Number of points along each of the two axes. The three models themselves are added."""
    reach: float = Field(1.0, gt=0)
    """How far the points go, as a share of the pairs' largest alphas."""


class TheoryConfig(Strict):
    """Measurements of why extrapolation works (the paper's Section 2.2 and Figures 3 and 5). Off by
    default."""

    preferences: PathName = MINIATURE
    """Held-out preferences; the margin on them is an objective. A JSON lines, CSV or Parquet file
    with the columns prompt, chosen and rejected. `miniature` writes some on the test split of the
    built-in world."""
    examples: int = Field(300, ge=2)
    """Number of preferences to use, from the beginning."""
    prompts: Name | None = None
    """The prompt set for the expected reward and for planes. The default is the one that chooses
    the pair's alpha."""
    limit: int = Field(200, ge=2)
    """Number of prompts to use, from the beginning."""
    samples: int = Field(4, ge=2)
    """Responses per prompt, drawn at temperature 1, that estimate the expected reward."""
    max_tokens: int = Field(64, ge=1)
    """Maximum number of tokens of such a response."""
    step: float = Field(0.01, gt=0, le=1)
    """Step of the margin's finite difference, as a share of the pair's largest alpha."""
    reward_step: float = Field(0.1, gt=0, le=1)
    """The same for the expected reward, which has sampling noise."""
    tolerance: float = Field(0.1, gt=0)
    """The first-order prediction holds if its error is at most this share of the predicted
    change."""
    planes: dict[Name, PlaneConfig] = {}
    """Planes by name."""
