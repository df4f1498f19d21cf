"""The card of a published model: what it is, how alpha was chosen, scores, limits and risks."""

from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from expoflow.columns import MEASURED
from expoflow.config import Config
from expoflow.config.stages import ExtrapolateConfig
from expoflow.extrapolation.options import RULES
from expoflow.extrapolation.recipe import ExtrapolationRecipe
from expoflow.files import markdown
from expoflow.hub.licence import Licence
from expoflow.reporting.words import certificate_words, optimism_words
from expoflow.results import BenchmarkResult, Best, Certificate, Manifest
from expoflow.selection.criteria import CRITERIA

FIGURE = "sweep.png"
VARIANTS = {"sft": "SFT", "aligned": "aligned", "expo": "ExPO", "expo-aligned": "ExPO - aligned"}
# Columns that alphas.csv may have, and their headings in the card.
SOMETIMES = {
    "quality": "true quality",
    **{name: CRITERIA[name].words for name in MEASURED},
}
LIMITS = """\
ExPO goes further in the direction that alignment training took. What that training rewarded grows stronger, its
mistakes included: responses often become longer, and what only looks good to a reward model is rewarded too. Alpha was
chosen by one measure on one set of prompts; elsewhere (other tasks, languages, long conversations) this model may
be worse than its parents, and nothing here measured whether it is truthful, fair or safe.

A model that follows instructions better also follows bad ones better. It can be asked to fabricate information or to
help with doing damage, and no step of its making taught it to refuse. Before it serves people, train and test it to
recognise and refuse harmful requests, and put moderation around it, such as classifiers of requests and responses
and guardrail prompts (Zheng et al. 2024, Appendix A). The terms of use of both parents hold for this model too."""
CITATION = """\
```bibtex
@article{zheng2024expo,
  title   = {Weak-to-Strong Extrapolation Expedites Alignment},
  author  = {Zheng, Chujie and Wang, Ziqi and Ji, Heng and Huang, Minlie and Peng, Nanyun},
  journal = {arXiv preprint arXiv:2404.16792},
  year    = {2024}
}
```"""


@dataclass(frozen=True)
class Evidence:
    """What a project knows about the exported model of one pair.

    `certificate` is None in results of an earlier version. `alphas` are the rows of its alphas.csv.
    `prompts` is the number of prompts that chose alpha. `models` are the manifests of sft, aligned
    and, if one was used, reward_model.
    """

    pair: str
    config: Config
    recipe: ExtrapolationRecipe
    best: Best
    certificate: Certificate | None
    alphas: list[dict[str, str]]
    benchmarks: list[BenchmarkResult]
    prompts: int
    models: dict[str, Manifest]


def hub_card(evidence: Evidence, repo: str, licence: Licence) -> str:
    """Return the card: Markdown with the metadata block that the hub reads."""
    recipe, models = evidence.recipe, evidence.models
    warnings = "".join(f"\n> {markdown.prose(warning)}\n" for warning in recipe.warnings)
    return f"""---
{_metadata(evidence, licence)}---
# {repo.rpartition("/")[2]}

{_title(evidence)} that was not trained but extrapolated (ExPO,
[Zheng et al. 2024](https://arxiv.org/abs/2404.16792)) from an SFT model (theta0) and the model aligned from it (theta1):

    theta2 = theta1 + alpha * (theta1 - theta0)

| | |
| --- | --- |
| aligned (theta1) | {_source(models["aligned"])} |
| SFT (theta0) | {_source(models["sft"])} |
| alpha | {evidence.best.alpha} |
| effective alpha, after rounding | {_number(recipe.effective_alpha, ".4g")} |
| arithmetic, stored as | {recipe.compute}, {"as the aligned model" if recipe.dtype == "keep" else recipe.dtype} |

Tokenizer, chat template and configuration are the aligned model's.
{warnings}
{_certificate(evidence)}

```python
from transformers import pipeline

chat = pipeline("text-generation", model="{repo}")
print(chat([{{"role": "user", "content": "What is model extrapolation?"}}], max_new_tokens=256)[0]["generated_text"][-1])
```

## How alpha was chosen

{_choice(evidence)}

![{_shown(evidence)} and length of the responses against alpha]({FIGURE})

{_table(_sweep(evidence))}

Length is in tokens; unfinished responses were cut off at the token limit; degenerate ones are empty, unfinished or repeat
themselves. Intervals are bootstrap intervals over prompts{_at_once(evidence)}.
{_benchmarks(evidence)}
## Limits and risks

{LIMITS}

## Make it again

{_commands(evidence)}

{_table([["file", "sha256"], *([name, f"`{value}`"] for name, value in sorted((recipe.outputs or {}).items()))])}

`recipe.json` has the sha256 of every file this model was made from; `expoflow inspect` checks the files here.
Made by expoflow {recipe.provenance["expoflow"]}.

## Citation

{CITATION}
"""


def _shown(evidence: Evidence) -> str:
    """Return what the figure shows over alpha: the reward, or else a criterion; capitalized."""
    known = (each.short for name, each in CRITERIA.items() if any(row.get(name) for row in evidence.alphas))
    words = next(known)
    return words[0].upper() + words[1:]


def _metadata(evidence: Evidence, licence: Licence) -> str:
    parents = [evidence.models[role].source.get("hub") for role in ("aligned", "sft")]
    bases = list(dict.fromkeys(filter(None, parents)))
    merged = {"base_model": bases, "base_model_relation": "merge"} if bases else {}
    metadata = {
        **merged,
        **licence,
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["expo", "model-extrapolation", "merge", "expoflow"],
    }
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)


def _source(manifest: Manifest) -> str:
    """Return a link to a model on the hub, or else its name: a local path tells readers nothing."""
    if hub := manifest.source.get("hub"):
        return f"[{hub}](https://huggingface.co/{hub}) at `{manifest.revision}`"
    return f"`{manifest.model}` (not on the hub)"


def _choice(evidence: Evidence) -> str:
    best, generate = evidence.best, evidence.config.section(evidence.pair, "generate")
    judge = evidence.models.get("reward_model")
    scored = (
        f"the reward model {_source(judge)} scored the responses" if judge else "no reward model was used"
    )
    return f"""\
Every alpha of the table answered {_prompts(evidence)}, {generate.samples} of each (temperature
{generate.temperature:g}, top_k {generate.top_k}, top_p {generate.top_p:g}, presence penalty \
{generate.presence_penalty:g}, frequency penalty {generate.frequency_penalty:g}, seed {generate.seed}, \
{generate.max_tokens} tokens
at most), and {scored}.

Alpha {best.alpha} was taken: {best.reason}. The choice is {"certified on these prompts" if best.certified else "**not certified**"}; \
{best.chosen_share:.0%} of the bootstrap resamples of the prompts would make it.{_gain(evidence)}"""


def _title(evidence: Evidence) -> str:
    """Return the title's words; they say "better-aligned" only if that is certified."""
    certified = evidence.certificate and evidence.certificate.certified
    return "A better-aligned model" if certified else "A model"


def _certificate(evidence: Evidence) -> str:
    """Return the number to quote: the gain on held-out prompts, or why there is none."""
    certificate = evidence.certificate
    if certificate is None:
        return "The run that made this model wrote no certificate: the intervals below ignore that other alphas were tried."
    if not certificate.held_out:
        return "The same prompts chose alpha and judged this model. No other prompts have judged it."
    verdict = ": certified" if certificate.certified else ""
    return f"**Over the aligned model: {certificate_words(certificate)}{verdict}.**"


def _gain(evidence: Evidence) -> str:
    """Return the gain in reward on the prompts that chose alpha, if a reward model was used."""
    best = evidence.best
    if best.reward is None:
        return ""
    aligned = next(row for row in evidence.alphas if row["alpha"] == "0")
    interval = f" [{_number(best.gain_low)}, {_number(best.gain_high)}]" if best.gain_low is not None else ""
    words = optimism_words(best)
    return f"""

On these prompts: reward {_number(aligned["reward"])} (aligned) -> {_number(best.reward)} (this model), gain \
{_number(best.gain)}{interval}{f"; {words}" if words else ""}."""


def _at_once(evidence: Evidence) -> str:
    """Return the scope of the gain's intervals; an earlier version's hold for one alpha each."""
    return "; those of the gain hold for all alphas above 0 at once" if evidence.best.prompts else ""


def _prompts(evidence: Evidence) -> str:
    name = evidence.config.section(evidence.pair, "generate").prompts
    source = evidence.config.prompts[name]
    if source.hub:
        where = f"[{source.hub}](https://huggingface.co/datasets/{source.hub}), split {markdown.code(source.split)}"
    else:
        where = "expoflow's miniature world" if source.miniature else "a file"
    return f"{evidence.prompts} prompts (`{name}`, {where})"


def _sweep(evidence: Evidence) -> list[list[str]]:
    rewarded = evidence.best.reward is not None
    known = [name for name in SOMETIMES if any(row.get(name) for row in evidence.alphas)]
    head = [
        "alpha",
        *(["reward", "gain"] if rewarded else []),
        "length",
        "unfinished",
        "degenerate",
        "effective alpha",
    ]
    rows = [[*head, *(SOMETIMES[name] for name in known)]]
    for row in evidence.alphas:
        alpha = {"0": "0 (aligned)", "-1": "-1 (SFT)"}.get(row["alpha"], row["alpha"])
        rows.append(
            [
                f"**{alpha}**" if row["chosen"] == "1" else alpha,
                *(_rewards(row) if rewarded else ()),
                _number(row["length"], ".1f"),
                _number(row["unfinished"], ".1%"),
                _number(row.get("degenerate"), ".1%"),
                _number(row["effective_alpha"], ".4g"),
                *(_number(row[name]) for name in known),
            ]
        )
    return rows


def _rewards(row: dict[str, str]) -> list[str]:
    """Return the reward and gain of an alpha; alpha 0 has no gain.

    Alphas below 0 cannot be chosen, so their interval is pointwise.
    """
    name = "gain_pointwise" if float(row["alpha"]) < 0 and not row["gain_low"] else "gain"
    low, high = (_number(row.get(f"{name}_{end}")) for end in ("low", "high"))
    gain = _number(row["gain"]) + (f" [{low}, {high}]" if low else "")
    gain = "" if row["alpha"] == "0" else gain
    return [_interval(row, "reward"), gain]


def _benchmarks(evidence: Evidence) -> str:
    if not evidence.benchmarks:
        return "\nNo benchmark was run: the figures above are of the prompts that chose alpha.\n"
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for result in evidence.benchmarks:
        for metric in result.metrics:
            row = cells.setdefault((result.benchmark, metric.metric), {"n": str(metric.n)})
            spread = (
                f" ± {_number(metric.standard_error)}" * (metric.standard_error is not None)
                if metric.low is None
                else f" [{_number(metric.low)}, {_number(metric.high)}]"
            )
            row[result.variant] = f"{_number(metric.value)}{spread}"
    rows = [["benchmark", "metric", *VARIANTS.values(), "n"]]
    rows += [[*key, *(row.get(name, "") for name in (*VARIANTS, "n"))] for key, row in cells.items()]
    return f"""
## Benchmarks

On prompts that took no part in choosing alpha{_left_out(evidence)}. Values ± standard error; the difference is paired by prompt and has an interval.

{_table(rows)}
{_voted(evidence)}"""


def _voted(evidence: Evidence) -> str:
    """Return what the votes of people count, if there are any."""
    for result in evidence.benchmarks:
        if result.benchmark == "human":
            told = result.provenance
            where = "which took no part in choosing alpha" if told["held_out"] else "which chose alpha too"
            return f"""
`human` is the share of votes for ExPO's answer over the aligned model's, with ties counted as half. Voters did not know which model wrote which answer:
{told["votes"]} votes on prompts of `{result.prompts}`, {where}.
"""
    return ""


def _left_out(evidence: Evidence) -> str:
    """Return the exceptions: prompts of a benchmark that chose alpha too."""
    certificate, reward = evidence.certificate, evidence.config.section(evidence.pair, "benchmarks").reward
    if certificate and not certificate.held_out and reward and evidence.config.judged_on(evidence.pair):
        return f", except those of `{reward.prompts}`, which all chose alpha too"
    if certificate is None or not certificate.left_out:
        return ""
    name, count = certificate.judged_on, certificate.left_out
    return f", except {count} of `{name}`, which the gain at the top leaves out"


def _commands(evidence: Evidence) -> str:
    recipe, lines = evidence.recipe, []
    for role in ("sft", "aligned"):
        manifest = evidence.models[role]
        if hub := manifest.source.get("hub"):
            lines.append(f"hf download {hub} --revision {manifest.revision} --local-dir {role}")
    options = "".join(
        f" --{name} {getattr(recipe, name)}"
        for name, field in ExtrapolateConfig.model_fields.items()
        if name in RULES and getattr(recipe, name) != field.default
    )
    lines.append(
        f"expoflow extrapolate --sft sft --aligned aligned --alpha {evidence.best.alpha} --out expo{options}"
    )
    return "\n".join(
        ["With expoflow, from the two parents in `sft` and `aligned`:", "", "```bash", *lines, "```"]
    )


def _table(rows: Iterable[list[str]]) -> str:
    head, *body = rows
    return markdown.markdown_table(head, body, numbers=False).rstrip("\n")


def _interval(row: dict[str, str], name: str) -> str:
    return f"{_number(row[name])} [{_number(row[f'{name}_low'])}, {_number(row[f'{name}_high'])}]"


def _number(value: str | float | None, form: str = ".3f") -> str:
    return "" if value in (None, "") else format(float(value), form)
