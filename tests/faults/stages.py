"""The stages of the matrix: what of a finished tree is removed, when a fault hits, and what a rerun may do."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fault_tree import FaultTree

PAIR = "results/pairs/tiny"
EXPO = f"{PAIR}/benchmarks/expo/reward"
COMPARISON = f"{PAIR}/benchmarks/expo-aligned/reward.json"


@dataclass(frozen=True)
class Stage:
    """`made` is what its job makes. `removed` is what a copy lacks; `again` has the jobs that then run, by rule.

    `moment` says that a job is in the middle of its work. `input` is a file that it reads. `cut` is an intermediate
    file that is cut short, `remedy` what the error must say and `cut_again` the jobs once that was done. `room` is
    what a full disk has left, in bytes. `stored`: the store still has the heavy work. `here`: the models that came from
    the hub are still there.
    """

    rule: str
    made: str
    log: str
    removed: tuple[str, ...]
    moment: Callable[[FaultTree, "Stage"], bool]
    again: dict[str, int]
    input: str = ""
    cut: str = ""
    remedy: str = "run snakemake again"
    cut_again: dict[str, int] | None = None
    room: int = 0
    stored: bool = True
    here: bool = True

    @property
    def after(self) -> dict[str, int]:
        """The jobs that run after this stage's own."""
        return {rule: count for rule, count in self.again.items() if rule != self.rule}


def at_work(tree: FaultTree, stage: Stage) -> bool:
    """The job has begun to write its log; it takes a second to load what it needs."""
    return bool(tree.jobs(stage.log))


def training(tree: FaultTree, stage: Stage) -> bool:
    """A first step has been told."""
    log = tree.folder / stage.log
    return bool(tree.jobs(stage.log)) and "step" in log.read_text()


def receiving(tree: FaultTree, stage: Stage) -> bool:
    """A part of the weights is there."""
    with suppress(FileNotFoundError):  # received to its end since it was listed
        parts = tree.home.glob("hub/models--*/blobs/*.incomplete")
        return any(part.stat().st_size > 1 << 14 for part in parts)
    return False


def writing(folder: str) -> Callable[[FaultTree, Stage], bool]:
    """The checkpoint is being written beside its place."""
    path = Path(folder)
    return lambda tree, stage: any((tree.folder / path.parent).glob(f".{path.name}.*.partial"))


def answering(part: str) -> Callable[[FaultTree, Stage], bool]:
    """Some responses are there, and kept in the part file."""

    def moment(tree: FaultTree, stage: Stage) -> bool:
        return any(path.read_bytes().count(b"\n") > 1 for path in tree.folder.glob(part))

    return moment


# What is removed: the outputs of a stage and of all that follows, which would else not ask for them.
NO_REPORT = ("results/report.html",)
CERTIFICATE = f"{PAIR}/certificate.json"
NO_BENCHMARK = (
    f"{EXPO}.json",
    f"{EXPO}.generations.jsonl",
    "results/benchmarks.csv",
    COMPARISON,
    CERTIFICATE,
    f"{PAIR}/answers.html",
    *NO_REPORT,
)
NO_EXPORT = (f"{PAIR}/expo", f"{PAIR}/.expo.json", *NO_BENCHMARK)
NO_TABLES = ("results/alphas.csv", "results/rewards.csv", "results/summary.csv", *NO_REPORT)
DRAWN = ("results/figures", "results/tables")
NO_SELECT = (f"{PAIR}/alphas.csv", f"{PAIR}/best.json", *DRAWN, *NO_TABLES, *NO_EXPORT)
NO_SCORE = (f"{PAIR}/alpha=60/dev.rewards.csv", f"{PAIR}/answers.parquet", *NO_SELECT)
NO_GENERATE = (f"{PAIR}/alpha=60/dev.generations.jsonl", *NO_SCORE)
NO_EXTRAPOLATE = (f"{PAIR}/alpha=60", f"{PAIR}/answers.parquet", *NO_SELECT)
NO_DOWNLOAD = ("results/models/rm.json", "results/models/.rm.commit.json", *NO_SCORE)
NO_TRAIN = (
    *("results/models/dpo.json", "results/models/dpo", f"{PAIR}/preflight.json"),
    *(
        f"{PAIR}/alpha=-1",
        f"{PAIR}/alpha=0",
        f"{PAIR}/alpha=1",
        f"{PAIR}/benchmarks/aligned",
        *NO_EXTRAPOLATE,
    ),
)

# The jobs that then run.
REPORT = {"report": 1}
SUMMARY = {"tables": 1, **REPORT}
CERTIFY = {"certify": 1, "answers_page": 1, "figure": 1, **SUMMARY}
BENCHMARK = {"benchmark_reward": 1, "compare": 1, "benchmark_table": 1, **CERTIFY}
EXPORT = {"export": 1, **BENCHMARK}
SELECT = {"select": 1, "appendices": 1, **EXPORT}
SCORE = {"score": 1, "answers": 1, **SELECT}
GENERATE = {"generate": 1, **SCORE}
EXTRAPOLATE = {"extrapolate": 1, **GENERATE}
DOWNLOAD = {"download": 1, **SCORE, "score": 4, "benchmark_reward": 3}
EVERYTHING = {
    "preflight": 1,
    **EXTRAPOLATE,
    "extrapolate": 4,
    "generate": 4,
    "score": 4,
    "benchmark_reward": 3,
}
TRAIN = {"train": 1, **EVERYTHING, "benchmark_reward": 2}

STAGES = {
    "train": Stage(
        rule="train",
        made="results/models/dpo.json",
        log="results/logs/train/dpo.log",
        removed=NO_TRAIN,
        moment=training,
        again=TRAIN,
        input="results/models/sft/model.safetensors",
        cut="results/models/sft.json",
        cut_again=EVERYTHING | {"train": 2},
        room=1 << 16,
    ),
    "download": Stage(
        rule="download",
        made="results/models/rm.json",
        log="results/logs/download/rm.log",
        removed=NO_DOWNLOAD,
        moment=receiving,
        again=DOWNLOAD,
        cut_again=DOWNLOAD,
        room=1 << 16,
        here=False,
    ),
    "extrapolate": Stage(
        rule="extrapolate",
        made=f"{PAIR}/alpha=60/model/recipe.json",
        log="results/logs/extrapolate/tiny/alpha=60.log",
        removed=NO_EXTRAPOLATE,
        moment=writing(f"{PAIR}/alpha=60/model"),
        again=EXTRAPOLATE,
        input="results/models/dpo/model.safetensors",
        cut="results/models/dpo/model.safetensors",
        remedy="run: snakemake --forcerun results/models/dpo.json",
        cut_again=TRAIN,
        room=1 << 16,
    ),
    "generate": Stage(
        rule="generate",
        made=f"{PAIR}/alpha=60/dev.generations.jsonl",
        log="results/logs/generate/tiny/alpha=60.dev.log",
        removed=NO_GENERATE,
        moment=answering(f"{PAIR}/alpha=60/.dev.generations.jsonl.part"),
        again=GENERATE,
        input="results/prompts/dev.jsonl",
        cut=f"{PAIR}/alpha=60/model/recipe.json",
        cut_again=EXTRAPOLATE,
    ),
    "score": Stage(
        rule="score",
        made=f"{PAIR}/alpha=60/dev.rewards.csv",
        log="results/logs/score/tiny/alpha=60.dev.log",
        removed=NO_SCORE,
        moment=at_work,
        again=SCORE,
        input=f"{PAIR}/alpha=60/dev.generations.jsonl",
        cut=f"{PAIR}/alpha=60/dev.generations.jsonl",
        cut_again=GENERATE,
    ),
    "select": Stage(
        rule="select",
        made=f"{PAIR}/alphas.csv",
        log="results/logs/select/tiny.log",
        removed=NO_SELECT,
        moment=at_work,
        again=SELECT,
        input=f"{PAIR}/alpha=60/dev.rewards.csv",
        cut=f"{PAIR}/alpha=60/dev.rewards.csv",
        cut_again=SCORE,
    ),
    "export": Stage(
        rule="export",
        made=f"{PAIR}/expo/recipe.json",
        log="results/logs/export/tiny.log",
        removed=NO_EXPORT,
        moment=writing(f"{PAIR}/expo"),
        again=EXPORT,
        input=f"{PAIR}/best.json",
        cut=f"{PAIR}/best.json",
        cut_again=SELECT,
        room=1 << 16,
    ),
    "benchmark": Stage(
        rule="benchmark_reward",
        made=f"{EXPO}.json",
        log="results/logs/benchmark/tiny/expo.reward.log",
        removed=NO_BENCHMARK,
        moment=answering(f"{PAIR}/benchmarks/expo/.reward.generations.jsonl.*.part"),
        again=BENCHMARK,
        input="results/prompts/test.jsonl",
        cut=f"{PAIR}/expo/recipe.json",
        cut_again=EXPORT,
        stored=False,
    ),
    "report": Stage(
        rule="report",
        made="results/report.html",
        log="results/logs/report.log",
        removed=NO_REPORT,
        moment=at_work,
        again=REPORT,
        input="results/summary.csv",
        cut="results/summary.csv",
        cut_again=SUMMARY,
    ),
}
