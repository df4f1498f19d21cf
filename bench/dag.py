"""Measure dry runs of large sweeps, compared with Snakemake's own time for such a DAG.

The floor is a generated workflow with the same rules, and for every rule the same number of jobs,
inputs and outputs: plain patterns with empty shell bodies, without config, params, resources or
logs. `scripts` is the same floor, but its rules have a script, a log, a benchmark file and a
message, like every rule of expoflow. All are run in turn, in fresh folders. Nothing is downloaded,
and no job runs. A dry run is one process, so its CPU seconds are its time on an idle machine.
`--profile` shows where they are spent.

    python bench/dag.py --models 12 100 300 1000 --repeat 3
    python bench/dag.py --models 300 --profile
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from operator import truediv
from pathlib import Path
from statistics import median

import yaml

REPOSITORY = Path(__file__).resolve().parents[1]
ALPHAS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
GRID = ["-1", "0", *map(str, ALPHAS)]
FLOOR = """\
NAMES = [f"model{{number}}" for number in range({count})]
GRID = {grid}
SWEEP = "pairs/{{pair}}/alpha={{alpha}}"


def variant_model(wildcards):
    pair = f"pairs/{{wildcards.pair}}/expo/recipe.json"
    models = {{"expo": [pair], "sft": ["models/sft.json"]}}
    return models.get(wildcards.variant, [f"models/{{wildcards.pair}}.json", "models/sft.json"])


wildcard_constraints:
    pair=r"\\w+",
    model=r"\\w+",
    alpha=r"[-.0-9]+",
    variant="sft|aligned|expo",


rule all:
    input:
        expand("{{table}}.csv", table=["alphas", "rewards", "benchmarks", "summary"]),
        expand("figures/{{figure}}.{{kind}}", figure=["sweep", "path", "histograms"], kind=["svg", "png"]),
        expand("tables/appendix_e.{{kind}}", kind=["csv", "md"]),
        "report.html",
        expand("pairs/{{pair}}/expo/recipe.json", pair=NAMES),
        expand(SWEEP + "/dev.rewards.csv", pair=NAMES, alpha=GRID),


rule download:
    output: "models/{{model}}.json"
    shell: ""


rule prompts:
    output: "prompts/{{prompts}}.jsonl"
    shell: ""


rule preflight:
    input: "models/sft.json", "models/{{pair}}.json"
    output: "pairs/{{pair}}/preflight.json"
    shell: ""


rule extrapolate:
    input: "models/sft.json", "models/{{pair}}.json", "pairs/{{pair}}/preflight.json"
    output: SWEEP + "/model/recipe.json"
    shell: ""


rule generate:
    input: SWEEP + "/model/recipe.json", "models/sft.json", "models/{{pair}}.json", "prompts/{{prompts}}.jsonl"
    output: SWEEP + "/{{prompts}}.generations.jsonl"
    shell: ""


rule score:
    input: SWEEP + "/{{prompts}}.generations.jsonl", "prompts/{{prompts}}.jsonl", "models/reward.json"
    output: SWEEP + "/{{prompts}}.rewards.csv"
    shell: ""


rule select:
    input:
        expand(SWEEP + "/dev.rewards.csv", alpha=GRID, allow_missing=True),
        expand(SWEEP + "/model/recipe.json", alpha=GRID, allow_missing=True),
    output: "pairs/{{pair}}/alphas.csv", "pairs/{{pair}}/best.json"
    shell: ""


rule export:
    input: "pairs/{{pair}}/best.json", "models/sft.json", "models/{{pair}}.json"
    output: "pairs/{{pair}}/expo/recipe.json"
    shell: ""


rule benchmark_reward:
    input: variant_model, "prompts/test.jsonl", "models/reward.json"
    output: "pairs/{{pair}}/benchmarks/{{variant}}/reward.json", "pairs/{{pair}}/benchmarks/{{variant}}/reward.generations.jsonl"
    shell: ""


rule compare:
    input: expand("pairs/{{pair}}/benchmarks/{{variant}}/reward.generations.jsonl", variant=["aligned", "expo"], allow_missing=True), "prompts/test.jsonl"
    output: "pairs/{{pair}}/benchmarks/expo-aligned/reward.json"
    shell: ""


rule certify:
    input:
        expand("pairs/{{pair}}/benchmarks/{{variant}}/reward.generations.jsonl", variant=["aligned", "expo"], allow_missing=True),
        "pairs/{{pair}}/benchmarks/expo-aligned/reward.json", "pairs/{{pair}}/best.json", "prompts/dev.jsonl"
    output: "pairs/{{pair}}/certificate.json"
    shell: ""


rule tables:
    input:
        expand("pairs/{{pair}}/{{file}}", pair=NAMES, file=["alphas.csv", "best.json", "certificate.json"]),
        expand(SWEEP + "/dev.rewards.csv", pair=NAMES, alpha=GRID),
    output: "alphas.csv", "rewards.csv", "summary.csv"
    shell: ""


rule benchmark_table:
    input: expand("pairs/{{pair}}/benchmarks/{{variant}}/reward.json", pair=NAMES, variant=["sft", "aligned", "expo", "expo-aligned"])
    output: "benchmarks.csv"
    shell: ""


rule figure:
    input:
        lambda wildcards: expand("pairs/{{pair}}/benchmarks/{{variant}}/reward.generations.jsonl", pair=NAMES, variant=["sft", "aligned", "expo"])
        if wildcards.figure == "histograms" else expand("pairs/{{pair}}/alphas.csv", pair=NAMES),
    output: "figures/{{figure}}.svg", "figures/{{figure}}.png"
    shell: ""


rule appendices:
    input: expand("pairs/{{pair}}/alphas.csv", pair=NAMES)
    output: "tables/appendix_e.csv", "tables/appendix_e.md"
    shell: ""


rule report:
    input: "summary.csv", "alphas.csv", "benchmarks.csv", expand("pairs/{{pair}}/{{file}}", pair=NAMES, file=["best.json", "certificate.json"]), "tables/appendix_e.csv"
    output: "report.html"
    shell: ""
"""


BODY = re.compile(r"( +)output: ([^,\n]+)(.*)\n +shell: \"\"")
SCRIPT = r'''\1output: \2\3
\1log: "logs/" + \2
\1benchmark: "times/" + \2
\1message: "make {output}"
\1script: "job.py"'''
KINDS = ("expoflow", "floor", "scripts")


@dataclass(frozen=True)
class Run:
    """The time of a dry run, and the number of jobs of every rule."""

    seconds: float
    megabytes: float
    jobs: dict[str, int]


def sweep(count: int) -> dict:
    """Return a config with `count` models of the hub, each aligned from the same SFT model."""
    names = [f"model{number}" for number in range(count)]
    hub = {"sft": "org/sft", "reward": "org/reward", **{name: f"org/{name}" for name in names}}
    return {
        "models": {name: {"hub": repository} for name, repository in hub.items()},
        "pairs": {name: {"sft": "sft", "aligned": name, "alphas": ALPHAS} for name in names},
        "prompts": {name: {"hub": "org/prompts", "split": name} for name in ("dev", "test")},
        "reward_model": "reward",
        "benchmarks": {"reward": {"prompts": "test"}},
    }


def command(kind: str, folder: Path, count: int) -> list[str]:
    """Write the files of `kind` into `folder`, and measure its dry run."""
    if kind == "expoflow":
        (folder / "config.yaml").write_text(yaml.safe_dump(sweep(count)))
        snakefile = REPOSITORY / "Snakefile"
    else:
        text, snakefile = FLOOR.format(count=count, grid=GRID), folder / "Snakefile"
        snakefile.write_text(BODY.sub(SCRIPT, text) if kind == "scripts" else text)
        (folder / "job.py").touch()
    options = ["--dry-run", "--cores", "2", "--snakefile", str(snakefile), "--directory", str(folder)]
    options += ["--workflow-profile", str(REPOSITORY / "profiles" / "default")]
    return ["-m", "snakemake", *options, *(["--configfile", "config.yaml"] if kind == "expoflow" else [])]


def dry_run(kind: str, count: int) -> Run:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = [sys.executable, *command(kind, folder, count)]
        with open(folder / "output", "w+") as output:
            process = subprocess.Popen(arguments, cwd=folder, stdout=output, stderr=output)
            _, status, usage = os.wait4(process.pid, 0)
            output.seek(0)
            text = output.read()
    if status:
        sys.exit(f"{kind}: dry run failed:\n{text[-3000:]}")
    counts = re.findall(r"^(\w+) +(\d+)$", text.rpartition("Job stats:")[2], re.MULTILINE)
    jobs = {rule: int(number) for rule, number in counts}
    return Run(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1000, jobs)


def compare(count: int, repeat: int) -> str:
    """Return one row of the table: medians of `repeat` dry runs of every kind, taken in turn."""
    turns = [{kind: dry_run(kind, count) for kind in KINDS} for _ in range(repeat)]
    jobs = turns[0]["expoflow"].jobs
    for turn in turns:
        for kind, run in turn.items():
            if run.jobs != jobs:
                sys.exit(f"{kind} has not the jobs of expoflow, {jobs}, but {run.jobs}")

    seconds = {kind: [turn[kind].seconds for turn in turns] for kind in KINDS}
    megabytes = {kind: [turn[kind].megabytes for turn in turns] for kind in KINDS}
    cells = [f"{count:,}", f"{jobs['total']:,}"]
    cells += [f"{median(seconds[kind]):.1f}" for kind in KINDS]
    cells.append(f"{1000 * median(seconds['expoflow']) / jobs['total']:.2f}")
    cells += [f"{median(map(truediv, seconds['expoflow'], seconds[kind])):.2f}" for kind in KINDS[1:]]
    cells += [f"{median(megabytes[kind]):.0f}" for kind in KINDS]
    return f"| {' | '.join(cells)} |"


def profile(count: int) -> None:
    """Print where a dry run spends its time, by cProfile."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        arguments = [sys.executable, "-m", "cProfile", "-o", "stats", *command("expoflow", folder, count)]
        subprocess.run(
            arguments, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True
        )
        import pstats

        pstats.Stats(str(folder / "stats")).sort_stats("tottime").print_stats(40)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=int, nargs="+", default=[12, 100, 300, 1000])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    if options.profile:
        return profile(options.models[-1])
    head = ["models x 6", "jobs", *(f"{kind} (s)" for kind in KINDS), "ms per job"]
    head += ["x floor", "x scripts", *(f"{kind} (MB)" for kind in KINDS)]
    print(f"| {' | '.join(head)} |\n|{' ---: |' * len(head)}")
    for count in options.models:
        print(compare(count, options.repeat), flush=True)


if __name__ == "__main__":
    main()
