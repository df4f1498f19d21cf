"""The section claims: which pairs answer which claim of the paper."""

from pydantic import Field

from expoflow.config.base import Name, Strict

# By claim: the one training setting of the aligned model in which the claim's pairs differ.
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
    """Pairs in which the second model was not aligned from the first (section 4.4)."""

    different_bases: list[Name] = []
    """Two SFT models of different base models."""
    base_and_sft: list[Name] = []
    """A base model and the SFT model trained from it."""
    separate: list[Name] = []
    """Two SFT or two RLHF models, trained separately from one base."""

    def pairs(self) -> list[str]:
        """All of these pairs."""
        return [*self.different_bases, *self.base_and_sft, *self.separate]


class ClaimsConfig(Strict):
    """Which pairs answer which claim of the paper. results/claims.csv has the answers.

    A claim without pairs is left out. Pairs with `trained_on_dev` and the section `theory` answer
    further claims.
    """

    fractions: list[Name] = []
    """DPO on different shares of the data (4.2); the largest share is the fully trained model."""
    learning_rates: list[Name] = []
    """DPO at different learning rates (4.3); the smallest one is the default."""
    epochs: list[Name] = []
    """DPO for different numbers of epochs (4.3); the smallest one is the default."""
    in_time: list[Name] = []
    """One training, stopped at different times; the latest checkpoint is its end."""
    length_bias: list[Name] = Field([], max_length=2)
    """Two trainings: in one of them the annotator prefers length less than in the other, or not at
    all."""
    betas: list[Name] = []
    """DPO with different beta (2.2)."""
    label_noise: list[Name] = []
    """DPO with different shares of the labels flipped (2.2)."""
    labelled: list[Name] = []
    """Models trained on labels of a reward model that does not choose alpha (3.1). That reward
    model scores their responses too."""
    capability: list[Name] = []
    """Pairs for which benchmark tasks are compared before and after extrapolation (3.2, Appendix
    D)."""
    combinations: CombinationsClaims = CombinationsClaims()

    def named(self) -> dict[str, list[str]]:
        """The pairs by the key that names them."""
        keys = {key: getattr(self, key) for key in type(self).model_fields if key != "combinations"}
        below = {f"combinations.{key}": value for key, value in self.combinations.model_dump().items()}
        return {key: pairs for key, pairs in (keys | below).items() if pairs}
