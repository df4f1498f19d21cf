"""The miniature's judge over HTTP, and its questions in MT-Bench's formats."""

import math

import pytest
from expoflow.benchmarks.judge.judge import Judge
from expoflow.benchmarks.judge.verdicts import text
from expoflow.benchmarks.mt_bench import files as mt_bench_files
from expoflow.benchmarks.mt_bench.benchmark import score
from expoflow.config.benchmarks import JudgeConfig, MtBenchBenchmark
from expoflow.miniature import judge, world

SEED = 5
COMPARE = '{{ "instruction": """{}""", }} {{ {{ "model_identifier": "m", "output": """{}""" }}, {{ "model_identifier": "M", "output": """{}""" }} }}'


@pytest.fixture(scope="module")
def client():
    return Judge(JudgeConfig(base_url=judge.serve(SEED), model="truth", api_key_env="", retries=0))


@pytest.fixture(scope="module")
def data():
    return mt_bench_files.questions(MtBenchBenchmark(data="miniature"), SEED)


def ask(client, *messages: dict) -> dict | None:
    return client.ask([{"messages": list(messages), "max_tokens": 9}])[0]


def test_questions_are_like_mt_benchs(data):
    assert len(data.questions) == len({question.turns for question in data.questions}) == 80
    asked = {prompt.messages[0].content: prompt.meta for prompt in world.prompts("test", SEED)}
    for question in data.questions:
        assert question.turns[0] != question.turns[1]
        if question.category == "reasoning":
            assert question.reference == tuple(asked[turn]["core"] for turn in question.turns)
        else:
            assert question.reference is None
            assert set(question.turns) <= set(asked)
    assert mt_bench_files.questions(MtBenchBenchmark(data="miniature"), SEED) == data
    assert mt_bench_files.questions(MtBenchBenchmark(data="miniature"), SEED + 1) != data


def test_the_last_answer_gets_the_grade_of_its_true_quality(client, data):
    for question in data.questions[::9]:
        meta = world.prompts("test", SEED)
        meta = {prompt.messages[0].content: prompt.meta for prompt in meta}[question.turns[1]]
        good = f"Sure! {meta.get('core', 'Try red and blue.')} See the {meta['topic']} book."
        for answer in (good, "Ugh. bla bla", ""):
            messages = mt_bench_files.judge_messages(data, question, ["Whatever.", answer])
            expected = judge.grade(world.truth(meta, answer).quality)
            assert score(ask(client, *messages)) == round(expected, 1)


def test_of_two_outputs_the_better_one_is_named_with_its_probability(client):
    prompt = next(prompt for prompt in world.prompts("test", SEED) if prompt.meta["task"] == "fact")
    good, bad = f"Sure! {prompt.meta['core']}", f"Ugh. {prompt.meta['rumour']}"
    gain = world.truth(prompt.meta, good).quality - world.truth(prompt.meta, bad).quality
    for first, second, sign in ((good, bad, 1), (bad, good, -1)):
        reply = ask(
            client, {"role": "user", "content": COMPARE.format(prompt.messages[0].content, first, second)}
        )
        assert text(reply) == ("m" if sign > 0 else "M")
        top = reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
        chances = {each["token"]: math.exp(each["logprob"]) for each in top}
        assert chances["m"] == pytest.approx(1 / (1 + math.exp(-sign * gain)))
        assert sum(chances.values()) == pytest.approx(1)


def test_what_is_not_of_this_world_is_refused(client):
    asked = "<question>\nwho are you?\n</question>\n<answer>\nme\n</answer>"
    assert ask(client, {"role": "user", "content": asked}) is None
    assert ask(client, {"role": "user", "content": "hello"}) is None
    assert client.counts["refused"] == 2
