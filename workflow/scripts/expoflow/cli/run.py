"""`expoflow run`, `init` and `resume`: the workflow."""

import argparse
import sys
from pathlib import Path

from expoflow.cli.arguments import ALIGNED, SFT, folder_arguments
from expoflow.errors import ConfigError

PAPER_ALPHAS = "0.1,0.2,0.3,0.4,0.5"
PAPER_PROMPTS = "HuggingFaceH4/ultrafeedback_binarized:test_gen"
PAIR_OPTIONS = ("sft", "aligned", "reward_model", "prompts", "alphas", "test_prompts")


def run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "expoflow run [--sft MODEL] --aligned MODEL [options] [-- SNAKEMAKE ...]\n"
        "       expoflow run --config FILE [--out DIR] [-- SNAKEMAKE ...]"
    )
    parser.add_argument("--sft", metavar="MODEL", help=SFT)
    parser.add_argument("--aligned", metavar="MODEL", help=ALIGNED)
    parser.add_argument(
        "--reward-model",
        metavar="MODEL",
        help="what chooses alpha: a sequence classifier with one logit (the paper's: weqweasdas/RM-Mistral-7B); "
        "default: none, alpha is chosen by how likely the aligned model finds the responses (select: {by: nll})",
    )
    parser.add_argument("--alphas", metavar="A,...", help=f"extrapolation lengths; default: {PAPER_ALPHAS}")
    parser.add_argument(
        "--prompts",
        metavar="PROMPTS",
        help='they choose alpha: a file of JSON lines such as {"prompt": "..."}, CSV or Parquet, or '
        f"ORG/NAME[@REVISION]:SPLIT of the hub; default: the paper's, {PAPER_PROMPTS}",
    )
    parser.add_argument(
        "--test-prompts",
        metavar="PROMPTS",
        help="on them the reward model judges the choice; default: no benchmark",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="run this config; --out: its folder")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="folder of config.yaml and results/; default: ./ALIGNED-expo"
    )
    parser.add_argument(
        "snakemake", nargs="*", metavar="SNAKEMAKE", help="arguments for snakemake, behind --"
    )


def run(arguments: argparse.Namespace) -> int:
    from expoflow.checks import plain_yaml
    from expoflow.checks.pairs import base_of
    from expoflow.project.create import Request, as_text, prepare, source
    from expoflow.project.folder import run_workflow

    given = {name: getattr(arguments, name) for name in PAIR_OPTIONS if getattr(arguments, name)}
    if arguments.config:
        if given:
            raise ConfigError(["--config says what to run; leave out the options of the pair, or --config"])
        if not arguments.config.is_file():
            raise ConfigError([f"--config: no file '{arguments.config}'; `expoflow init` writes a starter"])
        plain_yaml.check_files([arguments.config])
        run_workflow(arguments.config, arguments.out or arguments.config.parent, arguments.snakemake)
    if "aligned" not in given:
        raise ConfigError(
            ["--aligned is missing: give the model after DPO or RLHF, or all with --config FILE"]
        )
    if "sft" not in given:
        given["sft"] = as_text(base_of(source(given["aligned"])))
    if "test_prompts" in given and "reward_model" not in given:
        raise ConfigError(["--test-prompts needs a judge of their responses: give --reward-model too"])
    default = {"reward_model": None, "prompts": PAPER_PROMPTS, "alphas": PAPER_ALPHAS}
    request = Request(**{**default, **given})
    folder = arguments.out or Path(f"{request.name}-expo")
    run_workflow(prepare(request, folder), folder, arguments.snakemake)


def init(arguments: argparse.Namespace) -> int:
    from expoflow.project.create import start

    written = start(arguments.folder)
    print("\n".join(f"wrote {path}" for path in written))
    print(f"correct the paths in {written[0]}, then: expoflow run --config {written[0]}")
    return 0


def resume_arguments(parser: argparse.ArgumentParser) -> None:
    folder_arguments(parser)
    parser.add_argument("--dead", action="store_true", help="the run's process on another machine has ended")


def resume(arguments: argparse.Namespace) -> int:
    from expoflow.project.resume import resume

    resume(
        arguments.folder,
        arguments.dead,
        lambda line: print(f"expoflow: {line}", file=sys.stderr, flush=True),
    )
