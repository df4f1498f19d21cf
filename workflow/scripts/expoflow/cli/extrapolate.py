"""`expoflow extrapolate`, `preflight` and `inspect`: checkpoints without the workflow."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from expoflow.cli.arguments import (
    ALIGNED,
    SFT,
    alpha_for,
    alpha_text,
    option_argument,
    pair_arguments,
    sft_of,
    unrelated_argument,
    vocabulary_argument,
)
from expoflow.errors import CheckpointError
from expoflow.paths import RECIPE, alpha_folder

if TYPE_CHECKING:
    from expoflow.extrapolation.options import Options
    from expoflow.extrapolation.preflight import Pair


def extrapolate_arguments(parser: argparse.ArgumentParser) -> None:
    pair_arguments(parser)
    parser.add_argument(
        "--alpha",
        type=alpha_text,
        action="append",
        required=True,
        help="extrapolation length; if given several times, one pass writes DIR/alpha=A for each",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to create")
    parser.add_argument(
        "--as",
        dest="form",
        choices=("model", "adapter"),
        default="model",
        help="if --aligned is a LoRA adapter: write a whole model, or an adapter for the same base",
    )
    option_argument(parser, "dtype", "data type of the result")
    option_argument(
        parser,
        "compute",
        "data type of the arithmetic; bfloat16 rounds as the authors' published checkpoints do, bit for bit",
    )
    parser.add_argument(
        "--alpha-for",
        type=alpha_for,
        action="append",
        default=[],
        metavar="REGEX=A",
        help="another alpha for tensors with a matching name; the last match wins",
    )
    option_argument(parser, "overflow", "what to do with elements that do not fit the data type")
    unrelated_argument(parser)
    parser.add_argument(
        "--threads", type=int, metavar="N", help="number of threads; default: one per core, at most 8"
    )
    parser.add_argument(
        "--hash-outputs", action="store_true", help="record the sha256s of the new weights in recipe.json"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")


def extrapolate(arguments: argparse.Namespace) -> int:
    from expoflow.extrapolation.extrapolate import extrapolate
    from expoflow.extrapolation.model_card import model_card
    from expoflow.extrapolation.options import Options

    options = Options.of(vars(arguments), alpha_for=tuple(arguments.alpha_for))
    alphas = dict.fromkeys(arguments.alpha)
    folders = {
        alpha: arguments.out if len(alphas) == 1 else arguments.out / alpha_folder(alpha) for alpha in alphas
    }
    if arguments.dry_run:
        return _dry_run(arguments, options, folders)
    with _Bar() as bar:
        recipes = extrapolate(
            sft_of(arguments),
            arguments.aligned,
            folders,
            options,
            as_adapter=arguments.form == "adapter",
            look=_look(arguments),
            card=model_card,
            progress=bar.progress,
        )
    for alpha, recipe in recipes.items():
        effective = (
            "none, the models are equal"
            if recipe.effective_alpha is None
            else f"{recipe.effective_alpha:.4g}"
        )
        print(f"{folders[alpha]}: alpha {alpha} (effective {effective})")
    said = [("note", text) for recipe in recipes.values() for text in recipe.notes]
    said += [("warning", text) for recipe in recipes.values() for text in recipe.warnings]
    for level, text in dict.fromkeys(said):
        print(f"{level}: {text}", file=sys.stderr)
    return 0


def _look(arguments: argparse.Namespace) -> Callable[["Pair"], "Pair"]:
    from expoflow.extrapolation.likeness import looked_at
    from expoflow.extrapolation.pair import with_equality

    return lambda pair: with_equality(*looked_at(pair, arguments.unrelated))


def _dry_run(arguments: argparse.Namespace, options: "Options", folders: dict[str, Path]) -> int:
    from expoflow.extrapolation.extrapolate import planned

    lines = planned(
        sft_of(arguments),
        arguments.aligned,
        folders,
        options,
        arguments.form == "adapter",
        _look(arguments),
    )
    print("\n".join(lines))
    return 0


class _Bar:
    """A progress bar in bytes. It appears with the first byte, and only at a terminal."""

    def __init__(self):
        self.bar = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def progress(self, done: int, total: int) -> None:
        """Show that `done` of `total` bytes are written."""
        from tqdm import tqdm

        if self.bar is None:
            self.bar = tqdm(total=total, unit="B", unit_scale=True, disable=None)
        self.bar.update(done - self.bar.n)


def preflight_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sft", metavar="MODEL", help=SFT)
    parser.add_argument("--aligned", required=True, metavar="MODEL", help=ALIGNED)
    vocabulary_argument(parser)
    unrelated_argument(parser)


def preflight(arguments: argparse.Namespace) -> int:
    from expoflow.checks.pairs import base_of, preflight_sources
    from expoflow.extrapolation.likeness import looked_at
    from expoflow.project.create import source

    aligned = source(arguments.aligned)
    sft = source(arguments.sft) if arguments.sft else base_of(aligned)
    pair = preflight_sources(sft, aligned, arguments.vocabulary)
    if pair is None:
        raise CheckpointError(
            "a model has no safetensors on the hub, and pickles have no header; download it and give its folder"
        )
    if "hub" not in sft and "hub" not in aligned and not pair.errors:
        pair = looked_at(pair, arguments.unrelated)[0]
    for finding in pair.findings:
        print(f"{finding.level:8} {finding.check:11} {finding.message}")
    extrapolated = {part.name for part in pair.parts if part.shared}
    tensors = {part.name for part in pair.parts}
    print(f"{len(pair.errors)} errors; {len(extrapolated)} of {len(tensors)} tensors to extrapolate")
    return 1 if pair.errors else 0


def inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a checkpoint, extrapolated or not")


def inspect(arguments: argparse.Namespace) -> int:
    from expoflow.checkpoints.inspection import describe
    from expoflow.extrapolation.recipe import ExtrapolationRecipe
    from expoflow.extrapolation.verify import describe_recipe, verify
    from expoflow.files.records import read_json

    folder, problems, lines = arguments.folder, [], []
    recipe = read_json(folder / RECIPE, ExtrapolationRecipe) if (folder / RECIPE).is_file() else None
    if recipe is None or recipe.weights == "stored":
        lines += describe(folder)
    if recipe:
        problems = verify(folder)
        lines += describe_recipe(recipe)
        count = len(recipe.files) + len(recipe.outputs or {})
        unsaid = (
            "" if recipe.outputs or recipe.weights != "stored" else "; no sha256 of the weights is recorded"
        )
        lines.append(("sha256", f"{count - len(problems)} of {count} files as recorded{unsaid}"))
    for label, text in lines:
        print(f"{label:13} {text}")
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0
