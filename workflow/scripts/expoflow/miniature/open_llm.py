"""Data of the miniature's two lm-eval tasks, in datasets miniature/choice and miniature/answer."""

import json
from pathlib import Path
from typing import Any

from expoflow.files.atomic import write_text
from expoflow.miniature import language, world


def write(folder: Path, seed: int) -> None:
    """Write the data of miniature_choice and miniature_answer.

    They are the world's test questions with a single answer. A choice question has four options:
    the right answer, the rumour, and two more.
    """
    rng = world.generator(seed, "tasks")
    choices, answers = [], []
    for prompt in world.prompts("test", seed):
        meta = prompt.meta
        if meta["task"] == "list":
            continue
        question, right = prompt.messages[0].content, meta["core"]
        options = [right, meta["rumour"]]
        others = [core for core in _cores(meta) if core not in options]
        options += [others[i] for i in rng.permutation(len(others))[:2]]
        options = [options[i] for i in rng.permutation(len(options))]
        choices.append({"question": question, "choices": options, "label": options.index(right)})
        answers.append({"question": question, "answer": right})
    for name, rows in (("choice", choices), ("answer", answers)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        write_text(folder / "miniature" / name / "test.jsonl", text)


def _cores(meta: dict[str, Any]) -> list[str]:
    """Return all answers that the question could have."""
    if meta["task"] == "opposite":
        return [language.opposite_core(word) for word in language.OPPOSITE]
    return [language.fact_core(meta["subject"], value) for value in language.VALUES[meta["topic"]]]
