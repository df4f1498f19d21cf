# Read once by every Snakemake process, also by each cluster job: imports no torch.
import importlib.util
import os
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The library beside this workflow is the one that counts, also where another one is installed. Its
# folder does not stay on the path: the scripts in it are named like rules, one of them like a module of
# Python's (select).
SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
installed = importlib.util.find_spec("expoflow")
sys.path.insert(0, str(SCRIPTS))
import expoflow
from expoflow import config as expoflow_config
from expoflow import checks, prompts, serving, store, training
from expoflow.digest import digest
from expoflow.errors import ConfigError
from expoflow.report import CAPTIONS, closing_words

sys.path.remove(str(SCRIPTS))

try:
    CONFIG = checks.load(config, workflow.configfiles)
    if workflow.is_main_process:
        checks.check_sources(CONFIG)
except ConfigError as error:
    raise WorkflowError(f"the config has problems:\n{error}")

TRAINED = [name for name, model in CONFIG.models.items() if model.source == "train"]
LOCAL = [name for name, model in CONFIG.models.items() if model.source == "path"]
HUB = [name for name, model in CONFIG.models.items() if model.source == "hub"]
# Jobs are offline but for download, and for weights that are gone: there the user's own word counts.
os.environ.setdefault("EXPOFLOW_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
VARIANTS = ("sft", "aligned", "expo")

# What each rule's code is, for its digest: module names below expoflow; what they import is included.
ROOTS = {
    "local": ["store"],
    "prompts": ["prompts"],
    "preflight": ["preflight"],
    "extrapolate": ["pair"],
    "generate": ["pair", "engines.serve"],
    "score": ["evaluate"],
    "select": ["sweep"],
    "export": ["pair"],
    "benchmark": ["benchmarks", "engines.serve"],
    "compare": ["benchmarks.reward"],
    "tables": ["tables"],
    "figure": ["figures"],
    "report": ["report"],
}


def require_own_library():
    """Before any job: the library that jobs will import must be the one beside this workflow."""
    if (
        installed
        and not workflow.touch
        and not Path(installed.origin).samefile(expoflow.__file__)
    ):
        raise WorkflowError(
            f"jobs of this workflow would run the expoflow of {installed.origin}, not its own;"
            f" run: pip install -e {workflow.basedir}"
        )


def require_fitting_pairs():
    """Before any job: models of the hub must fit together, by their headers."""
    if HUB and not workflow.touch:
        from expoflow.remote import check_pairs

        try:
            check_pairs(CONFIG)
        except ConfigError as error:
            raise WorkflowError(f"nothing was downloaded:\n{error}")


def only(names):
    """Regular expression that matches exactly `names`; no name at all where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=only(CONFIG.models),
    pair=only(CONFIG.pairs),
    prompts=only(CONFIG.prompts),
    dataset=only(CONFIG.datasets),
    alpha=expoflow_config.ALPHA,
    variant=only(VARIANTS),
    benchmark=only(expoflow_config.BENCHMARKS),
    figure=only(CAPTIONS),


def code(rule):
    """Digest of a rule's code."""
    return digest(ROOTS[rule], SCRIPTS / f"{rule}.py")


def manifest(model):
    return f"results/models/{model}.json"


def needed(role):
    """Input function: the manifest of what a model is trained from, or of what labels its data."""
    return lambda wildcards: [
        manifest(model)
        for each, model in CONFIG.models[wildcards.model].needed().items()
        if each == role
    ]


def alpha_folder(pair, alpha):
    return f"results/pairs/{pair}/alpha={alpha}"


def section(name, **exclude):
    """Parameter function: the pair's section `name` as canonical JSON."""
    return lambda wildcards: CONFIG.section(wildcards.pair, name).canonical(**exclude)


def usage(name):
    """Parameter function: how the pair's sft or aligned model is to be run."""
    return lambda wildcards: CONFIG.models[
        getattr(CONFIG.pairs[wildcards.pair], name)
    ].usage()


def member(name):
    """Input function: the manifest of the pair's sft or aligned model."""
    return lambda wildcards: manifest(getattr(CONFIG.pairs[wildcards.pair], name))


def sweep_prompts(pair):
    """The prompt set on which the pair's alpha is chosen."""
    return CONFIG.section(pair, "generate").prompts


def of_grid(path):
    """Input function: `path` for every alpha of the pair."""
    return lambda wildcards: [
        path.format(
            folder=alpha_folder(wildcards.pair, alpha),
            prompts=sweep_prompts(wildcards.pair),
        )
        for alpha in CONFIG.pairs[wildcards.pair].grid()
    ]


def variant_file(pair, variant):
    """What stands for a variant's model: the manifest of sft or aligned, the recipe of expo."""
    if variant == "expo":
        return f"results/pairs/{pair}/expo/recipe.json"
    return manifest(getattr(CONFIG.pairs[pair], variant))


def benchmark_prompts(wildcards):
    name = getattr(
        CONFIG.section(wildcards.pair, "benchmarks"), wildcards.benchmark
    ).prompts
    return f"results/prompts/{name}.jsonl"


def benchmark_results(variants):
    """The results of `variants` on every benchmark of every pair."""
    return [
        f"results/pairs/{pair}/benchmarks/{variant}/{benchmark}.json"
        for pair in CONFIG.pairs
        for benchmark in CONFIG.section(pair, "benchmarks").names()
        for variant in variants
    ]


def of_pairs(name):
    return expand("results/pairs/{pair}/{name}", pair=CONFIG.pairs, name=name)


def all_rewards():
    return [
        f"{alpha_folder(pair, alpha)}/{sweep_prompts(pair)}.rewards.csv"
        for pair in CONFIG.pairs
        for alpha in CONFIG.pairs[pair].grid()
    ]


TABLES = expand(
    "results/{table}.csv", table=["alphas", "rewards", "benchmarks", "summary"]
)
PLOTS = expand("results/figures/{figure}.{kind}", figure=CAPTIONS, kind=["svg", "png"])
# The rewards stand here too: Snakemake remakes a deleted file only where it is asked for.
RESULTS_OF_ALL = [
    *TABLES,
    *PLOTS,
    "results/report.html",
    *of_pairs("expo/recipe.json"),
    *all_rewards(),
]
