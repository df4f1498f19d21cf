"""Arguments that several commands share, and the functions that parse them."""

import argparse
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from expoflow.errors import ConfigError

if TYPE_CHECKING:
    from expoflow.project.folder import Project

MODEL = "a folder, or ORG/NAME[@REVISION] of the Hugging Face hub"
SFT = f"theta0, the SFT model: {MODEL}; default: the base model, if --aligned is an adapter"
ALIGNED = "theta1, the model aligned from the SFT model, or a LoRA adapter"


def pair_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sft",
        type=Path,
        metavar="DIR",
        help="theta0: folder of the SFT model; default: the base model, if --aligned is an adapter",
    )
    parser.add_argument(
        "--aligned",
        type=Path,
        required=True,
        metavar="DIR",
        help="theta1: folder of the aligned model, or of a LoRA adapter",
    )
    vocabulary_argument(parser)


def unrelated_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--unrelated",
        action="store_true",
        help="extrapolate even if the second model was not trained from the first",
    )


def vocabulary_argument(parser: argparse.ArgumentParser) -> None:
    option_argument(
        parser, "vocabulary", "if vocabularies differ in size: stop, or extrapolate the rows that both have"
    )


def option_argument(parser: argparse.ArgumentParser, name: str, text: str) -> None:
    """Add an option of the extrapolation, with its choices and default; `text` is the help."""
    from expoflow.extrapolation.options import Options

    field = Options.__dataclass_fields__[name]
    parser.add_argument(f"--{name}", choices=get_args(field.type), default=field.default, help=text)


def sft_of(arguments: argparse.Namespace) -> Path:
    """Return the SFT model's folder: the given one, or else the aligned adapter's base."""
    from expoflow.checkpoints.adapter import base_folder

    return arguments.sft or base_folder(arguments.aligned)


def alpha_text(text: str) -> str:
    from expoflow.config.base import spell

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number such as 0.3")
    return spell(value)


def alpha_for(text: str) -> tuple[str, float]:
    regex, _, value = text.rpartition("=")
    try:
        re.compile(regex)
        number = float(value) if regex else math.nan
    except (ValueError, re.error):
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not REGEX=ALPHA, for example 'mlp=0.5'")
    return regex, number


def folder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder",
        type=Path,
        nargs="?",
        default=Path(),
        metavar="DIR",
        help="folder for config.yaml; default: the current folder",
    )


def project_arguments(parser: argparse.ArgumentParser, folder: str = "default: the current folder") -> None:
    """Add the arguments that name a command's project; `folder` ends the help of DIR."""
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help=f"folder with config.yaml and results/; {folder}"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="the same as DIR")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the config, if it is not DIR/config.yaml; its relative paths start at its folder, which is also the default of DIR",
    )
    parser.add_argument("--configfile", dest="config", type=Path, help=argparse.SUPPRESS)  # its old name


def folder_of(arguments: argparse.Namespace) -> Path | None:
    """Return the folder given by DIR or --out, or else that of --config, or else None."""
    if arguments.folder and arguments.out and arguments.folder.resolve() != arguments.out.resolve():
        raise ConfigError([f"DIR is {arguments.folder}, --out is {arguments.out}; give one of them"])
    return arguments.folder or arguments.out or (arguments.config.parent if arguments.config else None)


def project_of(arguments: argparse.Namespace) -> "Project":
    """Return the project that the arguments name. Raises ConfigError."""
    from expoflow.project.folder import Project

    return Project.find(folder_of(arguments), arguments.config)


def repository(text: str) -> str:
    from expoflow.config.base import NAME

    if not re.fullmatch(f"{NAME}/{NAME}", text) or re.search(r"--|\.\.|\.git$|[.-]$", text) or len(text) > 96:
        raise argparse.ArgumentTypeError(f"{text!r} is not ORG/NAME as the hub allows it")
    return text
