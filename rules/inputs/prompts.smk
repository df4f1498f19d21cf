# The sources of prompt sets.
from expoflow.data import prompts as prompt_sets


def prompt_files(wildcards):
    """A set's file, and the images that its rows name.

    The set is made again if any of them changes.
    """
    file = CONFIG.prompts[wildcards.prompts].file
    return [file, *map(str, prompt_sets.image_files(Path(file)))] if file else []
