"""Where the files beside the library lie: Snakefile, configs, launcher settings."""

from pathlib import Path
from typing import Any

import expoflow
from expoflow.errors import ExpoflowError


def workflow_folder() -> Path:
    """The folder of the Snakefile: the checkout of an editable installation, else what the wheel brought."""
    package = Path(expoflow.__file__).parent
    checkout = package.parents[2]
    editable = (
        package == checkout / "workflow" / "scripts" / "expoflow" and (checkout / "Snakefile").is_file()
    )
    return checkout if editable else package / "_workflow"


def require_own(origin: str | None, workflow: Path) -> None:
    """Raise ExpoflowError if jobs would import another expoflow, at `origin`, than that of `workflow`, which is imported."""
    if origin and not Path(origin).samefile(expoflow.__file__):
        raise ExpoflowError(
            f"jobs of this workflow would run the expoflow of {origin}, not its own; run: pip install -e {workflow}"
        )


def accelerate_config(recipe: Any) -> Path:
    """The settings of `accelerate launch` for a recipe: one of config/accelerate by its name, or the user's."""
    name = getattr(recipe, "accelerate", "single")
    shipped = workflow_folder() / "config" / "accelerate" / f"{name}.yaml"
    return shipped if shipped.is_file() else Path(name)
