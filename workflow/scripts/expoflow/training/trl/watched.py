"""Progress reports of a trainer of transformers or TRL, which runs in a separate process."""

from typing import Any

from expoflow.system import progress


def report(trainer: Any) -> None:
    """Make `trainer` report its steps and its last logged loss.

    Steps before its last checkpoint count too.
    """
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        last = ""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **_: Any) -> None:
            if "loss" in logs:
                self.last = f"loss {float(logs['loss']):.4f}"

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.is_world_process_zero:
                progress.report(state.global_step, state.max_steps, "steps", self.last)

        on_train_begin = on_step_end

    trainer.add_callback(Steps())
