# What the rules of benchmarks have in common. What is particular to one, its section in the config says
# (config/benchmarks.py) or its own rule.
def of_variant(wildcards):
    """The name of the model that a variant is of the size of."""
    return of_pair("sft" if wildcards.variant == "sft" else "aligned")(wildcards)


def variant_model(wildcards):
    """What stands for a variant's model: the manifest of sft or aligned, the recipe of expo."""
    if wildcards.variant == "expo":
        return f"results/pairs/{wildcards.pair}/expo/recipe.json"
    return manifest(getattr(CONFIG.pairs[wildcards.pair], wildcards.variant))


def variant_base(wildcards):
    """The base of a variant that may be an adapter, which is no model without it."""
    return [manifest(CONFIG.pairs[wildcards.pair].sft)] * (
        wildcards.variant == "aligned"
    )


def settings(pair, benchmark):
    """A benchmark's section, None where the pair has not this benchmark."""
    return getattr(CONFIG.section(pair, "benchmarks"), benchmark)


def settings_of(benchmark):
    """Parameter: what of a benchmark's section its result depends on."""
    return lambda wildcards: settings(wildcards.pair, benchmark).identity()


def files_of(benchmark):
    """Input function: what a benchmark's jobs read beside the model, by name."""
    return lambda wildcards: settings(wildcards.pair, benchmark).inputs()


def compared_files(wildcards):
    """Input function: what a comparison reads beside the rows of both variants, by name."""
    section = settings(wildcards.pair, wildcards.benchmark)
    return {
        name: file
        for name, file in section.inputs().items()
        if name in section.COMPARED
    }


def sources(benchmark):
    """The different sections of a benchmark over all pairs, by the name of the source of their files."""
    sections = [settings(pair, benchmark) for pair in CONFIG.pairs]
    return {each.source_name(): each for each in sections if each}


# A comparison may need what its benchmark does.
COMPARING = (
    "benchmarks"
    if any(
        section.PACKAGES
        for pair in CONFIG.pairs
        for section in CONFIG.section(pair, "benchmarks").sections().values()
    )
    else "expoflow"
)
