# Read once by every Snakemake process, also by each cluster job: imports no torch.
import importlib.util
import json
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The library beside this workflow is the one that counts, also where another one is installed. Its
# folder does not stay on the path: the scripts in it are named like rules, one of them like a module of
# Python's (select).
SCRIPTS = Path(workflow.basedir) / "workflow" / "scripts"
installed = importlib.util.find_spec("expoflow")
sys.path.insert(0, str(SCRIPTS))
import expoflow
from expoflow import checks
from expoflow.benchmarks import bill
from expoflow.checkpoints import manifests
from expoflow.checks import machine
from expoflow.config.base import ALPHA, VARIANTS
from expoflow.config.benchmarks import BENCHMARKS
from expoflow.dag import code, resources
from expoflow.dag.wildcards import only
from expoflow.errors import ConfigError, ExpoflowError
from expoflow.project.begin import begin
from expoflow.reporting import paper, paper_tables
from expoflow.reporting.run_end import closing_words, salvage
from expoflow.selection import criteria
from expoflow.system import collector
from expoflow.system.installed import require_own

sys.path.remove(str(SCRIPTS))

# The graph of jobs is large, and none of it is garbage.
collector.relax()

try:
    CONFIG = checks.load(config, workflow.configfiles)
    if workflow.is_main_process:
        machine.check_sources(CONFIG)
        for line in bill.lines(CONFIG):
            print(line, file=sys.stderr)
except ConfigError as error:
    raise WorkflowError(f"the config has problems:\n{error}")

TRAINED = [name for name, model in CONFIG.models.items() if model.source == "train"]
LOCAL = [name for name, model in CONFIG.models.items() if model.source == "path"]
HUB = [name for name, model in CONFIG.models.items() if model.source == "hub"]
# Jobs are offline but for download, and for weights that are gone: there the user's own word counts.
os.environ.setdefault("EXPOFLOW_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
FIGURES = CONFIG.drawn()
# The profile's default resource `gpu_gres`, for example gpu:a100: GPUs are then asked for as --gres=gpu:a100:2,
# and as --gpus=2 where it is not set.
SITE = workflow.resource_settings.default_resources or {}
GPU_GRES = SITE["gpu_gres"].raw if "gpu_gres" in SITE else None


def begin_run():
    """Before the first job."""
    try:
        if not workflow.touch:
            require_own(installed and installed.origin, workflow.basedir)
        begin(
            CONFIG,
            sys.argv[1:],
            workflow.rundir,
            cores=workflow.cores if workflow.local_exec else None,
            cluster=workflow.executor_plugin.name == "slurm",
            touch=workflow.touch,
        )
    except ExpoflowError as error:
        raise WorkflowError(str(error))


wildcard_constraints:
    model=only(CONFIG.models),
    pair=only(CONFIG.pairs),
    prompts=only(CONFIG.prompts),
    dataset=only(CONFIG.datasets),
    alpha=ALPHA,
    variant=only(VARIANTS),
    benchmark=only(BENCHMARKS),
    figure=only(FIGURES),


def manifest(model):
    return f"results/models/{model}.json"


# The reward model's manifest, where there is one.
REWARD_MODEL = manifest(CONFIG.reward_model) if CONFIG.reward_model else []


def needed(role):
    """Input function: the manifest of what a model is trained from, or of what labels its data."""
    return lambda wildcards: [
        manifest(model)
        for each, model in CONFIG.models[wildcards.model].needed().items()
        if each == role
    ]


def alpha_folder(pair, alpha):
    return f"results/pairs/{pair}/alpha={alpha}"


# Snakemake calls a function for every job, which shows where there are thousands: what all share is a plain value.


def section(name, **exclude):
    """Parameter: the pair's section `name` as canonical JSON."""
    if all(getattr(pair, name) is None for pair in CONFIG.pairs.values()):
        return getattr(CONFIG, name).canonical(**exclude)

    @cache
    def canonical(pair):
        return CONFIG.section(pair, name).canonical(**exclude)

    return lambda wildcards: canonical(wildcards.pair)


def of_pair(name):
    """The name of the pair's sft or aligned model, as a function of the wildcards."""
    return lambda wildcards: getattr(CONFIG.pairs[wildcards.pair], name)


def reward_model(wildcards):
    """The name of the reward model, None without one."""
    return CONFIG.reward_model


REWARD_MODELS = [reward_model] if CONFIG.reward_model else []


USAGES = {name: model.usage() for name, model in CONFIG.models.items()}
REWARD_MODEL_USAGE = USAGES.get(CONFIG.reward_model, "")


def usage(model):
    """Parameter: how a model is to be run; `model` gives its name."""
    if len(set(USAGES.values())) == 1:
        return next(iter(USAGES.values()))
    return lambda wildcards: USAGES[model(wildcards)]


def member(name):
    """Input: the manifest of the pair's sft or aligned model."""
    models = {getattr(pair, name) for pair in CONFIG.pairs.values()}
    if len(models) == 1:
        return manifest(*models)
    return lambda wildcards: manifest(of_pair(name)(wildcards))


def by_size(amount, *models):
    """Resource function: `amount` for the weights of the largest of `models` and the attempt.

    A manifest is read when the job is about to start; where a dry run finds none, it shows the least.
    """
    return lambda wildcards, attempt: amount(
        resources.size(manifest(model(wildcards)) for model in models), attempt
    )


def file_resources(*models):
    """Resources of a job that reads and writes the weights of `models`."""
    return {
        "mem_mb": by_size(resources.file_memory, *models),
        "runtime": by_size(resources.file_minutes, *models),
    }


def engine_resources(*models):
    """Resources of a job that runs `models`."""

    def gpus(wildcards):
        return max((gpus_of(model(wildcards)) for model in models), default=0)

    def gres(wildcards):
        return f"{GPU_GRES}:{gpus(wildcards)}" if gpus(wildcards) else None

    return {
        "mem_mb": by_size(resources.engine_memory, *models),
        "runtime": by_size(resources.engine_minutes, *models),
        "cpus_per_gpu": 4,
        **({"gres": gres} if GPU_GRES else {"gpu": gpus}),
    }


def gpus_of(model):
    """The number of GPUs that a model is run on: the config's, or by its size."""
    config = CONFIG.models[model]
    if config.resources.gpus is not None:
        return config.resources.gpus
    trained = config.source == "train"
    return 0 if trained else resources.gpus(resources.size([manifest(model)]))


def file_threads(*models):
    """Threads of a job that reads and writes the weights of `models`."""
    return lambda wildcards: resources.threads(
        resources.size(manifest(model(wildcards)) for model in models)
    )


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


def likelihoods(wildcards):
    """Input function: the likelihoods that the pair's alpha is chosen by, or compared by; else none."""
    if not scored_under(wildcards):
        return []
    return of_grid("{folder}/{prompts}.likelihoods.csv")(wildcards)


def scored_under(wildcards):
    """Names of the models under which the pair's responses are scored."""
    return criteria.scored_under(CONFIG.section(wildcards.pair, "select"))


def benchmark_results(variants, benchmarks=BENCHMARKS):
    """The results of `variants` on those of `benchmarks` that a pair has, for every pair."""
    return [
        f"results/pairs/{pair}/benchmarks/{variant}/{benchmark}.json"
        for pair in CONFIG.pairs
        for benchmark in CONFIG.section(pair, "benchmarks").names()
        for variant in variants
        if benchmark in benchmarks
    ]


def of_pairs(name):
    return expand("results/pairs/{pair}/{name}", pair=CONFIG.pairs, name=name)


def all_rewards():
    return [
        f"{alpha_folder(pair, alpha)}/{sweep_prompts(pair)}.rewards.csv"
        for pair in CONFIG.pairs
        for alpha in CONFIG.pairs[pair].grid()
    ]


# What the paper published of the models that pairs repeat.
REPEATED = {
    name: [number._asdict() | {"value": str(number.value)} for number in numbers]
    for name, pair in CONFIG.pairs.items()
    if (numbers := paper.published(pair.paper))
}
PAPER_REWARDS = (
    CONFIG.reward_model is not None
    and CONFIG.models[CONFIG.reward_model].hub == paper.REWARD_MODEL
)
REWARDS_NOTE = "" if PAPER_REWARDS or not CONFIG.reward_model else paper.OTHER_REWARDS


# The reward models that score the responses of pairs whose training they labelled.
LABELLERS = {
    pair: next(
        name
        for name in CONFIG.labellers(CONFIG.pairs[pair].aligned)
        if name != CONFIG.reward_model
    )
    for pair in (CONFIG.claims.labelled if CONFIG.claims else [])
}


def claim_inputs():
    """What claims read beside the joint tables: responses, and the scores of other reward models."""
    claims = CONFIG.claims
    spoken = [*claims.fractions, *claims.length_bias] if claims else []
    found = [
        f"{alpha_folder(pair, alpha)}/{sweep_prompts(pair)}.generations.jsonl"
        for pair in dict.fromkeys(spoken)
        for alpha in CONFIG.pairs[pair].grid()
    ]
    found += [
        f"{alpha_folder(pair, alpha)}/{sweep_prompts(pair)}.{labeller}.rewards.csv"
        for pair, labeller in LABELLERS.items()
        for alpha in CONFIG.pairs[pair].grid()
    ]
    return found + [
        f"results/prompts/{name}.jsonl"
        for name in sorted({sweep_prompts(p) for p in spoken})
    ]


def salvage_benchmarks():
    """After a failed run: the tables with its gaps; what to say of them."""
    results = benchmark_results([*VARIANTS, "expo-aligned"])
    return salvage(list(map(Path, results)), captions())


TABLES = expand(
    "results/{table}.csv", table=["alphas", "rewards", "benchmarks", "summary"]
)
PLOTS = expand("results/figures/{figure}.{kind}", figure=FIGURES, kind=["svg", "png"])
APPENDICES = expand(
    "results/tables/{table}.{kind}",
    table=[
        "appendix_e",
        *(
            ["appendix_f"]
            if any(p.trained_on_dev for p in CONFIG.pairs.values())
            else []
        ),
        *(["reproduction"] if REPEATED else []),
    ],
    kind=["csv", "md"],
)
PAPER_TABLES = expand(
    "results/tables/{table}.{kind}",
    table=["table1", "table2", "appendix_d"],
    kind=["csv", "md"],
)
MEASURED = [
    *of_pairs("theory.json" if CONFIG.theory else []),
    *(["results/cosines.csv"] if CONFIG.theory and CONFIG.kin() else []),
    *expand(
        "results/planes/{plane}.csv",
        plane=CONFIG.theory.planes if CONFIG.theory else [],
    ),
]
# The rewards stand here too: Snakemake remakes a deleted file only where it is asked for.
RESULTS_OF_ALL = [
    *TABLES,
    *PLOTS,
    *APPENDICES,
    # of the paper's benchmarks, where a pair has one
    *(PAPER_TABLES if benchmark_results(["expo"], paper_tables.BENCHMARKS) else []),
    *(
        [f"results/models/{CONFIG.reward_model}.rewardbench.json"]
        if CONFIG.reward_check
        else []
    ),
    *MEASURED,
    *(["results/claims.csv"] if CONFIG.claims else []),
    "results/report.html",
    *of_pairs("expo/recipe.json"),
    *all_rewards(),
]
