"""A stage of a training by TRL: one trainer's resumable run under `accelerate launch`."""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from expoflow.config.recipes import Lora
from expoflow.config.sources import DATE
from expoflow.errors import ExpoflowError
from expoflow.files.atomic import replacing
from expoflow.files.records import Record, read_json, write_json
from expoflow.system import child

MODEL = "model"  # the folder of a stage's result, which exists only when complete


class TrainerSettings(Record):
    """Common settings of TRL's trainers; a device holds `per_device` rows at a time."""

    epochs: int
    learning_rate: float
    warmup: float
    batch_size: int
    per_device: int
    seed: int
    max_length: int = 1024
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    gradient_checkpointing: bool = True
    lora: Lora | None = None
    cpu: bool = False


class Stage(Record):
    """One trainer's run in `folder`, from the checkpoint `base`, on the rows of
    `folder`/data.jsonl.

    `beta` is for DPO and RLHF; `reward_model`, `samples` and `max_tokens` are for RLHF. `center` is
    the weight of the squared sum of a pair's rewards in the reward model's loss.
    """

    trainer: str
    """One of `training.trl.trainers.BUILDERS`."""
    folder: Path
    base: Path
    settings: TrainerSettings
    chat_template: str | None = None
    date: str = DATE
    """The date that `strftime_now` gives to templates."""
    trust_remote_code: bool = False
    beta: float | None = None
    reward_model: Path | None = None
    reward_model_chat_template: str | None = None
    samples: int | None = None
    max_tokens: int | None = None
    center: float | None = None

    @property
    def data(self) -> Path:
        """The rows, as `training.trl.rows` makes them."""
        return self.folder / "data.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Where the trainer keeps its checkpoints while it runs."""
        return self.folder / "checkpoints"

    @property
    def model(self) -> Path:
        """The trained checkpoint."""
        return self.folder / MODEL

    @property
    def unfinished(self) -> Path:
        """Where the trained checkpoint is written."""
        return self.folder / f".{MODEL}"


def run(
    stage: Stage, rows: Callable[[], Iterable[dict[str, Any]]], accelerate: Path, threads: int = 1
) -> dict[str, float]:
    """Train a stage unless its result is there; return the trainer's metrics.

    `rows` makes the data. They are kept, because an interrupted stage resumes with the same data.
    Raises ExpoflowError if the trainer fails; its own message is in the job's log.
    """
    stage.folder.mkdir(parents=True, exist_ok=True)
    metrics = stage.folder / "metrics.json"
    if not stage.model.is_dir():
        if not stage.data.is_file():
            with replacing(stage.data) as file:
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows())
        task = stage.folder / "stage.json"
        write_json(task, stage)
        launch(["--config_file", str(accelerate), "--num_cpu_threads_per_process", str(threads)], task)
        stage.unfinished.rename(stage.model)
    return json.loads(metrics.read_text(encoding="utf-8"))


def launch(options: Sequence[str], task: Path) -> None:
    """Run `training.trl.trainers` on a task by `accelerate launch`.

    The trainer ends with this process at the latest. DeepSpeed's compiled extensions are kept
    beside the task. Only one process works on a task, so an existing lock is left from a
    compilation that was killed. It is removed, because the trainer would wait for it forever.
    """
    extensions = task.parent.resolve() / "extensions"
    for lock in extensions.rglob("lock"):
        lock.unlink()
    command = [sys.executable, "-m", "accelerate.commands.launch", *options]
    settings = {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    settings["TORCH_EXTENSIONS_DIR"] = str(extensions)
    if child.run([*command, "--module", "expoflow.training.trl.trainers", str(task)], **settings):
        raise ExpoflowError(f"{task.parent}: the trainer failed; see the reason above")


def last_checkpoint(folder: Path) -> Path | None:
    """Return the latest complete checkpoint: a trainer writes trainer_state.json last."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        with suppress(OSError, ValueError):
            json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))
            return checkpoint
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def read(path: Path) -> Stage:
    """Return the stage that a task file describes."""
    return read_json(path, Stage)
