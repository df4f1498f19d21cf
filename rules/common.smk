# Read once by every Snakemake process, also by each cluster job: imports no torch.
import importlib.util
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
from expoflow.config.base import ALPHA, VARIANTS
from expoflow.config.benchmarks import BENCHMARKS
from expoflow.dag import code, resources
from expoflow.dag.wildcards import only
from expoflow.errors import ExpoflowError
from expoflow.project import terminal
from expoflow.project.begin import begin, begin_job, look
from expoflow.system import collector, kept
from expoflow.system.installed import require_own

sys.path.remove(str(SCRIPTS))

# The graph of jobs is large, and none of it is garbage.
collector.relax()

if workflow.is_main_process:
    WORDS = terminal.listen()

try:
    CONFIG = checks.load(config, workflow.configfiles)
    if workflow.is_main_process:
        look(CONFIG, sys.argv[1:])
    if workflow.remote_exec:
        begin_job(sys.argv[1:])
except ExpoflowError as error:
    raise WorkflowError(f"the config has problems:\n{error}")

# Jobs are offline but for download, and for weights that are gone: there the user's own word counts.
os.environ.setdefault("EXPOFLOW_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
# Settings of engines that change no result come to jobs beside the params.
os.environ.update(EXPOFLOW_ENGINE=CONFIG.free_engines())
FIGURES = CONFIG.drawn()
# The profile's default resource `gpu_gres`, for example gpu:a100: GPUs are then asked for as --gres=gpu:a100:2,
# and as --gpus=2 where it is not set.
SITE = workflow.resource_settings.default_resources or {}
GPU_GRES = SITE["gpu_gres"].raw if "gpu_gres" in SITE else None


def begin_run():
    """Before the first job."""
    wanted = workflow.dag_settings
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
            whole=not (wanted.targets or wanted.until or wanted.omit_from),
        )
    except ExpoflowError as error:
        raise WorkflowError(str(error))
    if not workflow.touch:
        WORDS.begin(workflow.dag, cluster=not workflow.local_exec)


wildcard_constraints:
    model=only(CONFIG.models),
    pair=only(CONFIG.pairs),
    prompts=only(CONFIG.prompts),
    dataset=only(CONFIG.datasets),
    alpha=ALPHA,
    variant=only(VARIANTS),
    benchmark=only(BENCHMARKS),
    figure=only(FIGURES),


# What is made if nothing else is asked for; every rule file adds what its own rules make.
RESULTS_OF_ALL = []


# Parameter of the rules whose results say that they are of a rehearsal; none in a run.
REHEARSAL = {"rehearsal": CONFIG.limit} if CONFIG.limit else {}


def whole(path):
    """Where a whole set lies that stands at `path`; in a rehearsal only its first entries stand there (rehearsal.smk)."""
    return path.replace("results/", "results/whole/", 1) if CONFIG.limit else path


def manifest(model):
    return f"results/models/{model}.json"


# The reward model's manifest, where there is one.
REWARD_MODEL = manifest(CONFIG.reward_model) if CONFIG.reward_model else []


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


USAGES = {name: CONFIG.usage(name) for name in CONFIG.models}
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


# A manifest is read when a job is about to start; a dry run that finds none shows the least, but for a user's folder.
NEEDS = resources.Needs(
    CONFIG, lambda model: resources.size(CONFIG.models[model], manifest(model))
)


def largest(models, wildcards):
    """Bytes of the weights of the largest of `models`, functions of the wildcards."""
    return max((NEEDS.weights(model(wildcards)) for model in models), default=0)


def by_size(amount, *models):
    """Resource function: `amount` for the weights of the largest of `models` and the attempt."""
    return lambda wildcards, attempt: amount(largest(models, wildcards), attempt)


def file_resources(*models):
    """Resources of a job that reads and writes the weights of `models`."""
    return {
        "mem_mb": by_size(resources.file_memory, *models),
        "runtime": by_size(resources.file_minutes, *models),
    }


def engine_resources(*models):
    """Resources of a job that runs `models`."""
    return {
        "mem_mb": by_size(resources.engine_memory, *models),
        "runtime": by_size(resources.engine_minutes, *models),
        **on_gpus(
            lambda wildcards: max(
                (NEEDS.gpus(model(wildcards)) for model in models), default=0
            ),
            cpus=4,
        ),
    }


def on_gpus(count, cpus):
    """Resources of a job on as many GPUs of one node as `count` says, a function of the wildcards, with `cpus` CPUs for each.

    Of a job that asks by --gres, SLURM's step would be given its threads alone.
    """

    def gres(wildcards):
        return f"{GPU_GRES}:{count(wildcards)}" if count(wildcards) else None

    def all_cpus(wildcards):
        return max(1, cpus * count(wildcards))

    if GPU_GRES:
        return {"nodes": 1, "gres": gres, "cpus_per_task": all_cpus}
    return {"nodes": 1, "gpu": count, "cpus_per_gpu": cpus}


def sweep_resources(*models):
    """Resources of a job of a pair's sweep that runs `models`, perhaps in one SLURM job with the others of the sweep.

    There one job at a time has `engines`, so that SLURM is asked for the GPUs of the largest and the sum of the times,
    each of them halved: what one job needs more than it was thought, another one needs less. Snakemake refuses a
    SLURM job whose jobs differ in a resource that is text, such as `gres`.
    """
    asked = engine_resources(*models)
    alone = asked["runtime"]

    def runtime(wildcards, attempt):
        minutes = alone(wildcards, attempt)
        return -(-minutes // 2) if shares_slurm_jobs() else minutes

    if GPU_GRES:
        of_all = engine_resources(of_pair("aligned"), *REWARD_MODELS)["gres"]
        own = asked["gres"]
        asked["gres"] = lambda wildcards: (of_all if shares_slurm_jobs() else own)(
            wildcards
        )
    return {**asked, "runtime": runtime, "engines": 1}


def shares_slurm_jobs():
    """Whether the jobs of a sweep are put together (`groups` of a profile)."""
    return "generate" in workflow.group_settings.overwrite_groups


def file_threads(*models):
    """Threads of a job that reads and writes the weights of `models`."""
    return lambda wildcards: resources.threads(largest(models, wildcards))


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


def of_pairs(name):
    return expand("results/pairs/{pair}/{name}", pair=CONFIG.pairs, name=name)
