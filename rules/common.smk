# Every Snakemake process reads this once, and so does each cluster job. It imports no torch.
import importlib.util
import os
import sys
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError

# The library beside this workflow is used even if another one is installed. Its folder does not
# stay on the path, because the scripts in it have the names of rules, and one of them has the name
# of a module of Python (select).
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

# Jobs are offline, except to download models and to fetch weights that are gone. Those follow the
# user's own setting.
os.environ.setdefault("EXPOFLOW_HUB_OFFLINE", os.environ.get("HF_HUB_OFFLINE", "0"))
# Settings of engines that change no result reach the jobs in the environment, not as params.
os.environ.update(EXPOFLOW_ENGINE=CONFIG.free_engines())
FIGURES = CONFIG.drawn()
# The profile's default resource `gpu_gres`, for example gpu:a100. GPUs are then requested as
# --gres=gpu:a100:2. If it is not set, they are requested as --gpus=2.
SITE = workflow.resource_settings.default_resources or {}
GPU_GRES = SITE["gpu_gres"].raw if "gpu_gres" in SITE else None


def begin_run():
    """Prepare a run, before its first job."""
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


# The default targets. Every rule file adds the outputs of its own rules.
RESULTS_OF_ALL = []


# Parameter of the rules whose results are marked in a rehearsal; empty in a run.
REHEARSAL = {"rehearsal": CONFIG.limit} if CONFIG.limit else {}


def whole(path):
    """The path of the whole set for `path`.

    In a rehearsal `path` itself has only the first entries (rehearsal.smk).
    """
    return path.replace("results/", "results/whole/", 1) if CONFIG.limit else path


def manifest(model):
    return f"results/models/{model}.json"


# The reward model's manifest, if there is one.
REWARD_MODEL = manifest(CONFIG.reward_model) if CONFIG.reward_model else []


def alpha_folder(pair, alpha):
    return f"results/pairs/{pair}/alpha={alpha}"


# Snakemake calls a function for every job, which takes time if there are thousands. Shared
# parameters are therefore plain values.


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
    """The name of the reward model; None if there is none."""
    return CONFIG.reward_model


REWARD_MODELS = [reward_model] if CONFIG.reward_model else []


USAGES = {name: CONFIG.usage(name) for name in CONFIG.models}
REWARD_MODEL_USAGE = USAGES.get(CONFIG.reward_model, "")


def usage(model):
    """Parameter: how to run a model; `model` returns its name."""
    if len(set(USAGES.values())) == 1:
        return next(iter(USAGES.values()))
    return lambda wildcards: USAGES[model(wildcards)]


def member(name):
    """Input: the manifest of the pair's sft or aligned model."""
    models = {getattr(pair, name) for pair in CONFIG.pairs.values()}
    if len(models) == 1:
        return manifest(*models)
    return lambda wildcards: manifest(of_pair(name)(wildcards))


# A manifest is read just before a job starts. Without one a dry run shows the minimum, except for a
# user's own folder.
NEEDS = resources.Needs(
    CONFIG, lambda model: resources.size(CONFIG.models[model], manifest(model))
)


def largest(models, wildcards):
    """Bytes of the weights of the largest of `models`, which are functions of the wildcards."""
    return max((NEEDS.weights(model(wildcards)) for model in models), default=0)


def by_size(amount, *models):
    """Resource function: `amount` of the weights of the largest of `models` and of the attempt."""
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
    """Resources of a job on `count` GPUs of one node, with `cpus` CPUs per GPU.

    `count` is a function of the wildcards. CPUs are requested per task for --gres, since SLURM's
    step would otherwise get only the job's threads.
    """

    def gres(wildcards):
        return f"{GPU_GRES}:{count(wildcards)}" if count(wildcards) else None

    def all_cpus(wildcards):
        return max(1, cpus * count(wildcards))

    if GPU_GRES:
        return {"nodes": 1, "gres": gres, "cpus_per_task": all_cpus}
    return {"nodes": 1, "gpu": count, "cpus_per_gpu": cpus}


def sweep_resources(*models):
    """Resources of a job of a pair's sweep that runs `models`.

    All jobs of the sweep may share one SLURM job. In it only one job at a time has `engines`. SLURM
    is therefore asked for the GPUs of the largest job and for the sum of the times. Each time is
    halved, because some jobs need more than estimated and others less. Snakemake refuses a SLURM
    job if its jobs differ in a resource that is text, such as `gres`.
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
    """Whether the jobs of a sweep are grouped (`groups` of a profile)."""
    return "generate" in workflow.group_settings.overwrite_groups


def file_threads(*models):
    """Threads of a job that reads and writes the weights of `models`."""
    return lambda wildcards: resources.threads(largest(models, wildcards))


def sweep_prompts(pair):
    """The prompt set that chooses the pair's alpha."""
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
