"""Benchmarks that lm-eval runs: the Open LLM Leaderboard, and any other of its tasks."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from expoflow.config.base import MINIATURE, PathName, check_endpoint
from expoflow.config.benchmark import Benchmark
from expoflow.paths import RESULTS

OpenLlmTask = Literal[
    "arc",
    "hellaswag",
    "mmlu",
    "gsm8k",
    "winogrande",
    "truthfulqa",
    "miniature_choice",
    "miniature_answer",
]


class Harness(Benchmark):
    """How lm-eval runs a model: the common base of its benchmarks."""

    TASKS = ("lm_eval",)
    PACKAGES = ("lm_eval", "accelerate")
    APART = frozenset({"data", "base_url", "batch_size", "concurrency"})

    limit: int | None = Field(None, ge=2)
    """Use only this many documents of every task (of every MMLU subject), from the beginning: for a
    trial, not for a result."""
    seed: int = Field(1234, ge=0)
    """Seed that draws the examples in the prompts."""
    context: int = Field(4096, ge=256)
    """Maximum number of tokens of a prompt with its answer, or the model's own limit if that is
    smaller. Longer prompts lose their beginning."""
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    """Type that the model computes in; `keep` is that of its files."""
    backend: Literal["hf", "vllm", "completions"] = "hf"
    """The backend of lm-eval. `completions` is a server at `base_url` that has the model loaded."""
    base_url: Annotated[str, AfterValidator(check_endpoint)] | None = None
    """The server for `completions`, without /completions."""
    batch_size: int | Literal["auto"] = "auto"
    """Sequences at a time; `auto` is what fits into memory."""
    concurrency: int = Field(8, ge=1)
    """Number of concurrent requests to a server."""

    @model_validator(mode="after")
    def _has_its_server(self) -> Self:
        if (self.backend == "completions") != (self.base_url is not None):
            raise PydanticCustomError(
                "server", "backend: completions and base_url belong together; give both or neither"
            )
        return self


class OpenLlmBenchmark(Harness):
    """The Open LLM Leaderboard, version 1, run by lm-eval."""

    SOURCE = frozenset({"data", "tasks"})

    tasks: list[OpenLlmTask] = Field(
        ["arc", "hellaswag", "mmlu", "gsm8k", "winogrande", "truthfulqa"], min_length=1
    )
    """The leaderboard's six tasks; `average` is their mean. The miniature_ tasks ask about the
    built-in world."""
    data: PathName | None = None
    """A folder with the datasets as they are on the hub, in ORG/NAME. `miniature` makes those of
    the miniature_ tasks. By default the datasets come from the hub."""
    chat_template: bool = False
    """Ask in the model's chat format; the leaderboard did not."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise PydanticCustomError("tasks", "a task occurs twice in tasks; remove one")
        miniature = {task.startswith("miniature_") for task in self.tasks}
        if self.data == "miniature" and False in miniature:
            raise PydanticCustomError(
                "data",
                "data: miniature has only the miniature_ tasks; name a folder, or leave data out for the hub",
            )
        if self.data is None and True in miniature:
            raise PydanticCustomError("data", "the miniature_ tasks need data: miniature; add it")
        return self

    def inputs(self) -> dict[str, str]:
        """The file of the rule open_llm_data, which identifies the bytes of the tasks' datasets."""
        return {"data": str(RESULTS.benchmark_data("open_llm", self.source_name()))}

    def made(self) -> bool:
        """Whether the miniature makes the datasets."""
        return self.data == MINIATURE


class LmEvalBenchmark(Harness):
    """Any tasks of lm-eval with a metric that is a mean over documents."""

    COMPARED = frozenset({"data"})
    APART = Harness.APART | {"include"}
    SOURCE = frozenset({"data", "tasks", "include"})

    tasks: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Names of tasks, groups or tags of lm-eval: ifeval, mmlu_pro, ... A group is reported by its
    own metric, if it has one."""
    include: PathName | None = None
    """A folder with definitions of your own, in lm-eval's YAML."""
    data: PathName | None = None
    """A folder with the datasets as they are on the hub, in ORG/NAME. By default the datasets come
    from the hub."""
    num_fewshot: int | None = Field(None, ge=0)
    """Number of examples in the prompts. The default is each task's own; a task that sets 0 stays
    at 0."""
    apply_chat_template: bool = False
    """Ask in the model's chat format."""

    @model_validator(mode="after")
    def _has_each_once(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise PydanticCustomError("tasks", "a task occurs twice in tasks; remove one")
        return self

    def inputs(self) -> dict[str, str]:
        """The file of the rule lm_eval_data: what is asked, and which bytes the tasks' datasets
        are."""
        return {"data": str(RESULTS.benchmark_data("lm_eval", self.source_name()))}
