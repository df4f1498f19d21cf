# Input functions and lists of the rules in models.smk.
from expoflow.checkpoints import manifests

TRAINED = [name for name, model in CONFIG.models.items() if model.source == "train"]
LOCAL = [name for name, model in CONFIG.models.items() if model.source == "path"]
HUB = [name for name, model in CONFIG.models.items() if model.source == "hub"]


def needed(role):
    """Input function: the manifest of the model to train from, or of the labeller of its data."""
    return lambda wildcards: [
        manifest(model)
        for each, model in CONFIG.models[wildcards.model].needed().items()
        if each == role
    ]


def training_resources():
    """Resources of a training. The miniature asks for no GPU, and for little else."""
    return {
        "mem_mb": lambda wildcards, attempt: NEEDS.training_memory(
            wildcards.model, attempt
        ),
        "runtime": lambda wildcards, attempt: NEEDS.training_minutes(
            wildcards.model, attempt
        ),
        **on_gpus(
            lambda wildcards: NEEDS.training_gpus(wildcards.model),
            resources.TRAINING_CPUS,
        ),
    }


def training_threads(wildcards):
    """Threads of each process of a training."""
    return NEEDS.training_threads(wildcards.model, workflow.resource_settings.cores)
