"""README.md of an extrapolated checkpoint: what it is, its parents, and the effect on weights."""

from pathlib import Path

from expoflow.checkpoints.checkpoint import ADAPTER
from expoflow.extrapolation.recipe import Effect, ExtrapolationRecipe, Input
from expoflow.files.markdown import code, prose


def model_card(recipe: ExtrapolationRecipe, certificate: Path | None = None) -> str:
    """Return the card's text: Markdown with the metadata block that model hubs read.

    `certificate` is the file in which the run that made the model evaluates the choice of alpha.
    """
    parents = [_parent(each) for each in (recipe.aligned, recipe.sft)]
    adapter = (
        "" if ADAPTER not in recipe.files else "This is an adapter: load it with peft on the SFT model.\n"
    )
    kinds = "\n".join(_row(label, effect) for label, effect in recipe.kinds.items())
    rules = [f"{code(regex)}: {value:g}" for regex, value in recipe.alpha_for]
    judged = (
        ""
        if certificate is None
        else f"""
{code(certificate.as_posix())} of the run that made this model reports what the choice of alpha is worth on prompts that
took no part in it, if there were any. `expoflow publish` writes this into the card of the published model.
"""
    )
    warnings = "".join(f"\n> {prose(warning)}\n" for warning in recipe.warnings)
    return f"""---
tags:
- expo
- model-extrapolation
---
# Extrapolated model, alpha = {recipe.alpha:g}

theta2 = theta1 + alpha * (theta1 - theta0), model extrapolation (ExPO),
made by expoflow {recipe.provenance["expoflow"]}.

| | |
| --- | --- |
| aligned (theta1) | {parents[0]} |
| SFT (theta0) | {parents[1]} |
| alpha | {recipe.alpha:g}{f" ({', '.join(rules)})" if rules else ""} |
| arithmetic | {recipe.compute} |
| stored as | {"the aligned model" if recipe.dtype == "keep" else recipe.dtype} |
| effective alpha | {_number(recipe.effective_alpha)} |

Tokenizer, chat template and configuration are the aligned model's.
{adapter}{judged}{warnings}
| weights | parameters | moved | effective alpha | delta / theta1 | alpha delta / theta1 |
| --- | ---: | ---: | ---: | ---: | ---: |
{kinds}
{_row("all", Effect(**{name: getattr(recipe, name) for name in Effect.model_fields}))}

`recipe.json` has the sha256 of every file this model was made from; `expoflow inspect` checks the files here.
"""


def _parent(parent: Input) -> str:
    text = code(parent.source) + (f" at `{parent.revision}`" if parent.revision else "")
    return text + (" (LoRA adapter on the SFT model)" if parent.adapter else "")


def _row(label: str, effect: Effect) -> str:
    moved = "" if effect.moved_share is None else f"{effect.moved_share:.2%}"
    ratios = (effect.effective_alpha, effect.delta_norm_ratio, effect.alpha_delta_norm_ratio)
    return f"| {label} | {effect.elements:,} | {moved} | {' | '.join(map(_number, ratios))} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
