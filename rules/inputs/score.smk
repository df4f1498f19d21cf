# What the rules of score.smk ask: input functions, and lists.
from expoflow.selection import criteria


def likelihoods(wildcards):
    """Input function: the likelihoods that the pair's alpha is chosen by, or compared by; else none."""
    if not scored_under(wildcards):
        return []
    return of_grid("{folder}/{prompts}.likelihoods.csv")(wildcards)


def scored_under(wildcards):
    """Names of the models under which the pair's responses are scored."""
    return criteria.scored_under(CONFIG.section(wildcards.pair, "select"))


def all_rewards():
    return [
        f"{alpha_folder(pair, alpha)}/{sweep_prompts(pair)}.rewards.csv"
        for pair in CONFIG.pairs
        for alpha in CONFIG.pairs[pair].grid()
    ]


# Snakemake remakes a deleted file only if it is asked for.
RESULTS_OF_ALL += all_rewards()
