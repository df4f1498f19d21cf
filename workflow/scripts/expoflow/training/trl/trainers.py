"""The program that `accelerate launch` runs: one stage of a training by TRL."""

import os
import shutil
import sys
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from expoflow.engines.memory import loaded_in
from expoflow.errors import ExpoflowError
from expoflow.files.records import write_json
from expoflow.system import child
from expoflow.system.processor import computed_in
from expoflow.training.trl import watched
from expoflow.training.trl.stage import Stage, last_checkpoint, read

CHECKPOINTS = 0.1  # share of the steps between two checkpoints
LOGS = 0.05  # share of the steps between two lines of the log


def main(path: Path) -> None:
    """Train the stage that the file describes, from its last checkpoint if there is one."""
    child.end_with(os.getppid())
    import torch
    import transformers
    from datasets import Dataset

    stage = read(path)
    transformers.utils.logging.disable_progress_bar()
    if stage.settings.cpu:
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    data = Dataset.from_json(str(stage.data), cache_dir=str(stage.folder / "cache"))
    trainer = BUILDERS[stage.trainer](stage, data)
    watched.report(trainer)
    last = last_checkpoint(stage.checkpoints)
    print(f"{stage.trainer}: {f'resumes from {last.name}' if last else f'{len(data)} rows'}", flush=True)
    trainer.train(resume_from_checkpoint=str(last) if last else None)
    steps = trainer.state.max_steps
    if steps <= trainer.args.get_warmup_steps(steps):  # a warm-up begins with learning rate 0
        raise ExpoflowError(
            f"{stage.folder}: {steps} steps are all warm-up and train nothing; take more data or more epochs, or a smaller batch"
        )
    save(trainer, stage)
    if trainer.is_world_process_zero():
        loss = [line["loss"] for line in trainer.state.log_history if "loss" in line][-1]
        write_json(stage.folder / "metrics.json", {"steps": trainer.state.global_step, "loss": loss})
    trainer.accelerator.end_training()


def arguments(stage: Stage) -> dict[str, Any]:
    """Return the arguments of all TRL configs.

    Raises ExpoflowError if the batch cannot be divided among the devices.
    """
    import torch

    settings, devices = stage.settings, int(os.environ.get("WORLD_SIZE", "1"))
    cpu = settings.cpu or not torch.cuda.is_available()
    accumulate, rest = divmod(settings.batch_size, settings.per_device * devices)
    if rest or not accumulate:
        raise ExpoflowError(
            f"batch_size {settings.batch_size} is not a multiple of per_device {settings.per_device} on {devices} devices; "
            "change per_device or num_processes"
        )
    return {
        "output_dir": str(stage.checkpoints),
        "per_device_train_batch_size": settings.per_device,
        "gradient_accumulation_steps": accumulate,
        "num_train_epochs": settings.epochs,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": settings.warmup,
        "optim": "adamw_torch",
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "bf16": trained_in(stage) == "bfloat16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "gradient_checkpointing_kwargs": {"use_reentrant": False},
        "seed": settings.seed,
        "data_seed": settings.seed,
        "save_strategy": "steps",
        "save_steps": CHECKPOINTS,
        "save_total_limit": 1,
        "logging_steps": LOGS,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": cpu,
        "dataloader_pin_memory": not cpu,
        "ddp_find_unused_parameters": False,
        "trust_remote_code": stage.trust_remote_code,
    }


def tokenizer(folder: Path, template: str | None, stage: Stage) -> Any:
    """Load a checkpoint's tokenizer, with the config's chat template and date."""
    from transformers import AutoTokenizer

    loaded = AutoTokenizer.from_pretrained(folder, trust_remote_code=stage.trust_remote_code)
    if template:
        loaded.chat_template = template
    today = datetime.fromisoformat(stage.date).strftime
    loaded.apply_chat_template = partial(loaded.apply_chat_template, strftime_now=today)
    return loaded


def shared(stage: Stage) -> dict[str, Any]:
    """Return the arguments of all TRL trainers except their configs."""
    lora = stage.settings.lora
    peft = None
    if lora:
        from peft import LoraConfig

        peft = LoraConfig(
            r=lora.rank,
            lora_alpha=lora.scale,
            lora_dropout=lora.dropout,
            target_modules=lora.modules,
            task_type="SEQ_CLS" if stage.trainer == "reward" else "CAUSAL_LM",
        )
    return {
        "model": str(stage.base),
        "processing_class": tokenizer(stage.base, stage.chat_template, stage),
        "peft_config": peft,
    }


def trained_in(stage: Stage) -> str:
    """Return the type of matrix products in training.

    It is the recipe's type, or float32 on a CPU that is slow in it. With DeepSpeed it is always the
    recipe's.
    """
    import torch

    cpu = stage.settings.cpu or not torch.cuda.is_available()
    return (
        stage.settings.dtype if by_deepspeed() or not cpu else computed_in(stage.settings.dtype, stage.base)
    )


def by_deepspeed() -> bool:
    """Whether DeepSpeed runs the training."""
    return os.environ.get("ACCELERATE_USE_DEEPSPEED") == "true"


def loading(stage: Stage) -> dict[str, Any]:
    """Return how the model is loaded.

    Trained weights are in float32, because the optimiser's steps are small. They may be bfloat16
    with DeepSpeed, which keeps its own float32 copies, and with LoRA, which does not train them.
    """
    half = trained_in(stage) == "bfloat16" and (by_deepspeed() or stage.settings.lora is not None)
    return {"model_init_kwargs": {"dtype": "bfloat16" if half else "float32"}}


def sft(stage: Stage, data: Any) -> Any:
    """Make TRL's SFTTrainer: it trains on all tokens of `messages`, or on the completion."""
    from trl import SFTConfig, SFTTrainer

    config = SFTConfig(**arguments(stage), **loading(stage), max_length=stage.settings.max_length)
    return SFTTrainer(args=config, train_dataset=data, **shared(stage))


def dpo(stage: Stage, data: Any) -> Any:
    """Make TRL's DPOTrainer with the stage's base as the reference."""
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        **arguments(stage), **loading(stage), max_length=stage.settings.max_length, beta=stage.beta
    )
    return DPOTrainer(args=config, train_dataset=data, **shared(stage))


def reward(stage: Stage, data: Any) -> Any:
    """Make TRL's RewardTrainer: a classifier with one logit on top of the stage's base."""
    from trl import RewardConfig, RewardTrainer

    config = RewardConfig(
        **arguments(stage),
        **loading(stage),
        max_length=stage.settings.max_length,
        center_rewards_coefficient=stage.center,
    )
    trainer = RewardTrainer(args=config, train_dataset=data, **shared(stage))
    trainer.model.config.tie_word_embeddings = False  # a classifier has no output embeddings
    return trainer


def rlhf(stage: Stage, data: Any) -> Any:
    """Make TRL's RLOOTrainer on the reward model's logits, with `samples` responses per prompt."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification
    from trl import RLOOConfig, RLOOTrainer

    remote = stage.trust_remote_code
    own = AutoConfig.from_pretrained(stage.reward_model, trust_remote_code=remote)
    dtype = loaded_in(own, (), stage.reward_model, "cuda" if torch.cuda.is_available() else "cpu")
    reward_model = AutoModelForSequenceClassification.from_pretrained(
        stage.reward_model, dtype=dtype, trust_remote_code=remote
    )
    config = RLOOConfig(
        **arguments(stage),
        **loading(stage),
        beta=stage.beta,
        num_generations=stage.samples,
        max_completion_length=stage.max_tokens,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
    )
    return RLOOTrainer(
        args=config,
        train_dataset=data,
        reward_funcs=[reward_model],
        reward_processing_classes=[tokenizer(stage.reward_model, stage.reward_model_chat_template, stage)],
        **shared(stage),
    )


BUILDERS = {"sft": sft, "dpo": dpo, "reward": reward, "rlhf": rlhf}


def save(trainer: Any, stage: Stage) -> None:
    """Write an ordinary checkpoint in the type of the stage's base, with adapters merged."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    written = stage.folder / "written"
    trainer.save_model(str(written))
    if not trainer.is_world_process_zero():
        return
    unset_hf_deepspeed_config()  # else ZeRO-3 would split what this process loads
    remote = stage.trust_remote_code
    kind = AutoModelForSequenceClassification if stage.trainer == "reward" else AutoModelForCausalLM
    labels = {"num_labels": 1} if stage.trainer == "reward" else {}
    if stage.settings.lora:
        from peft import PeftModel

        base = kind.from_pretrained(stage.base, dtype=torch.float32, trust_remote_code=remote, **labels)
        model = PeftModel.from_pretrained(base, written).merge_and_unload()
    else:
        model = kind.from_pretrained(written, dtype=torch.float32, trust_remote_code=remote, **labels)
    original = AutoConfig.from_pretrained(stage.base, trust_remote_code=remote)
    model.config.use_cache = getattr(original, "use_cache", True)  # off in training
    shutil.rmtree(stage.unfinished, ignore_errors=True)
    model.to(original.dtype or torch.float32).save_pretrained(stage.unfinished)
    trainer.processing_class.save_pretrained(stage.unfinished)
    if (generation := stage.base / "generation_config.json").is_file() and stage.trainer != "reward":
        shutil.copyfile(generation, stage.unfinished / generation.name)
    shutil.rmtree(written)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except ExpoflowError as error:
        sys.exit(f"error: {error}")
