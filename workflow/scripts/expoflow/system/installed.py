"""The files installed beside the library: Snakefile, configs, launcher settings."""

from pathlib import Path
from typing import Any

import expoflow
from expoflow.errors import ExpoflowError


def workflow_folder() -> Path:
    """Return the Snakefile's folder: an editable installation's checkout, or the wheel's copy."""
    package = Path(expoflow.__file__).parent
    checkout = package.parents[2]
    editable = (
        package == checkout / "workflow" / "scripts" / "expoflow" and (checkout / "Snakefile").is_file()
    )
    return checkout if editable else package / "_workflow"


def require_own(origin: str | None, workflow: Path) -> None:
    """Raise ExpoflowError if jobs would import an expoflow at `origin` that is not `workflow`'s."""
    if origin and not Path(origin).samefile(expoflow.__file__):
        raise ExpoflowError(
            f"jobs of this workflow would run the expoflow at {origin}, not its own; run: pip install -e {workflow}"
        )


def accelerate_config(recipe: Any) -> Path:
    """Return a recipe's settings of `accelerate launch`: from config/accelerate, or the user's."""
    name = getattr(recipe, "accelerate", "single")
    shipped = workflow_folder() / "config" / "accelerate" / f"{name}.yaml"
    return shipped if shipped.is_file() else Path(name)
