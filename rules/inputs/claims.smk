# Input functions and lists of the rules in claims.smk.
LABELLERS = {
    pair: next(
        name
        for name in CONFIG.labellers(CONFIG.pairs[pair].aligned)
        if name != CONFIG.reward_model
    )
    for pair in (CONFIG.claims.labelled if CONFIG.claims else [])
}


def claim_inputs():
    """Inputs of the claims beside the joint tables: responses, scores of other reward models."""
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


# Outputs of the section `theory`.
MEASURED = [
    *of_pairs("theory.json" if CONFIG.theory else []),
    *(["results/cosines.csv"] if CONFIG.theory and CONFIG.kin() else []),
    *expand(
        "results/planes/{plane}.csv",
        plane=CONFIG.theory.planes if CONFIG.theory else [],
    ),
]
RESULTS_OF_ALL += MEASURED
if CONFIG.claims:
    RESULTS_OF_ALL.append("results/claims.csv")
