# Input functions and lists of the rules in benchmark.smk.
from expoflow.benchmarks import bill
from expoflow.benchmarks.lm_eval.files import local_files as lm_eval_files
from expoflow.benchmarks.mt_bench.files import local_files as mt_bench_files
from expoflow.benchmarks.open_llm.files import local_files as open_llm_files
from expoflow.benchmarks.open_llm.tasks import task_files
from expoflow.config.base import DIFFERENCE
from expoflow.config.benchmarks import BENCHMARKS, SECTIONS, AlpacaEvalBenchmark


def of_variant(wildcards):
    """The name of a model with the size of a variant."""
    return of_pair("sft" if wildcards.variant == "sft" else "aligned")(wildcards)


def variant_model(wildcards):
    """The file of a variant's model: the manifest of sft or aligned, or the recipe of expo."""
    if wildcards.variant == "expo":
        return f"results/pairs/{wildcards.pair}/expo/recipe.json"
    return manifest(getattr(CONFIG.pairs[wildcards.pair], wildcards.variant))


def variant_base(wildcards):
    """The base of a variant that may be an adapter."""
    return [manifest(CONFIG.pairs[wildcards.pair].sft)] * (
        wildcards.variant == "aligned"
    )


def settings(pair, benchmark):
    """A benchmark's section; None if the pair does not have this benchmark."""
    return getattr(CONFIG.section(pair, "benchmarks"), benchmark)


def settings_of(benchmark):
    """Parameter: the part of a benchmark's section that its result depends on."""
    return lambda wildcards: settings(wildcards.pair, benchmark).identity()


def files_of(benchmark):
    """Input function: the files that a benchmark's jobs read beside the model, by name.

    In a rehearsal they have only the first questions.
    """
    asked = SECTIONS[benchmark].ASKED

    def files(wildcards):
        found = settings(wildcards.pair, benchmark).inputs()
        if CONFIG.limit and asked:
            first = f"results/benchmarks/first/{wildcards.pair}.{benchmark}.json"
            found = {**found, asked: first}
        return found

    return files


def whole_questions(wildcards):
    """Input function: the file with all questions of a benchmark."""
    section = settings(wildcards.pair, wildcards.benchmark)
    return section.inputs()[section.ASKED]


def rows_of(pair, benchmark):
    """The rows of expo and of aligned, by name."""
    return {
        variant: f"results/pairs/{pair}/benchmarks/{variant}/{benchmark}.generations.jsonl"
        for variant in ("expo", "aligned")
    }


def compared_files(wildcards):
    """Input function: the files that a comparison reads, by name.

    They are the rows of both variants, or all answers that could be compared, and the benchmark's
    own files.
    """
    pair, benchmark = wildcards.pair, wildcards.benchmark
    section = settings(pair, benchmark)
    own = {
        name: file
        for name, file in section.inputs().items()
        if name in section.COMPARED
    }
    if DIFFERENCE not in section.RESULTS:
        return {**own, **rows_of(pair, benchmark)}
    return {
        **own,
        "answers": f"results/pairs/{pair}/answers.parquet",
        "model": f"results/pairs/{pair}/expo/recipe.json",
        **(rows_of(pair, "reward") if settings(pair, "reward") else {}),
    }


def held_out(wildcards):
    """Input function: the files that judge a pair's choice on held-out prompts, by name.

    Empty if there are no such prompts.
    """
    pair = wildcards.pair
    if CONFIG.judged_on(pair) is None:
        return {}
    if CONFIG.section(pair, "select").judge is not None:
        return {
            "rewards": of_grid("{folder}/{prompts}.rewards.csv")(wildcards),
            "likelihoods": likelihoods(wildcards),
        }
    return {
        "compared": f"results/pairs/{pair}/benchmarks/expo-aligned/reward.json",
        **rows_of(pair, "reward"),
    }


def sources(benchmark):
    """The different sections of a benchmark over all pairs, by the name of their source."""
    sections = [settings(pair, benchmark) for pair in CONFIG.pairs]
    return {each.source_name(): each for each in sections if each}


# A comparison may need the packages of its benchmark.
COMPARING = (
    "benchmarks"
    if any(
        section.PACKAGES
        for pair in CONFIG.pairs
        for section in CONFIG.section(pair, "benchmarks").sections().values()
    )
    else "expoflow"
)


def benchmark_results(variants, benchmarks=BENCHMARKS):
    """The results of `variants` on the `benchmarks` of every pair.

    Some benchmarks have only the difference.
    """
    return [
        f"results/pairs/{pair}/benchmarks/{variant}/{benchmark}.json"
        for pair in CONFIG.pairs
        for benchmark, section in CONFIG.section(pair, "benchmarks").sections().items()
        for variant in variants
        if benchmark in benchmarks and variant in (*section.RESULTS, DIFFERENCE)
    ]


ALPACA_EVAL = sources("alpaca_eval")
MT_BENCH = sources("mt_bench")
OPEN_LLM = sources("open_llm")
LM_EVAL = sources("lm_eval")

if CONFIG.reward_check:
    RESULTS_OF_ALL.append(f"results/models/{CONFIG.reward_model}.rewardbench.json")
# The most that judges may cost, shown before anything is paid for.
if workflow.is_main_process:
    for line in bill.lines(CONFIG):
        print(line, file=sys.stderr)
