"""The parents and options of an extrapolated checkpoint that is never written, as plain data."""

from pathlib import Path

from pydantic import FiniteFloat

from expoflow.extrapolation.options import Options
from expoflow.files.records import Record


class Streamed(Record):
    """The checkpoint theta1 + alpha * (theta1 - theta0) that `tensors_of` streams."""

    sft: Path
    aligned: Path
    alpha: FiniteFloat
    options: Options = Options()

    def same_pair(self, other: "Streamed | None") -> bool:
        """Whether `other` differs only in its alpha."""
        return other is not None and other.model_copy(update={"alpha": self.alpha}) == self
