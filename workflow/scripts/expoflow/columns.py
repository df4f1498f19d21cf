"""The columns of every CSV."""

from typing import get_args

from expoflow.config.stages import Criterion

# The criteria besides the reward. alphas.csv has the value of each, and the interval of its change
# from alpha 0.
MEASURED = tuple(name for name in get_args(Criterion) if name != "reward")

# The name of every criterion's change from alpha 0.
CHANGES = ("gain", *(f"{name}_change" for name in MEASURED))

REWARD_COLUMNS = (
    "pair",
    "alpha",
    "prompts",
    "prompt_id",
    "sample",
    "reward",
    "response_tokens",
    "finish_reason",
    "engine",
    "quality",
    "correct",
    "degenerate",
)
LIKELIHOOD_COLUMNS = (
    "pair",
    "alpha",
    "prompts",
    "prompt_id",
    "sample",
    "tokens",
    "logp_sft",
    "logp_aligned",
    "logp_own",
)

ALPHA_COLUMNS = (
    "pair",
    "alpha",
    "reward",
    "reward_low",
    "reward_high",
    "gain",
    "gain_low",
    "gain_high",
    "p_value",
    "length",
    "unfinished",
    "effective_alpha",
    "chosen_share",
    "chosen",
    "quality",
    "accuracy",
    *MEASURED,
    *(f"{name}_change_{end}" for name in MEASURED for end in ("low", "high")),
    "empty",
    "repeating",
    "degenerate",
    "degenerate_change",
    "degenerate_change_low",
    "degenerate_change_high",
    *(f"{name}_pointwise_{end}" for name in CHANGES for end in ("low", "high")),
)
BENCHMARK_COLUMNS = (
    "pair",
    "variant",
    "benchmark",
    "metric",
    "value",
    "standard_error",
    "n",
    "low",
    "high",
    "p_value",
)
SUMMARY_COLUMNS = (
    "pair",
    "best_alpha",
    "certified",
    "reward_aligned",
    "reward_expo",
    "gain",
    "gain_low",
    "gain_high",
    "quality_aligned",
    "quality_expo",
    "nll_aligned",
    "nll_expo",
    "optimism",
    "certificate",
    "certificate_measure",
    "certificate_gain",
    "certificate_low",
    "certificate_high",
    "certificate_prompts",
    "judged_on",
    "looks",
)
