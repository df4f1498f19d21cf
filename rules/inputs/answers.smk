# Input functions and lists of the rules in answers.smk.


def readable_benchmarks(wildcards):
    """Parameter: the names of the files that each readable benchmark needs, by benchmark."""
    sections = CONFIG.section(wildcards.pair, "benchmarks").sections()
    return {
        name: [*files_of(name)(wildcards)]
        for name, section in sections.items()
        if section.READABLE
    }


def read_answers(wildcards):
    """Input function: these files and the rows of sft, aligned and expo, by benchmark."""
    found = {}
    for name in readable_benchmarks(wildcards):
        folder = f"results/pairs/{wildcards.pair}/benchmarks"
        found[f"{name}_rows"] = [
            f"{folder}/{variant}/{name}.generations.jsonl" for variant in VARIANTS
        ]
        for key, file in files_of(name)(wildcards).items():
            found[f"{name}_{key}"] = file
    return found


RESULTS_OF_ALL += [*of_pairs("answers.parquet"), *of_pairs("answers.html")]
