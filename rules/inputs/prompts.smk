# What a prompt set is read from.
from expoflow.data import prompts as prompt_sets


def prompt_files(wildcards):
    """A set's file, and the files of images that its rows name: an edit of either makes the set anew."""
    file = CONFIG.prompts[wildcards.prompts].file
    return [file, *map(str, prompt_sets.image_files(Path(file)))] if file else []
