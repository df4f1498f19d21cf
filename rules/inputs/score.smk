# Input functions and lists of the rules in score.smk.
from expoflow.selection import criteria


def likelihoods(wildcards):
    """Input function: the likelihoods that choose the pair's alpha, or that are compared.

    Empty if neither needs them.
    """
    if not scored_under(wildcards):
        return []
    return of_grid("{folder}/{prompts}.likelihoods.csv")(wildcards)


def scored_under(wildcards):
    """Names of the models that score the pair's responses."""
    return criteria.scored_under(CONFIG.section(wildcards.pair, "select"))


def all_rewards():
    return [
        f"{alpha_folder(pair, alpha)}/{sweep_prompts(pair)}.rewards.csv"
        for pair in CONFIG.pairs
        for alpha in CONFIG.pairs[pair].grid()
    ]


# Snakemake makes a deleted file again only if it is a target.
RESULTS_OF_ALL += all_rewards()
