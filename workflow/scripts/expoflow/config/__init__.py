"""The config: strict models, the only source of defaults, checks and config/schema.json.

`python -m expoflow.config > config/schema.json` writes the schema; a test fails when it drifts.
"""

import datetime
import json
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from expoflow.config.base import DIFFERENCE, REFERENCE_ALPHAS, Alpha, Name, Strict, check_distinct, spell
from expoflow.config.benchmarks import BenchmarksConfig, PairBenchmarks, RewardCheck
from expoflow.config.claims import ClaimsConfig
from expoflow.config.engine import EngineConfig
from expoflow.config.figures import FIGURES, KINDS, FigureConfig
from expoflow.config.sources import DATE, DataConfig, ModelConfig, PromptsConfig
from expoflow.config.stages import (
    WITHOUT_REWARDS,
    ExtrapolateConfig,
    GenerateConfig,
    PairGenerate,
    PairSelect,
    ScoreConfig,
    SelectConfig,
)
from expoflow.config.theory import TheoryConfig
from expoflow.config.tracking import TrackingConfig


class PairConfig(Strict):
    """An SFT checkpoint, the model aligned from it (or a LoRA adapter on it), and the alphas to
    try."""

    # What is left out is filled in before the config is checked.
    model_config = ConfigDict(json_schema_extra=lambda schema: schema["required"].remove("sft"))

    sft: Name
    """theta0: the model that alignment started from. If `aligned` is an adapter in a folder, the
    default is its base."""
    aligned: Name
    """theta1: the model after DPO or RLHF."""
    alphas: Annotated[list[Alpha], AfterValidator(check_distinct)] = Field(min_length=1)
    """Extrapolation lengths. 0 (aligned) and -1 (sft) are always added."""
    generate: PairGenerate | None = None
    """Overrides of `generate` for this pair."""
    select: PairSelect | None = None
    """Overrides of `select` for this pair."""
    benchmarks: PairBenchmarks | None = None
    """Overrides of `benchmarks` for this pair."""
    paper: str | None = None
    """The paper's model that this pair repeats, such as `DPO (20% data)`. The published values are
    shown beside this pair's."""
    trained_on_dev: Name | None = None
    """Another pair: its aligned model is this pair's, trained further on the prompts that choose
    alpha (Appendix F)."""
    unrelated: bool = False
    """The aligned model was not trained from the SFT model (section 4.4). Such a pair is refused
    unless this is true."""

    def grid(self) -> list[str]:
        """Canonical alphas in ascending order, -1 and 0 included."""
        return sorted({spell(alpha) for alpha in self.alphas} | set(REFERENCE_ALPHAS), key=float)


class Config(Strict):
    """A whole expoflow config."""

    seed: int = Field(42, ge=0)
    """Seed of everything that the miniature makes and trains."""
    limit: int | None = Field(None, ge=2)
    """A rehearsal (`expoflow run --limit`): use only the first prompts of every prompt set, and the
    first questions of every benchmark. Its numbers are not results and are marked as a rehearsal.
    Training takes as long as usual."""
    date: datetime.date = datetime.date.fromisoformat(DATE)
    """The day that chat templates with `strftime_now` write into prompts."""
    models: dict[Name, ModelConfig]
    """Checkpoints by name."""
    datasets: dict[Name, DataConfig] = {}
    """Training datasets by name. Each has exactly one of `file` and `hub`."""
    pairs: dict[Name, PairConfig] = Field(min_length=1)
    """Pairs to extrapolate, by name."""
    prompts: dict[Name, PromptsConfig]
    """Prompt sets by name."""
    reward_model: Name | None = None
    """The reward model: its raw logit is the reward of a response. Without one, alpha is chosen by
    nll or implicit."""
    engine: EngineConfig = EngineConfig()
    generate: GenerateConfig = GenerateConfig()
    score: ScoreConfig = ScoreConfig()
    extrapolate: ExtrapolateConfig = ExtrapolateConfig()
    select: SelectConfig = SelectConfig()
    benchmarks: BenchmarksConfig = BenchmarksConfig()
    theory: TheoryConfig | None = None
    figures: dict[Name, FigureConfig] | None = None
    """Figures by name. Without this section: sweep, path and histograms of all pairs, and the
    figures of `theory`."""
    claims: ClaimsConfig | None = None
    """Which pairs answer which claim of the paper. Without it, results/claims.csv is not made."""
    tracking: TrackingConfig | None = None
    """Where MLflow keeps a copy of the tables and figures. Without it, no copy is sent."""

    @model_validator(mode="before")
    @classmethod
    def _is_chosen_without_rewards(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("reward_model") is None:
            select = data.get("select", {})
            return {
                **data,
                "select": {"by": WITHOUT_REWARDS, **select} if isinstance(select, dict) else select,
            }
        return data

    def drawn(self) -> dict[str, FigureConfig]:
        """The figures to draw, each with its pairs. A figure that no pair can fill is left out."""
        figures = FIGURES | self._of_theory() if self.figures is None else self.figures
        filled = {
            name: figure.model_copy(update={"pairs": figure.named() or self._able(figure)})
            for name, figure in figures.items()
        }
        return {
            name: figure
            for name, figure in filled.items()
            if figure.pairs and (self.reward_model or not figure.shows_rewards())
        }

    def _of_theory(self) -> dict[str, FigureConfig]:
        """The figures of the section `theory`, if the config has one."""
        if self.theory is None:
            return {}
        kinds = [
            name
            for name, kind in KINDS.items()
            if kind.theory and kind.default and (self.kin() or not kind.kin)
        ]
        planes = {
            name: FigureConfig(kind="plane", plane=name)
            for name in self.theory.planes
            if name not in (*FIGURES, *kinds)
        }
        return {kind: FigureConfig(kind=kind) for kind in kinds} | planes

    def _able(self, figure: FigureConfig) -> list[str]:
        """The pairs that have the data a figure shows."""
        if figure.plane is not None:
            return self.theory.planes[figure.plane].pairs
        if KINDS[figure.kind].kin:
            return [pair for pairs in self.kin().values() for pair in pairs]
        needed = set(figure.benchmarks())
        return [pair for pair in self.pairs if needed <= set(self.section(pair, "benchmarks").names())]

    def kin(self) -> dict[str, list[str]]:
        """The pairs that share their SFT model with another pair, by SFT model."""
        families: dict[str, list[str]] = {}
        for name, pair in self.pairs.items():
            families.setdefault(pair.sft, []).append(name)
        return {sft: pairs for sft, pairs in families.items() if len(pairs) > 1}

    reward_check: RewardCheck | None = None

    def claims_basis(self) -> str:
        """Canonical JSON of what the claims of a run depend on besides its results."""
        parts = {"claims", "models", "pairs", "generate", "reward_model"}
        return self.canonical(include=parts, exclude={"pairs": {"__all__": {"benchmarks"}}})

    def labellers(self, model: str) -> list[str]:
        """The reward models that labelled the training data of `model`, or of a model it was
        trained from."""
        found, name = [], model
        while name:
            found.append(self.models[name].reward_model)
            name = self.models[name].base
        return sorted({each for each in found if each})

    def judged_on(self, pair: str) -> str | None:
        """The prompt set that judges the pair's choice of alpha on unseen prompts, or None."""
        reward = self.section(pair, "benchmarks").reward
        if self.section(pair, "select").judge is not None:
            return self.section(pair, "generate").prompts
        return reward.prompts if reward and self.reward_model else None

    def setting(self, pair: str, name: str) -> float | None:
        """A number from the training recipe of the pair's aligned model."""
        value = getattr(self.models[self.pairs[pair].aligned].train, name, None)
        return 1.0 if value is None and name == "until" else value

    def engine_of(self, model: str) -> EngineConfig:
        """The section `engine` for a model: the common keys, overridden by the model's own."""
        own = self.models[model].engine.model_dump(exclude_unset=True)
        return self.engine.model_copy(update=own)

    def usage(self, model: str) -> str:
        """Canonical JSON of the settings that affect how a model is run: see
        `ModelConfig.usage`."""
        return self.models[model].usage(self.date, self.engine_of(model))

    def usages(self, model: str) -> dict[str, str]:
        """How the models that a training needs are run, by role.

        Engine settings count only if an engine writes the responses that the model learns from.
        """
        source = self.models[model]
        writes = hasattr(source.train, "iterations") and source.train.trainer == "trl"
        return {
            role: self.usage(each) if writes else self.models[each].usage(self.date)
            for role, each in source.needed().items()
        }

    def free_engines(self) -> str:
        """JSON of the engine settings that no result depends on, by model. Jobs read it from
        $EXPOFLOW_ENGINE."""
        found = {name: self.engine_of(name).free() for name in self.models}
        return json.dumps({name: given for name, given in found.items() if given})

    def section(self, pair: str, name: str) -> Any:
        """Section `name` (generate, select or benchmarks) with the overrides of `pair` and `limit`
        applied."""
        section, override = getattr(self, name), getattr(self.pairs[pair], name)
        if override is not None:
            changed = section.model_dump(exclude_none=True) | override.model_dump(exclude_none=True)
            section = type(section).model_validate(changed)
        return _first(section, self.limit) if self.limit and name == "benchmarks" else section


def _first(benchmarks: BenchmarksConfig, count: int) -> BenchmarksConfig:
    """The benchmarks of a rehearsal.

    A benchmark with a key `limit` asks at most the first `count` documents of every task. Votes of
    people are left out.
    """
    changed: dict[str, Any] = {
        name: section.model_copy(update={"limit": min(count, section.limit or count)})
        for name, section in benchmarks.sections().items()
        if "limit" in type(section).model_fields
    }
    # people voted on the answers of the whole run, not on those of a rehearsal
    changed |= {
        name: None for name, section in benchmarks.sections().items() if DIFFERENCE in section.RESULTS
    }
    return benchmarks.model_copy(update=changed)


def _inherit_texts(section: type[Strict]) -> None:
    """Give a key that a section redefines the text of the section that it is redefined from."""
    for each in section.__subclasses__():
        for name, field in each.model_fields.items():
            inherited = section.model_fields.get(name)
            if inherited is not None and field.description is None:
                field.description = inherited.description
        _inherit_texts(each)


def schema() -> str:
    """config/schema.json: JSON schema of the whole config, for editors."""
    _inherit_texts(Strict)
    return json.dumps(Config.model_json_schema(by_alias=True), indent=2, ensure_ascii=False) + "\n"
