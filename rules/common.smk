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
from expoflow.benchmarks import (
    alpaca_eval_data,
    bill,
    lm_tasks,
    preferences,
    published,
    questions,
    task_data,
)
from expoflow.report import CAPTIONS, closing_words, salvage

sys.path.remove(str(SCRIPTS))

try:
    CONFIG = checks.load(config, workflow.configfiles)
    if workflow.is_main_process:
        checks.check_sources(CONFIG)
        for line in bill.lines(CONFIG):
            print(line, file=sys.stderr)
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
    "benchmark": ["benchmarks", "engines.serve"],  # and the benchmark's own module
    "compare": ["benchmarks"],
    "rewardbench": ["benchmarks.rewardbench"],
    "tables": ["tables"],
    "benchmark_table": ["tables"],
    "paper_tables": ["benchmarks.published"],
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


def require_keys():
    """Before any job, but not before a dry run: the keys of judges."""
    try:
        checks.check_keys(CONFIG)
    except ConfigError as error:
        raise WorkflowError(str(error))


def only(names):
    """Regular expression that matches exactly `names`; no name at all where there is none."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    model=only(CONFIG.models),
    pair=only(CONFIG.pairs),
    prompts=only(CONFIG.prompts),
    alpha=expoflow_config.ALPHA,
    variant=only(VARIANTS),
    benchmark=only(expoflow_config.BENCHMARKS),
    figure=only(CAPTIONS),


def code(rule):
    """Digest of a rule's code."""
    return digest(ROOTS[rule], SCRIPTS / f"{rule}.py")


def manifest(model):
    return f"results/models/{model}.json"


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


def variant_model(wildcards):
    """What stands for a variant's model: the manifest of sft or aligned, the recipe of expo."""
    if wildcards.variant == "expo":
        return f"results/pairs/{wildcards.pair}/expo/recipe.json"
    return manifest(getattr(CONFIG.pairs[wildcards.pair], wildcards.variant))


def variant_usage(wildcards):
    """How a variant's model is to be run; expo has the aligned model's package."""
    return usage("sft" if wildcards.variant == "sft" else "aligned")(wildcards)


def benchmark_settings(pair, benchmark):
    return getattr(CONFIG.section(pair, "benchmarks"), benchmark)


def benchmark_section(benchmark):
    """Parameter function: what of the benchmark's settings its result depends on."""
    return lambda wildcards: benchmark_settings(wildcards.pair, benchmark).identity()


def benchmark_code(benchmark, rule="benchmark"):
    """Digest of the code that runs or compares a benchmark."""
    return digest([*ROOTS[rule], f"benchmarks.{benchmark}"], SCRIPTS / f"{rule}.py")


def benchmark_prompts(wildcards):
    return (
        f"results/prompts/{benchmark_settings(wildcards.pair, 'reward').prompts}.jsonl"
    )


def comparison_inputs(wildcards):
    """What a comparison reads beside the rows of both variants."""
    if wildcards.benchmark == "reward":
        return {"prompts": benchmark_prompts(wildcards)}
    if wildcards.benchmark == "alpaca_eval":
        files = alpaca_eval_files(wildcards)
        return {name: files[name] for name in ("df_gamed",) if name in files}
    return {}


def by_source(benchmark):
    """The different settings of a benchmark over all pairs, by the name of the source of their data."""
    settings = [benchmark_settings(pair, benchmark) for pair in CONFIG.pairs]
    return {each.source_name(): each for each in settings if each}


ALPACA_EVAL = by_source("alpaca_eval")
MT_BENCH = by_source("mt_bench")
OPEN_LLM = by_source("open_llm")


def alpaca_eval_files(wildcards):
    return alpaca_eval_data.files(benchmark_settings(wildcards.pair, "alpaca_eval"))


def mt_bench_data(wildcards):
    source = benchmark_settings(wildcards.pair, "mt_bench").source_name()
    return f"results/benchmarks/mt_bench.{source}.json"


def open_llm_data(wildcards):
    source = benchmark_settings(wildcards.pair, "open_llm").source_name()
    return f"results/benchmarks/open_llm.{source}.json"


def benchmark_results(variants, benchmarks=expoflow_config.BENCHMARKS):
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


def rewarded_rows():
    """Responses of all variants that the reward model scored on a benchmark."""
    return [
        path.replace(".json", ".generations.jsonl")
        for path in benchmark_results(VARIANTS, ["reward"])
    ]


def salvage_benchmarks():
    """After a failed run: the tables with its gaps; what to say of them."""
    results = benchmark_results([*VARIANTS, "expo-aligned"])
    return salvage(list(map(Path, results)), list(CAPTIONS))


TABLES = expand(
    "results/{table}.csv", table=["alphas", "rewards", "benchmarks", "summary"]
)
PAPER_TABLES = expand(
    "results/tables/{table}.{kind}",
    table=["table1", "table2", "appendix_d"],
    kind=["csv", "md"],
)
PLOTS = expand("results/figures/{figure}.{kind}", figure=CAPTIONS, kind=["svg", "png"])
# The rewards stand here too: Snakemake remakes a deleted file only where it is asked for.
RESULTS_OF_ALL = [
    *TABLES,
    *PLOTS,
    # of the paper's benchmarks, where a pair has one
    *(PAPER_TABLES if benchmark_results(["expo"], published.BENCHMARKS) else []),
    *(
        [f"results/models/{CONFIG.reward_model}.rewardbench.json"]
        if CONFIG.reward_check
        else []
    ),
    "results/report.html",
    *of_pairs("expo/recipe.json"),
    *all_rewards(),
]
