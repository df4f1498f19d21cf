"""Where the files beside the library lie: Snakefile, configs, launcher settings."""

from pathlib import Path
from typing import Any

import expoflow


def workflow_folder() -> Path:
    """The folder of the Snakefile: the checkout of an editable installation, else what the wheel brought."""
    package = Path(expoflow.__file__).parent
    checkout = package.parents[2]
    editable = (
        package == checkout / "workflow" / "scripts" / "expoflow" and (checkout / "Snakefile").is_file()
    )
    return checkout if editable else package / "_workflow"


def accelerate_config(recipe: Any) -> Path:
    """The settings of `accelerate launch` for a recipe: one of config/accelerate by its name, or the user's."""
    name = getattr(recipe, "accelerate", "single")
    shipped = workflow_folder() / "config" / "accelerate" / f"{name}.yaml"
    return shipped if shipped.is_file() else Path(name)
