"""The benchmarks on which sft, aligned and expo are compared."""

import re
from typing import Annotated, Any, ClassVar, Self, get_args

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from expoflow.config.base import (
    DIFFERENCE,
    MINIATURE,
    REVISION,
    Name,
    PathName,
    Strict,
    check_endpoint,
    check_repository,
    partial,
)
from expoflow.config.benchmark import INCIDENTAL, Benchmark
from expoflow.config.harness import Harness, LmEvalBenchmark, OpenLlmBenchmark
from expoflow.config.stages import PairGenerate
from expoflow.paths import RESULTS


def _check_judge(value: str) -> str:
    return value if value == MINIATURE else check_endpoint(value)


def _check_variable(value: str) -> str:
    if not re.fullmatch(r"([A-Za-z_][A-Za-z0-9_]*)?", value):
        raise PydanticCustomError(
            "variable",
            "names an environment variable such as OPENAI_API_KEY; do not put the key itself here",
        )
    return value


class Price(Strict):
    """What a model's tokens cost, in USD per million."""

    input: float = Field(ge=0)
    """Of prompts."""
    output: float = Field(ge=0)
    """Of replies."""


class JudgeConfig(Strict):
    """A model that judges responses, served by any OpenAI-compatible endpoint."""

    base_url: Annotated[str, AfterValidator(_check_judge)] = "https://api.openai.com/v1"
    """The endpoint without /chat/completions. `miniature` starts one on this machine that knows the
    truth."""
    model: str = Field("gpt-4", min_length=1)
    """The judge's name at the endpoint."""
    api_key_env: Annotated[str, AfterValidator(_check_variable)] = "OPENAI_API_KEY"
    """The environment variable that holds the key; empty if the endpoint needs none."""
    max_cost: float | None = Field(None, ge=0)
    """USD that this benchmark may cost in this folder in total. A call that might exceed it is not
    made."""
    prices: dict[str, Price] = {
        "gpt-4": Price(input=30, output=60),
        "gpt-4-1106-preview": Price(input=10, output=30),
    }
    """Prices by model."""
    concurrency: int = Field(8, ge=1)
    """Number of concurrent calls."""
    timeout: float = Field(120, gt=0)
    """Seconds after which a call counts as hung."""
    retries: int = Field(4, ge=0)
    """Retries of a call that failed or returned an unreadable verdict."""
    backoff: float = Field(1, ge=0)
    """Seconds before the first retry, doubled before every further one. A Retry-After header takes
    precedence."""

    @model_validator(mode="after")
    def _has_price(self) -> Self:
        if self.max_cost is not None and self.model not in self.prices:
            raise PydanticCustomError(
                "price",
                "max_cost needs the price of '{model}'; add prices: {'{model}': {input: USD, output: USD}}",
                {"model": self.model},
            )
        return self

    def identity(self) -> str:
        """Canonical JSON of what a verdict depends on."""
        return self.canonical(exclude=INCIDENTAL)


class OnPrompts(Benchmark):
    """Base of the benchmarks on one of the config's prompt sets. The comparison reads the prompts
    too."""

    COMPARED = frozenset({"prompts"})

    prompts: Name
    """A prompt set that took no part in choosing alpha."""

    def inputs(self) -> dict[str, str]:
        """The prompt set's file."""
        return {"prompts": str(RESULTS.prompts(self.prompts))}


class RewardBenchmark(OnPrompts):
    """Reward on a prompt set of its own. On the miniature's prompts also true quality and accuracy,
    which need no reward_model."""

    TASKS = ("generate", "score")
    REWARDS = ("reward", "win_rate")
    READABLE = True


class AlpacaEvalBenchmark(Benchmark):
    """AlpacaEval 2.0: win rates against reference outputs, raw and length-controlled."""

    TASKS = ("generate", "score")
    PACKAGES = ("alpaca_eval", "openai")
    REWARDS = ("reward",)
    COMPARED = frozenset({"df_gamed"})
    READABLE = True
    ASKED = "reference"
    HUB_FILES: ClassVar[dict[str, str]] = {
        "reference": "alpaca_eval_gpt4_baseline.json",
        "df_gamed": "df_gamed.csv",
    }
    """By setting: the file's name in the dataset tatsu-lab/alpaca_eval."""
    FILES: ClassVar[tuple[str, ...]] = (*HUB_FILES, "instruction_difficulty")
    """The settings that name a file."""
    APART = frozenset({"reference", "df_gamed", "instruction_difficulty", "hub", "revision"})
    SOURCE = frozenset({"hub", "revision"})

    reference: PathName | None = None
    """The reference outputs as JSON: {instruction, output} each, the 805 of GPT-4 Turbo in the
    official order. `miniature` makes some about the built-in world."""
    df_gamed: PathName | None = None
    """The dataset's df_gamed.csv. Without it, no length-controlled win rate is computed."""
    instruction_difficulty: PathName | None = None
    """The dataset's instruction_difficulty.csv, which is checked against df_gamed."""
    hub: Annotated[str, AfterValidator(check_repository)] | None = None
    """The dataset that provides the files not given here: tatsu-lab/alpaca_eval."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    annotator: str = Field("weighted_alpaca_eval_gpt4_turbo", min_length=1)
    """Prompt and parser of the verdicts: the name of one of alpaca_eval's, or the path of a folder
    (with a slash)."""
    generate: PairGenerate | None = None
    """Overrides of the run's `generate`, field by field."""
    judge: JudgeConfig = JudgeConfig(model="gpt-4-1106-preview")
    """The model that compares."""

    @model_validator(mode="before")
    @classmethod
    def _has_its_judge(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("judge"), dict):
            return {**data, "judge": {"model": "gpt-4-1106-preview", **data["judge"]}}
        return data

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if self.reference is None and self.hub is None:
            raise PydanticCustomError(
                "source", "a source is needed; give reference: FILE or hub: tatsu-lab/alpaca_eval"
            )
        return self

    def inputs(self) -> dict[str, str]:
        """Its files by setting. The rule alpaca_eval_data writes those of the hub and of the
        miniature."""
        found = {}
        for name in self.FILES:
            path = getattr(self, name)
            if path == MINIATURE or (path is None and self.hub and name in self.HUB_FILES):
                path = str(RESULTS.alpaca_eval(self.source_name(), self.HUB_FILES[name]))
            if path:
                found[name] = path
        return found

    def made(self) -> bool:
        """Whether the miniature writes the reference outputs."""
        return self.reference == MINIATURE

    def source(self) -> str:
        """Canonical JSON of where the non-local files come from."""
        made = {"reference"} if self.made() else set()
        return self.canonical(include=self.SOURCE | made)


class MtBenchBenchmark(Benchmark):
    """MT-Bench: 80 questions with two turns. Each answer is graded from 1 to 10."""

    PACKAGES = ("openai",)
    READABLE = True
    ASKED = "data"
    APART = SOURCE = frozenset({"data", "hub", "revision"})

    data: PathName | None = None
    """A folder with FastChat's files (fastchat/llm_judge/data): judge_prompts.jsonl,
    question.jsonl, reference_answer/gpt-4.jsonl, directly in it or in subfolders. `miniature` makes
    such files about the built-in world."""
    hub: Annotated[str, AfterValidator(check_repository)] | None = None
    """A dataset of the hub with these files, instead of `data`."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    judge: JudgeConfig = JudgeConfig()
    """The model that grades."""
    max_tokens: int = Field(1024, ge=1)
    """Maximum number of tokens per answer."""
    seed: int = Field(42, ge=0)
    """Seed of the sampled answers: those to writing, roleplay, stem and humanities."""

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if (self.data is None) == (self.hub is None):
            raise PydanticCustomError("source", "one source is needed; give data: FOLDER or hub: ORG/NAME")
        return self

    def inputs(self) -> dict[str, str]:
        """Questions, judge prompts and reference answers, in one file from the rule
        mt_bench_data."""
        return {"data": str(RESULTS.benchmark_data("mt_bench", self.source_name()))}

    def made(self) -> bool:
        """Whether the miniature makes the questions."""
        return self.data == MINIATURE


class HumanBenchmark(Benchmark):
    """Blind votes of people on two answers to a prompt: how often expo's is preferred to aligned's.
    A rehearsal leaves it out."""

    TASKS = ()
    RESULTS = (DIFFERENCE,)
    COMPARED = frozenset({"votes"})

    votes: PathName
    """The file that the pair's page answers.html saves, one vote per line. Files of several voters
    and pairs can be concatenated."""

    def inputs(self) -> dict[str, str]:
        """The votes."""
        return {"votes": self.votes}


class RewardCheck(Strict):
    """How often the reward model prefers the chosen response. The choice of alpha can only be as
    good as that.

    Give exactly one of `file`, `hub` and `miniature`.
    """

    file: PathName | None = None
    """Preferences as JSON lines, CSV or Parquet. Relative paths are resolved like a model's
    `path`."""
    hub: Annotated[str, AfterValidator(check_repository)] | None = None
    """A dataset of the hub. RewardBench is allenai/reward-bench, with split: filtered and subset:
    subset."""
    revision: str | None = Field(None, pattern=REVISION)
    """Commit, tag or branch of `hub`."""
    miniature: bool = False
    """Use preferences of the built-in world that no model was trained on."""
    split: str = "train"
    """The split of `hub`."""
    prompt: str = "prompt"
    """The column of the prompt: a text, or a list of {role, content} messages."""
    chosen: str = "chosen"
    """The column of the better response: a text, or a list of messages that ends with it."""
    rejected: str = "rejected"
    """The column of the worse response."""
    subset: str | None = None
    """A column; the accuracy is also reported for each of its values."""

    @model_validator(mode="after")
    def _has_source(self) -> Self:
        if [self.file is not None, self.hub is not None, self.miniature].count(True) != 1:
            raise PydanticCustomError(
                "source", "one source is needed; give file: FILE, hub: ORG/NAME or miniature: true"
            )
        if self.revision and not self.hub:
            raise PydanticCustomError("revision", "revision belongs to hub; remove it, or give hub")
        return self


class BenchmarksConfig(Strict):
    """The benchmarks on which sft, aligned and expo are compared."""

    reward: RewardBenchmark | None = None
    alpaca_eval: AlpacaEvalBenchmark | None = None
    mt_bench: MtBenchBenchmark | None = None
    open_llm: OpenLlmBenchmark | None = None
    lm_eval: LmEvalBenchmark | None = None
    human: HumanBenchmark | None = None

    def sections(self) -> dict[str, Benchmark]:
        """The benchmarks that are switched on, by name."""
        return {name: section for name in SECTIONS if (section := getattr(self, name)) is not None}

    def names(self) -> list[str]:
        """The names of the benchmarks that are switched on."""
        return list(self.sections())

    def harnesses(self) -> dict[str, Harness]:
        """The benchmarks that lm-eval runs, by name."""
        return {name: each for name, each in self.sections().items() if isinstance(each, Harness)}


PairBenchmarks: Any = partial(BenchmarksConfig)


# The sections of all benchmarks, by name.
SECTIONS: dict[str, type[Benchmark]] = {
    name: get_args(field.annotation)[0] for name, field in BenchmarksConfig.model_fields.items()
}
BENCHMARKS = tuple(SECTIONS)
