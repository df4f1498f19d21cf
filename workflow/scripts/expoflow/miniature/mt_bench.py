"""Two-turn questions about the miniature's world, in MT-Bench's files and formats."""

import json
from pathlib import Path
from typing import Any

from expoflow.files.atomic import write_text
from expoflow.miniature import world
from expoflow.results import Prompt

QUESTIONS = 20  # per category
CATEGORIES = {"extraction": "fact", "reasoning": "fact", "stem": "opposite", "writing": "list"}
REFERENCED = "reasoning"
SYSTEM = "You grade answers from 1 to 10, and end with the grade in double brackets: [[5]]."
TURN = "<question>\n{{question{0}}}\n</question>\n<answer>\n{{answer{0}}}\n</answer>\n"
REFERENCE = "<reference>\n{{ref_answer_{0}}}\n</reference>\n"


def write(folder: Path, seed: int) -> None:
    """Write question.jsonl, judge_prompts.jsonl and reference_answer/gpt-4.jsonl into a folder.

    Questions are from the test split: facts, opposites or lists. The second turn asks another
    question of the same task.
    """
    questions, references = [], []
    for category, task in CATEGORIES.items():
        prompts = [prompt for prompt in world.prompts("test", seed) if prompt.meta["task"] == task]
        start = QUESTIONS if category == REFERENCED else 0  # not the facts of extraction
        for place in range(start, start + QUESTIONS):
            turns = [prompts[place % len(prompts)], prompts[-1 - place % len(prompts)]]
            number = 81 + len(questions)
            questions.append(
                {"question_id": number, "category": category, "turns": [p.messages[0].content for p in turns]}
            )
            if category == REFERENCED:
                references.append(_reference(number, turns))
    _write(folder / "question.jsonl", questions)
    _write(folder / "reference_answer" / "gpt-4.jsonl", references)
    _write(folder / "judge_prompts.jsonl", _judge_prompts())


def _reference(number: int, turns: list[Prompt]) -> dict[str, Any]:
    return {"question_id": number, "choices": [{"index": 0, "turns": [p.meta["core"] for p in turns]}]}


def _judge_prompts() -> list[dict[str, Any]]:
    one, both = TURN.format(""), TURN.format("_1") + TURN.format("_2")
    first = REFERENCE.format(1)
    templates = {
        "single-v1": one,
        "single-math-v1": first + one,
        "single-v1-multi-turn": both,
        "single-math-v1-multi-turn": first + REFERENCE.format(2) + both,
    }
    common = {"type": "single", "system_prompt": SYSTEM, "output_format": "[[rating]]"}
    return [{"name": name, "prompt_template": text, **common} for name, text in templates.items()]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))
