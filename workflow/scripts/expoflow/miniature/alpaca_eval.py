"""Reference answers to the miniature's questions, in the format of AlpacaEval's outputs."""

from pathlib import Path

from expoflow.files.records import write_json
from expoflow.miniature import world

QUESTIONS = 60


def write(path: Path, seed: int) -> None:
    """Write a list of {instruction, output} for facts and opposites of the test split.

    Every other answer is right and short; the rest are rumours, which are wrong.
    """
    prompts = [prompt for prompt in world.prompts("test", seed) if prompt.meta["task"] != "list"]
    rows = [
        {
            "dataset": "miniature",
            "instruction": prompt.messages[0].content,
            "output": prompt.meta["rumour" if place % 2 else "core"],
            "generator": "miniature",
        }
        for place, prompt in enumerate(prompts[:QUESTIONS])
    ]
    write_json(path, rows)
