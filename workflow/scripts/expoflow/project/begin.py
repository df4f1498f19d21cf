"""What happens in the main Snakemake process before the first job of a run."""

from collections.abc import Sequence
from pathlib import Path

from expoflow import store
from expoflow.checks.machine import check_keys
from expoflow.config import Config
from expoflow.errors import ConfigError, ExpoflowError
from expoflow.hosts.head import announce
from expoflow.project import resume


def begin(
    config: Config,
    command: Sequence[str],
    folder: Path,
    *,
    cores: int | None,
    cluster: bool = False,
    touch: bool = False,
) -> None:
    """Make sure that a run can begin in `folder`, and announce this process to its jobs.

    The keys of judges must be there, models of the hub must fit together by their headers, and nothing of a killed run
    may still be at work here; a run that only touches files needs none of this. `command` are Snakemake's arguments,
    by which the run can be resumed. The jobs of a local run on `cores` cores share engines (`hosts`); those of a
    `cluster`, and with None, have their own. Raises ExpoflowError.
    """
    store.use()
    if not touch:
        check_keys(config)
        _require_fitting_pairs(config)
        resume.begin(command, folder, cluster=cluster)
    announce(cores, width=max(model.resources.gpus or 1 for model in config.models.values()))


def _require_fitting_pairs(config: Config) -> None:
    """Models of the hub must fit together, by their headers."""
    if any(model.hub for model in config.models.values()):
        from expoflow.checks.pairs import check_pairs

        try:
            check_pairs(config)
        except ConfigError as error:
            raise ExpoflowError(f"nothing was downloaded:\n{error}") from None
