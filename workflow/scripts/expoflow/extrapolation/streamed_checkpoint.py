"""What an extrapolated checkpoint that is never written is made of: plain data."""

from pathlib import Path

from pydantic import FiniteFloat

from expoflow.extrapolation.options import Options
from expoflow.files.records import Record


class Streamed(Record):
    """What `tensors` makes: theta1 + alpha * (theta1 - theta0), of two folders; plain data."""

    sft: Path
    aligned: Path
    alpha: FiniteFloat
    options: Options = Options()

    def same_pair(self, other: "Streamed | None") -> bool:
        """Whether `other` differs by its alpha alone."""
        return other is not None and other.model_copy(update={"alpha": self.alpha}) == self
