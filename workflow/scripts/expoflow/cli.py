"""The command `expoflow`: a table of small functions, each `(arguments) -> exit status`."""

import argparse
import math
import os
import re
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from expoflow import __version__, collector
from expoflow.errors import CheckpointError, ConfigError, ExpoflowError

if TYPE_CHECKING:
    from expoflow.options import Options

RESULTS = ("models", "pairs")
PAPER_ALPHAS = "0.1,0.2,0.3,0.4,0.5"
PAPER_PROMPTS = "HuggingFaceH4/ultrafeedback_binarized:test_gen"
PAIR_OPTIONS = ("sft", "aligned", "reward_model", "prompts", "alphas", "test_prompts")
Command = tuple[str, Callable[[argparse.ArgumentParser], None], Callable[[argparse.Namespace], int]]


MODEL = "a folder, or ORG/NAME[@REVISION] of the Hugging Face hub"
SFT = f"theta0, the SFT model: {MODEL}; default: the base of the adapter that is aligned"
ALIGNED = "theta1, the model aligned from it, or a LoRA adapter"


def _pair_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--sft", type=Path, metavar="DIR", help="theta0: the SFT model's folder; default: the adapter's base"
    )
    parser.add_argument(
        "--aligned",
        type=Path,
        required=True,
        metavar="DIR",
        help="theta1: the aligned model's, or an adapter's",
    )
    _vocabulary_argument(parser)


def _vocabulary_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--vocabulary",
        choices=("error", "shared_rows"),
        default="error",
        help="where vocabularies differ in size: stop, or extrapolate the rows both have",
    )


def _extrapolate_arguments(parser: argparse.ArgumentParser) -> None:
    _pair_arguments(parser)
    parser.add_argument(
        "--alpha",
        type=_alpha,
        action="append",
        required=True,
        help="extrapolation length; may be given several times: one pass, DIR/alpha=A for each",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument(
        "--as",
        dest="form",
        choices=("model", "adapter"),
        default="model",
        help="where aligned is a LoRA adapter: write a whole model, or the adapter that makes it of the base",
    )
    parser.add_argument(
        "--dtype",
        choices=("keep", "float32", "bfloat16", "float16"),
        default="keep",
        help="type of the result",
    )
    parser.add_argument(
        "--compute",
        choices=("float32", "bfloat16"),
        default="float32",
        help="bfloat16 repeats the roundings of the authors' published checkpoints, bit for bit",
    )
    parser.add_argument(
        "--alpha-for",
        type=_alpha_for,
        action="append",
        default=[],
        metavar="REGEX=A",
        help="another alpha for the tensors whose name matches; the last match wins",
    )
    parser.add_argument(
        "--overflow", choices=("error", "clamp"), default="error", help="elements that do not fit the type"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="default: one for each core, 8 at most")
    parser.add_argument(
        "--hash-outputs", action="store_true", help="sha256s of the new weights into recipe.json"
    )
    parser.add_argument("--dry-run", action="store_true", help="check everything, write nothing")


def _sft(arguments: argparse.Namespace) -> Path:
    """The SFT model's folder: as given, else the base of the adapter that is the aligned model."""
    from expoflow.adapter import base_folder

    return arguments.sft or base_folder(arguments.aligned)


def _alpha(text: str) -> str:
    from expoflow.config import spell

    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number such as 0.3")
    return spell(value)


def _alpha_for(text: str) -> tuple[str, float]:
    regex, _, value = text.rpartition("=")
    try:
        re.compile(regex)
        number = float(value) if regex else math.nan
    except (ValueError, re.error):
        number = math.nan
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text!r} is not REGEX=ALPHA, for example 'mlp=0.5'")
    return regex, number


def _extrapolate(arguments: argparse.Namespace) -> int:
    from expoflow.extrapolate import extrapolate
    from expoflow.model_card import model_card
    from expoflow.options import Options

    options = Options(
        compute=arguments.compute,
        dtype=arguments.dtype,
        vocabulary=arguments.vocabulary,
        overflow=arguments.overflow,
        alpha_for=tuple(arguments.alpha_for),
        threads=arguments.threads,
        hash_outputs=arguments.hash_outputs,
    )
    alphas = dict.fromkeys(arguments.alpha)
    folders = {
        alpha: arguments.out if len(alphas) == 1 else arguments.out / f"alpha={alpha}" for alpha in alphas
    }
    if arguments.dry_run:
        return _dry_run(arguments, options, folders)
    with _Bar() as bar:
        recipes = extrapolate(
            _sft(arguments),
            arguments.aligned,
            folders,
            options,
            as_adapter=arguments.form == "adapter",
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
    for warning in dict.fromkeys(text for recipe in recipes.values() for text in recipe.warnings):
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _dry_run(arguments: argparse.Namespace, options: "Options", folders: dict[str, Path]) -> int:
    from expoflow.extrapolate import planned

    lines = planned(_sft(arguments), arguments.aligned, folders, options, arguments.form == "adapter")
    print("\n".join(lines))
    return 0


class _Bar:
    """A progress bar in bytes that appears with the first byte; none where standard error is no terminal."""

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


def _preflight_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sft", metavar="MODEL", help=SFT)
    parser.add_argument("--aligned", required=True, metavar="MODEL", help=ALIGNED)
    _vocabulary_argument(parser)


def _preflight(arguments: argparse.Namespace) -> int:
    from expoflow.project import source
    from expoflow.remote import base_of, preflight_sources

    aligned = source(arguments.aligned)
    sft = source(arguments.sft) if arguments.sft else base_of(aligned)
    pair = preflight_sources(sft, aligned, arguments.vocabulary)
    if pair is None:
        raise CheckpointError(
            "a model has no safetensors on the hub, and pickles have no header; download it, and give its folder"
        )
    for finding in pair.findings:
        print(f"{finding.level:8} {finding.check:11} {finding.message}")
    extrapolated = sum(1 for part in pair.parts if part.shared)
    print(f"{len(pair.errors)} errors; {extrapolated} of {len(pair.parts)} tensors to extrapolate")
    return 1 if pair.errors else 0


def _inspect_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="a checkpoint, extrapolated or not")


def _inspect(arguments: argparse.Namespace) -> int:
    from expoflow.inspection import describe, describe_recipe, verify
    from expoflow.recipe import Recipe
    from expoflow.records import read_json

    folder, problems, lines = arguments.folder, [], []
    recipe = read_json(folder / "recipe.json", Recipe) if (folder / "recipe.json").is_file() else None
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


def _run_arguments(parser: argparse.ArgumentParser) -> None:
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


def _run(arguments: argparse.Namespace) -> int:
    from expoflow import checks
    from expoflow.project import Request, as_text, prepare, run_workflow, source
    from expoflow.remote import base_of

    given = {name: getattr(arguments, name) for name in PAIR_OPTIONS if getattr(arguments, name)}
    if arguments.config:
        if given:
            raise ConfigError(["--config says what to run; leave out the options of the pair, or --config"])
        if not arguments.config.is_file():
            raise ConfigError([f"--config: no file '{arguments.config}'; `expoflow init` writes a starter"])
        checks.check_files([arguments.config])
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


def _folder_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(), metavar="DIR", help="default: this one"
    )


def _init(arguments: argparse.Namespace) -> int:
    from expoflow.project import start

    written = start(arguments.folder)
    print("\n".join(f"wrote {path}" for path in written))
    print(f"correct the paths in {written[0]}, then: expoflow run --config {written[0]}")
    return 0


def _plan_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--configfile", type=Path, required=True, metavar="FILE", help="the config")
    parser.add_argument(
        "--offline", action="store_true", help="do not ask the hub for sizes: guess them by the models' names"
    )


def _plan(arguments: argparse.Namespace) -> int:
    from expoflow import inventory, plan

    config = inventory.read_config_file(arguments.configfile)
    print("\n".join(plan.lines(plan.plan(config, online=not arguments.offline))))
    return 0


def _resume_arguments(parser: argparse.ArgumentParser) -> None:
    _folder_arguments(parser)
    parser.add_argument("--dead", action="store_true", help="the run's process on another machine has ended")


def _resume(arguments: argparse.Namespace) -> int:
    from expoflow.orphans import resume

    resume(
        arguments.folder,
        arguments.dead,
        lambda line: print(f"expoflow: {line}", file=sys.stderr, flush=True),
    )


def _status(arguments: argparse.Namespace) -> int:
    from expoflow import inventory

    folder = arguments.folder
    config = inventory.read_config(folder)
    lines = [("run", inventory.state(folder))]
    for stage, files in inventory.stages(config).items():
        missing = [name for name in files if not (folder / name).exists()]
        rest = f"; missing: {missing[0]}" + (", ..." if len(missing) > 1 else "") if missing else ""
        lines.append((stage, f"{len(files) - len(missing)} of {len(files)}{rest}"))
    parts = [(folder / "results" / name, inventory.size(folder / "results" / name)) for name in RESULTS]
    lines += [(str(path), _megabytes(size)) for path, size in [*parts, *inventory.held()]]
    width = max(len(label) for label, _ in lines)
    print("\n".join(f"{label:{width}}  {text}" for label, text in lines))
    return 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


def _clean_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="remove without asking")


def _clean(arguments: argparse.Namespace) -> int:
    from expoflow import inventory, store

    held = list(inventory.held())
    print(
        "\n".join(f"{path}  {_megabytes(size)}" for path, size in held) or f"{store.root()}: nothing to free"
    )
    if not held:
        return 0
    if not arguments.yes:
        if not sys.stdin.isatty():
            raise ConfigError(["nothing was removed; say so with --yes"])
        if input("Remove these? No finished result needs them. [y/N] ").strip().lower() not in ("y", "yes"):
            return 1
    inventory.free()
    print(f"freed {_megabytes(sum(size for _, size in held))}")
    return 0


def _publish_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="a finished run's folder, or results/pairs/PAIR/expo in it"
    )
    parser.add_argument(
        "--repo", type=_repository, required=True, metavar="ORG/NAME", help="where to on the Hugging Face hub"
    )
    parser.add_argument("--pair", metavar="NAME", help="which one, where the run has several")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="the run's config, where it is not DIR/config.yaml"
    )
    parser.add_argument(
        "--license",
        metavar="ID",
        help="as the hub names it (apache-2.0, mit, ...); default: that of both parents",
    )
    parser.add_argument("--private", action="store_true", help="make the repository a private one")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="the repository may hold another model, which this one replaces",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, show files and card; nothing is asked or sent",
    )


def _repository(text: str) -> str:
    from expoflow.config import NAME

    if not re.fullmatch(f"{NAME}/{NAME}", text) or re.search(r"--|\.\.|\.git$|[.-]$", text) or len(text) > 96:
        raise argparse.ArgumentTypeError(f"{text!r} is not ORG/NAME as the hub allows it")
    return text


def _publish(arguments: argparse.Namespace) -> int:
    from expoflow.publication import CARD, publication

    repo = arguments.repo
    uploads = publication(arguments.folder, repo, arguments.pair, arguments.config, arguments.license)
    if arguments.dry_run:
        width = max(len(upload.name) for upload in uploads)
        print("\n".join(f"{each.name:{width}}  {each.size:>15,}  {each.sha256}" for each in uploads))
        total = sum(upload.size for upload in uploads)
        print(f"{len(uploads)} files, {total:,} bytes to {repo}; {CARD}:\n")
        print(next(upload.content.decode() for upload in uploads if upload.name == CARD))
        return 0
    from expoflow import hub
    from expoflow.publish import publish

    commit = publish(repo, uploads, private=arguments.private, replace=arguments.replace)
    print(f"{hub.ENDPOINT}/{repo} at {commit}: {len(uploads)} files, each with the sha256 it has here")


def _benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", choices=("alpaca_eval",), help="the benchmark")
    parser.add_argument(
        "--annotations",
        type=Path,
        required=True,
        metavar="FILE.csv",
        help="index (place among the 805 instructions), preference (1 to 2), len_baseline, len_model;"
        " or a result's alpaca_eval.generations.jsonl",
    )
    parser.add_argument(
        "--df-gamed",
        type=Path,
        metavar="FILE.csv",
        help="df_gamed.csv of the dataset tatsu-lab/alpaca_eval, for the length-controlled win rate",
    )
    parser.add_argument(
        "--instruction-difficulty", type=Path, metavar="FILE.csv", help="must agree with --df-gamed"
    )


def _benchmark(arguments: argparse.Namespace) -> int:
    import json

    from expoflow.benchmarks import win_rates

    if arguments.df_gamed and arguments.instruction_difficulty:
        win_rates.check_difficulty(arguments.df_gamed, arguments.instruction_difficulty)
    verdicts = win_rates.read_annotations(arguments.annotations)
    print(json.dumps(win_rates.win_rates(verdicts, arguments.df_gamed), indent=2))
    return 0


def _claims_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a folder whose results/ has claims.csv; one a seed"
    )
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="FILE",
        help="the page; figures go into a folder of its name",
    )
    parser.add_argument("--notes", type=Path, metavar="FILE", help="Markdown that is put on the page")


def _claims(arguments: argparse.Namespace) -> int:
    from expoflow.claims import page

    page.write(arguments.runs, arguments.out, arguments.notes)
    print(f"{arguments.out}: the claims over {len(arguments.runs)} runs")
    return 0


COMMANDS: dict[str, Command] = {
    "run": ("one pair, from two checkpoints to the report", _run_arguments, _run),
    "init": ("write a starter config for pairs of your own", _folder_arguments, _init),
    "plan": ("say what a config would cost, before it is started", _plan_arguments, _plan),
    "resume": (
        "go on with a run that was killed, without its jobs running twice",
        _resume_arguments,
        _resume,
    ),
    "status": ("say how far a project is, and what lies on the disk", _folder_arguments, _status),
    "clean": ("free the store; no finished result needs what it holds", _clean_arguments, _clean),
    "publish": (
        "upload a run's exported model to the Hugging Face hub, with a card of the evidence",
        _publish_arguments,
        _publish,
    ),
    "extrapolate": (
        "theta2 = theta1 + alpha * (theta1 - theta0), written as a checkpoint",
        _extrapolate_arguments,
        _extrapolate,
    ),
    "preflight": (
        "can two checkpoints be extrapolated? Reads headers and configs only",
        _preflight_arguments,
        _preflight,
    ),
    "benchmark": (
        "figures of a benchmark from verdicts that are there already, as JSON",
        _benchmark_arguments,
        _benchmark,
    ),
    "claims": (
        "the paper's claims over several runs (seeds), as a page with figures",
        _claims_arguments,
        _claims,
    ),
    "inspect": ("say what a checkpoint is, and check an extrapolated one", _inspect_arguments, _inspect),
}


def main(argv: list[str] | None = None) -> int:
    """Run one command; 2 and a line on standard error for a problem that the user can solve."""
    parser = argparse.ArgumentParser(
        prog="expoflow", description="Better-aligned models by extrapolation (ExPO)."
    )
    parser.add_argument("--version", action="version", version=f"expoflow {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (text, add_arguments, function) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        add_arguments(command)
        command.set_defaults(run=function)
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _terminate)
    collector.relax()
    try:
        status = arguments.run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:
        if not _unread():  # another pipe or connection
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to be written
        return 128 + signal.SIGPIPE
    except ExpoflowError as error:
        for line in str(error).splitlines():
            print(f"expoflow: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("expoflow: interrupted; nothing is left behind", file=sys.stderr)
        return 130


def _unread() -> bool:
    """Whether nobody reads standard output any more, as behind `| head`."""
    poll = select.poll()
    poll.register(1, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # an exception, so that temporary folders are removed


if __name__ == "__main__":
    sys.exit(main())
