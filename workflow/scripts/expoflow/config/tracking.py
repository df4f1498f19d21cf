"""Where a run's tables and figures are sent when it has ended well."""

from pydantic import Field

from expoflow.config.base import Strict


class TrackingConfig(Strict):
    """A copy of a finished run's tables and figures for MLflow. No result depends on it, and no run fails by it."""

    mlflow: str = Field(min_length=1)
    """A folder, or MLflow's address: http://HOST:PORT, sqlite:///FILE."""
    experiment: str = Field("expoflow", min_length=1)
    """The experiment there, in which every run of this workflow that ends well is a run."""
