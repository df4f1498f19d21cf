"""Check whether an extrapolated folder still matches its recipe."""

from pathlib import Path

from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.files.hashing import sha256
from expoflow.files.records import read_json
from expoflow.paths import RECIPE


def describe_recipe(recipe: ExtrapolationRecipe) -> list[tuple[str, str]]:
    """Return (label, text) lines about how an extrapolated checkpoint was made."""
    effective = "" if recipe.effective_alpha is None else f", effective {recipe.effective_alpha:.4g}"
    return [
        ("extrapolated", f"alpha {recipe.alpha:g}{effective}, weights {recipe.weights}"),
        *(("alpha for", f"{regex} = {value:g}") for regex, value in recipe.alpha_for),
        *((role, parent.label()) for role, parent in (("sft", recipe.sft), ("aligned", recipe.aligned))),
        ("digest", recipe.content_digest()),
        *(("note", text) for text in recipe.notes),
        *(("warning", text) for text in recipe.warnings),
    ]


def verify(folder: Path) -> list[str]:
    """Return the files of a folder with a recipe.json that are missing or have another sha256."""
    recipe = read_json(folder / RECIPE, ExtrapolationRecipe)
    problems = []
    for name, expected in {**recipe.files, **(recipe.outputs or {})}.items():
        if not (folder / name).is_file():
            problems.append(f"{folder / name}: is missing; extrapolate again")
        elif (found := sha256(folder / name)) != expected:
            problems.append(f"{folder / name}: has sha256 {found} instead of {expected}; extrapolate again")
    return problems
