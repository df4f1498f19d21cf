"""Heads of reward models: their names in files, and models without a single linear head.

Classifiers in transformers call their head `score` (Llama, Mistral, Qwen2, Gemma) or `classifier`
(encoders). Trainers of reward models have other names for the same matrix of shape (1, hidden
size). It is loaded under transformers' name.
"""

import re
from collections.abc import Iterable, Mapping

# The one linear layer of OpenRLHF, TRL, Eurus and UltraRM, and others: `NAME.weight`.
LINEAR = ("value_head", "v_head", "v_head.summary", "regression_head", "reward_head", "rm_head")
HEAD = "score"
# The remedy: a model that transformers computes correctly.
USUAL = "take a reward model with one linear head, such as Skywork/Skywork-Reward-V2-Llama-3.1-8B"
# By an entry of `architectures` in config.json: why the reward is not computed here.
OTHERS = {
    "LlamaForRewardModelWithGating": f"its reward is a gated mixture of 19 heads, which only its own code computes; {USUAL}",
    "INFORMForSequenceClassification": f"its head has two layers, which only its own code computes; {USUAL}",
    "InternLM2ForRewardModel": f"internlm2 is run by code of its repository alone; {USUAL}",
    "DebertaV2PairRM": f"it compares two responses and has no reward for one; {USUAL}",
    "LlamaForRewardModelWithMargin": f"its reward is computed by its own code; {USUAL}",
}
DEEP = re.compile(r"^(score|value_head|v_head|reward_head|regression_head|classifier)\.\d+\.weight$")
PAIR_RANKER = re.compile(r"^(pretrained_model|ranker)\.|\.bilinear\.")


def refused(config: Mapping[str, object], names: Iterable[str]) -> str | None:
    """Why a reward model with this config.json and these tensors is refused, with the remedy; None
    if it is not."""
    said = config.get("architectures")
    for architecture in said if isinstance(said, list) else ():
        if isinstance(architecture, str) and architecture in OTHERS:
            return f"{architecture}: {OTHERS[architecture]}"
    for name in names:
        if DEEP.search(name):
            return f"{name}: its head has several layers, which only its own code computes; {USUAL}"
        if PAIR_RANKER.search(name):
            return f"{name}: {OTHERS['DebertaV2PairRM']}"
    return None


def renamed(names: Iterable[str]) -> dict[str, str]:
    """Transformers' name of the head by its name in the files, if the two differ."""
    return {f"{head}.weight": f"{HEAD}.weight" for head in LINEAR if f"{head}.weight" in set(names)}


def logits(shapes: Mapping[str, tuple[int, ...]]) -> int | None:
    """The number of logits, from the rows of the head under any of its names; None if no head is
    found."""
    heads = (f"{head}.weight" for head in (HEAD, *LINEAR))
    return next((shapes[head][0] for head in heads if head in shapes and len(shapes[head]) == 2), None)
