"""Where a run's tables and figures are sent after it has succeeded."""

from pydantic import Field

from expoflow.config.base import Strict


class TrackingConfig(Strict):
    """A copy of a finished run's tables and figures for MLflow. No result depends on it, and it
    makes no run fail."""

    mlflow: str = Field(min_length=1)
    """A folder, or MLflow's address: http://HOST:PORT or sqlite:///FILE."""
    experiment: str = Field("expoflow", min_length=1)
    """The MLflow experiment. Every successful run of this workflow becomes a run in it."""
