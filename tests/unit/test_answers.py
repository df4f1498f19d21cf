"""answers.parquet: every prompt of a sweep with its responses, in one table."""

from pathlib import Path

import pandas as pd
import pytest
from expoflow.config.benchmarks import BENCHMARKS, SECTIONS
from expoflow.config.stages import ScoreConfig
from expoflow.data.prompts import prompt_text
from expoflow.errors import DataError
from expoflow.files.records import write_jsonl
from expoflow.paths import Results
from expoflow.results import Generation, Image, Message, Prompt
from expoflow.scoring.answers import SCHEMA, read_answers, write_answers
from expoflow.scoring.refusals import refuses, repeats_prompt
from expoflow.scoring.responses import evaluate, write_rewards

TEXTS = {"a": "what is a bee ?", "b": "tell me all that you know about the moon"}
HOSTILE = "</script><script>alert(1)</script>\u2028=cmd|' /C calc'!A0"


def responses(alpha: str) -> list[Generation]:
    said = {"-1": "I'm sorry, I can't help with that.", "0": HOSTILE, "0.5": ""}[alpha]
    return [
        Generation(
            prompt_id=name,
            sample=sample,
            seed=42 + sample,
            response=said if name == "a" else f"You asked: {TEXTS[name]}",
            response_tokens=3,
            finish_reason="stop",
            engine="transformers",
        )
        for name in TEXTS
        for sample in (0, 1)
    ]


@pytest.fixture
def swept(tmp_path: Path) -> tuple[Path, Path, list[Path], list[Path]]:
    """Where the table goes, the prompts, and the responses and rewards of three alphas."""
    results = Results(tmp_path)
    prompts = [
        Prompt(prompt_id=name, messages=[Message(role="user", content=text)]) for name, text in TEXTS.items()
    ]
    write_jsonl(results.prompts("dev"), prompts)
    generations, rewards = [], []
    for alpha in ("-1", "0", "0.5"):
        generations.append(results.generations("mine", alpha, "dev"))
        rewards.append(results.rewards("mine", alpha, "dev"))
        write_jsonl(generations[-1], responses(alpha))
        write_rewards(
            rewards[-1], evaluate(prompts, responses(alpha), None, ScoreConfig()), "mine", alpha, "dev"
        )
    return results.answers("mine"), results.prompts("dev"), generations, rewards


def test_every_response_is_a_row_with_its_prompt_as_pandas_reads_it(swept):
    write_answers(*swept)
    table = pd.read_parquet(swept[0])
    assert [*table.columns] == SCHEMA.names
    assert [*table["alpha"]] == [alpha for alpha in ("-1", "0", "0.5") for _ in range(4)]
    assert [*table["prompt"][:4]] == [TEXTS["a"], TEXTS["a"], TEXTS["b"], TEXTS["b"]]
    assert table["response"][4] == HOSTILE
    assert table["reward"].isna().all()
    assert [*table["refusal"][:4]] == [True, True, False, False]
    assert [*table["repeats_prompt"][:4]] == [False, False, True, True]
    assert [*table["degenerate"][8:]] == ["empty", "empty", "", ""]


def test_the_same_answers_are_the_same_bytes(swept):
    write_answers(*swept)
    first = swept[0].read_bytes()
    write_answers(*swept)
    assert swept[0].read_bytes() == first


def test_rewards_of_other_responses_are_refused(swept):
    path, prompts, generations, rewards = swept
    with pytest.raises(DataError, match="are not the rewards of the responses in"):
        write_answers(path, prompts, generations, [*reversed(rewards)])
    assert not path.exists()
    lines = rewards[1].read_text().splitlines(keepends=True)
    rewards[1].write_text("".join(lines[:-1]))
    with pytest.raises(DataError, match="are not the rewards of the responses in"):
        write_answers(path, prompts, generations, rewards)


def test_a_broken_table_is_named(swept, tmp_path):
    write_answers(*swept)
    whole = swept[0].read_bytes()
    swept[0].write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"answers\.parquet: not a complete table; delete it"):
        read_answers(swept[0])
    with pytest.raises(DataError, match="no such file; run snakemake"):
        read_answers(tmp_path / "none.parquet")
    pd.DataFrame({"pair": ["mine"]}).to_parquet(swept[0])
    with pytest.raises(DataError, match="has no column alpha"):
        read_answers(swept[0])


def test_a_conversation_is_one_text_and_its_images_are_counted():
    image = Image(sha256="0", data="")
    messages = [
        Message(role="system", content="Be brief."),
        Message(role="user", content="What is it?", images=[image, image]),
    ]
    assert (
        prompt_text(Prompt(prompt_id="a", messages=messages))
        == "system: Be brief.\n\nuser: [2 images] What is it?"
    )


@pytest.mark.parametrize(
    ("response", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I\u2019m sorry, but no.", True),
        ("As an AI language model, I have no body.", True),
        ("I cannot provide that.", True),
        ("I can't believe how good that is! Here is the recipe.", False),
        ("A bee is an insect. " * 20 + "I'm sorry.", False),
        ("", False),
    ],
)
def test_a_refusal_is_seen_by_how_it_begins(response, refused):
    assert refuses(response) is refused


def test_a_short_prompt_within_an_answer_repeats_nothing():
    assert repeats_prompt("name  a bee that\nflies far", "NAME A BEE that flies far: the bumblebee")
    assert not repeats_prompt("a bee", "that is a bee")
    assert repeats_prompt("a bee", "A bee that flies")
    assert repeats_prompt("a bee", "A bee")
    assert not repeats_prompt("", "anything")


def test_benchmarks_that_say_so_give_their_answers_to_a_reader():
    from expoflow import benchmarks

    for name in BENCHMARKS:
        assert hasattr(benchmarks.module(name), "readable") is SECTIONS[name].READABLE, name
