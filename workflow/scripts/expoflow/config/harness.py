"""Benchmarks that lm-eval runs: the Open LLM Leaderboard, and any tasks of its own."""

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
    """How lm-eval runs a model: what all benchmarks through it have in common."""

    TASKS = ("lm_eval",)
    PACKAGES = ("lm_eval", "accelerate")
    APART = frozenset({"data", "base_url", "batch_size", "concurrency"})

    limit: int | None = Field(None, ge=2)
    """Only the first documents of every task (of every MMLU subject): for a trial, not for a result."""
    seed: int = Field(1234, ge=0)
    """Draws the examples in the prompts."""
    context: int = Field(4096, ge=256)
    """Tokens of a prompt with its answer, the model's own limit where that is less; longer ones lose their beginning."""
    dtype: Literal["keep", "float32", "bfloat16", "float16"] = "keep"
    """Type that the model computes in; `keep` is that of its files."""
    backend: Literal["hf", "vllm", "completions"] = "hf"
    """What lm-eval runs models in; `completions` is a server that has the model loaded, at `base_url`."""
    base_url: Annotated[str, AfterValidator(check_endpoint)] | None = None
    """The server of `completions`, up to and without /completions."""
    batch_size: int | Literal["auto"] = "auto"
    """Sequences at a time; `auto` is what fits into memory."""
    concurrency: int = Field(8, ge=1)
    """Requests at a time to a server."""

    @model_validator(mode="after")
    def _has_its_server(self) -> Self:
        if (self.backend == "completions") != (self.base_url is not None):
            raise PydanticCustomError(
                "server", "backend: completions and base_url belong together; give both or none"
            )
        return self


class OpenLlmBenchmark(Harness):
    """The Open LLM Leaderboard, version 1, through lm-eval."""

    SOURCE = frozenset({"data", "tasks"})

    tasks: list[OpenLlmTask] = Field(
        ["arc", "hellaswag", "mmlu", "gsm8k", "winogrande", "truthfulqa"], min_length=1
    )
    """The leaderboard's six, of which `average` is the mean; the miniature_ ones ask about the built-in world."""
    data: PathName | None = None
    """A folder with the datasets as they are on the hub, in ORG/NAME; `miniature` makes those of the miniature_ tasks. Without it they come from the hub."""
    chat_template: bool = False
    """Ask in the model's chat format; the leaderboard did not."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise PydanticCustomError("tasks", "a task stands twice in tasks; remove one")
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
        """Which bytes the tasks' datasets are, in a file of the rule open_llm_data."""
        return {"data": str(RESULTS.benchmark_data("open_llm", self.source_name()))}

    def made(self) -> bool:
        """Whether the miniature makes the datasets."""
        return self.data == MINIATURE


class LmEvalBenchmark(Harness):
    """Any tasks of lm-eval that have a metric which is a mean over documents."""

    COMPARED = frozenset({"data"})
    APART = Harness.APART | {"include"}
    SOURCE = frozenset({"data", "tasks", "include"})

    tasks: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)
    """Names of tasks, groups or tags, as lm-eval has them: ifeval, mmlu_pro, ... A group is told as its own figure, if it has one."""
    include: PathName | None = None
    """A folder with definitions of your own, in lm-eval's YAML."""
    data: PathName | None = None
    """A folder with the datasets as they are on the hub, in ORG/NAME. Without it they come from the hub."""
    num_fewshot: int | None = Field(None, ge=0)
    """Examples in the prompts; without it as many as the tasks say. A task that says 0 stays at 0."""
    apply_chat_template: bool = False
    """Ask in the model's chat format."""

    @model_validator(mode="after")
    def _has_each_once(self) -> Self:
        if len(set(self.tasks)) < len(self.tasks):
            raise PydanticCustomError("tasks", "a task stands twice in tasks; remove one")
        return self

    def inputs(self) -> dict[str, str]:
        """What is asked, and which bytes the tasks' datasets are, in a file of the rule lm_eval_data."""
        return {"data": str(RESULTS.benchmark_data("lm_eval", self.source_name()))}
