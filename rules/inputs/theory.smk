# Input functions and lists of the rules in theory.smk.
from expoflow.config.recipes import MiniatureDpo


def theory_prompts(pair):
    """The prompt set for the pair's expected reward and planes."""
    return f"results/prompts/{CONFIG.theory.prompts or sweep_prompts(pair)}.jsonl"


def of_plane(path):
    """Input function: `path` for both pairs of a plane."""
    return lambda wildcards: [
        path.format(pair=pair) for pair in CONFIG.theory.planes[wildcards.plane].pairs
    ]


def plane_pair(wildcards):
    """The first pair of a plane. Its tokenizer, template and sampling are used."""
    return CONFIG.theory.planes[wildcards.plane].pairs[0]


def members(name, pairs):
    """The manifests of the sft or aligned models of `pairs`."""
    return [manifest(getattr(CONFIG.pairs[pair], name)) for pair in pairs]


def plane_aligned(wildcards):
    """The aligned model of a plane's first pair."""
    return CONFIG.pairs[plane_pair(wildcards)].aligned


def bootstrap(wildcards):
    """Parameter function: the settings of intervals."""
    pair = wildcards.get("pair") or plane_pair(wildcards)
    return CONFIG.section(pair, "select").canonical(include={"confidence", "resamples"})
