"""`expoflow run`, `init` and `resume`: the workflow."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expoflow.cli.arguments import ALIGNED, SFT, folder_of, project_arguments, project_of
from expoflow.errors import ConfigError

if TYPE_CHECKING:
    from expoflow.project.folder import Project

PAPER_PROMPTS = "HuggingFaceH4/ultrafeedback_binarized:test_gen"
# The options that define a pair, and those that set keys of `generate` beside them.
PAIR = ("sft", "aligned", "reward_model", "prompts", "alphas", "test_prompts", "field")
GENERATE = ("engine", "max_tokens", "samples", "temperature")


def run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = (
        "expoflow run [--sft MODEL] --aligned MODEL [options] [DIR] [-- SNAKEMAKE ...]\n"
        "       expoflow run [DIR] [--config FILE] [--limit N] [--dry-run] [-- SNAKEMAKE ...]"
    )
    request_arguments(parser)
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="count the jobs that would run, and estimate their cost; nothing is written; `-- -n` names each job",
    )
    parser.epilog = "Arguments after -- go to snakemake."


def request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments for a config, or for a pair that a config is made from."""
    from expoflow.project.create import PAPER_ALPHAS

    project_arguments(parser, "default: the current folder; for a pair ./ALIGNED-expo")
    parser.add_argument("--sft", metavar="MODEL", help=SFT)
    parser.add_argument("--aligned", metavar="MODEL", help=ALIGNED)
    parser.add_argument(
        "--reward-model",
        metavar="MODEL",
        help="the model that chooses alpha: a sequence classifier with one logit (the paper's: weqweasdas/RM-Mistral-7B); "
        "without one, the aligned model's likelihood of the responses chooses it (select: {by: nll}); default: none",
    )
    parser.add_argument(
        "--alphas",
        metavar="A,...",
        help=f"extrapolation lengths; in the folder of an earlier run, they replace that run's alphas; default: {PAPER_ALPHAS}",
    )
    parser.add_argument(
        "--prompts",
        metavar="PROMPTS",
        help='prompts that choose alpha: a file of JSON lines such as {"prompt": "..."}, CSV or Parquet, or '
        f"ORG/NAME[@REVISION]:SPLIT of the hub; default: the paper's, {PAPER_PROMPTS}",
    )
    parser.add_argument(
        "--test-prompts",
        metavar="PROMPTS",
        help="prompts on which the reward model tests the choice; default: no test",
    )
    parser.add_argument(
        "--field", metavar="NAME", help="the field or column that holds the prompt; default: prompt"
    )
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="maximum number of tokens per response; default: 2048"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="sampling temperature; 0 is greedy decoding; default: 0.7",
    )
    parser.add_argument("--samples", type=int, metavar="N", help="responses per prompt; default: 1")
    parser.add_argument(
        "--engine",
        choices=("auto", "vllm", "transformers"),
        help="the engine that generates; default: auto (vllm if it is installed and a GPU exists)",
    )
    parser.add_argument(
        "--limit",
        type=int,
        metavar="N",
        help="rehearse everything on the first N prompts of every set, in DIR/rehearsal; its numbers are not results",
    )


def requested(arguments: argparse.Namespace) -> tuple["Project", list[str]]:
    """Return the project to run, and lines about it. Nothing is written. Raises ConfigError."""
    from expoflow.checks import plain_yaml
    from expoflow.project import create

    given = {name: getattr(arguments, name) for name in PAIR if getattr(arguments, name)}
    generate = {name: getattr(arguments, name) for name in GENERATE if getattr(arguments, name) is not None}
    if arguments.limit is not None and arguments.limit < 2:
        raise ConfigError([f"--limit: {arguments.limit} is too few; give 2 or more"])
    if "aligned" in given and not arguments.config:
        project, said = _pair(given, generate, folder_of(arguments))
    elif generate or given.keys() - {"alphas"}:
        raise ConfigError(
            ["--config says what to run; leave out the options of the pair, or --config"]
            if arguments.config
            else [
                "--aligned is missing: give the model after DPO or RLHF, or a whole config with --config FILE"
            ]
        )
    else:
        project, said = project_of(arguments), []
        plain_yaml.check_files([project.config])
        if "alphas" in given:
            project, said = create.with_alphas(project, given["alphas"])
        if project.elsewhere and not arguments.limit:
            project = create.copied(project, project.folder)
    if arguments.limit:
        project = create.rehearsal(project, arguments.limit)
        said.append(
            f"a rehearsal on the first {arguments.limit} prompts of every set, in {project.folder}: its numbers are not results"
        )
    return project, said


def _pair(
    given: dict[str, str], generate: dict[str, Any], folder: Path | None
) -> tuple["Project", list[str]]:
    from expoflow.checks.pairs import base_of
    from expoflow.project.create import Request, as_text, prepare, source

    if "sft" not in given:
        given["sft"] = as_text(base_of(source(given["aligned"])))
    if "test_prompts" in given and "reward_model" not in given:
        raise ConfigError(["--test-prompts needs a judge of their responses: give --reward-model too"])
    default = {"reward_model": None, "prompts": PAPER_PROMPTS, "alphas": None}
    request = Request(**{**default, **given}, generate=generate)
    return prepare(request, folder or Path(f"{request.name}-expo"))


def run(arguments: argparse.Namespace) -> int:
    project, said = requested(arguments)
    for line in said:
        print(f"expoflow: {line}", file=sys.stderr, flush=True)
    return project.run(arguments.snakemake, dry=arguments.dry_run)


def init(arguments: argparse.Namespace) -> int:
    from expoflow.project.create import start

    written = start(arguments.folder)
    print("\n".join(f"wrote {path}" for path in written))
    print(f"correct the paths in {written[0]}, then run: expoflow run --config {written[0]}")
    return 0


def resume_arguments(parser: argparse.ArgumentParser) -> None:
    project_arguments(parser)
    parser.add_argument(
        "--dead", action="store_true", help="assume that the run's process on another machine has ended"
    )


def resume(arguments: argparse.Namespace) -> int:
    from expoflow.project.resume import resume

    resume(
        folder_of(arguments) or Path(),
        arguments.dead,
        lambda line: print(f"expoflow: {line}", file=sys.stderr, flush=True),
    )
