"""AlpacaEval through the real package, against a scripted judge over real HTTP."""

import json
import math
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from expoflow import cli
from expoflow.benchmarks.alpaca_eval import annotator
from expoflow.benchmarks.alpaca_eval import benchmark as alpaca_eval
from expoflow.benchmarks.alpaca_eval.files import Question, find_annotator, prompts, read_questions
from expoflow.benchmarks.judge.costs import estimate
from expoflow.benchmarks.judge.judge import Judge
from expoflow.config.benchmarks import JudgeConfig
from expoflow.config.stages import SelectConfig
from expoflow.errors import ConfigError, DataError, JudgeError
from expoflow.files.records import write_jsonl
from expoflow.results import Scored
from judge_server import JudgeServer, completion

package = pytest.importorskip("alpaca_eval", reason="pip install 'expoflow[bench]'")
WEIGHTED = "weighted_alpaca_eval_gpt4_turbo"
OUTPUTS = re.compile(r'"output": """(.*?)"""', re.DOTALL)
N = 30
QUESTIONS = [Question(instruction=f"Say {i}.", output="fine " * (1 + i % 3)) for i in range(N)]
# The probability that the scripted judge prefers a text to another: by its first word.
MERIT = {"bad": -2.0, "fine": 0.0, "good": 1.0}


def merit(text: str) -> float:
    return MERIT[text.split()[0]]


def odds(body: dict) -> float:
    """log odds of the output that is called m against the one called M."""
    first, second = OUTPUTS.findall(body["messages"][1]["content"])
    return merit(first) - merit(second)


def weighted(body: dict) -> dict:
    """What the weighted annotator expects: one token, and the log probabilities of both names."""
    m = -math.log1p(math.exp(-odds(body)))
    return completion("m" if m > -0.69 else "M", logprobs={"m": m, "M": m - odds(body)})


def scored(words: list[str], questions: list[Question] = QUESTIONS) -> list[Scored]:
    return [
        Scored(
            prompt_id=question.prompt().prompt_id, sample=0, seed=0, response=f" {word} answer\n",
            response_tokens=2, finish_reason="stop", engine="transformers", reward=merit(word),
        )
        for question, word in zip(questions, words, strict=True)
    ]  # fmt: skip


@pytest.fixture
def server():
    with JudgeServer(weighted) as server:
        yield server


def client(server: JudgeServer, ledger: Path | None = None, **settings) -> Judge:
    return Judge(
        JudgeConfig(base_url=server.url, model="judge", api_key_env="", backoff=0, **settings), ledger
    )


def ask(
    server: JudgeServer, rows: list[Scored], name: str = WEIGHTED, **settings
) -> list[alpaca_eval.Judged]:
    return alpaca_eval.judge(QUESTIONS, rows, name, client(server, **settings).ask)


def expected(word: str) -> float:
    return 1 + 1 / (1 + math.exp(-merit(word)))


def test_preferences_are_those_of_the_judge_whatever_the_order(server):
    words = ["bad", "good"] * (N // 2)
    rows = ask(server, scored(words))
    assert [row.preference for row in rows] == pytest.approx([expected(word) for word in words])
    assert len(server.calls) == N
    called_m = [OUTPUTS.findall(call["messages"][1]["content"])[0] for call in server.calls]
    assert 5 < sum(text.startswith("fine") for text in called_m) < 25  # the reference is not always first
    assert {call["max_tokens"] for call in server.calls} == {1}
    assert all(call["logprobs"] and call["top_logprobs"] == 5 for call in server.calls)
    assert [row.len_model for row in rows] == [len(f"{word} answer") for word in words]
    metrics, _ = alpaca_eval.measure(rows, None)
    found = {metric.metric: metric for metric in metrics}
    assert found["win_rate"].value == pytest.approx(100 * (expected("bad") + expected("good") - 2) / 2)
    assert found["reward"].value == pytest.approx(-0.5)
    assert {metric.n for metric in metrics} == {N}


def test_a_rerun_asks_nothing_and_a_lost_third_is_asked_again(server, store):
    first = ask(server, scored(["good"] * N))
    kept = sorted((store / "verdicts").rglob("*.json"))
    assert len(kept) == len(server.calls) == N
    assert ask(server, scored(["good"] * N)) == first
    assert len(server.calls) == N
    lost = [json.loads(path.read_text())["request"]["messages"] for path in kept[::3]]
    for path in kept[::3]:
        path.unlink()
    assert ask(server, scored(["good"] * N)) == first
    again = [call["messages"] for call in server.calls[N:]]
    assert sorted(map(json.dumps, again)) == sorted(map(json.dumps, lost))
    assert len(again) == N // 3


def test_the_ceiling_stops_the_run_and_a_higher_one_continues_it(server, tmp_path):
    """A call costs 0.01 USD by its usage, four times less than it may cost by its length."""
    prices = {"judge": {"input": 90.0, "output": 100.0}}
    settings = {"prices": prices, "ledger": tmp_path / "costs.json", "concurrency": 1}
    with pytest.raises(JudgeError, match="max_cost"):
        ask(server, scored(["good"] * N), max_cost=0.155, **settings)
    made = len(server.calls)
    spent = json.loads((tmp_path / "costs.json").read_text())["spent"]
    assert spent == pytest.approx(0.01 * made)
    estimates = [estimate(client(server, **settings).config, call) for call in server.calls]
    assert spent - 0.01 + estimates[-1] <= 0.155, "the last call was allowed"
    assert spent + min(estimates) > 0.155, "and no other one would have been"
    with pytest.raises(JudgeError, match="max_cost"):
        ask(server, scored(["good"] * N), max_cost=0.155, **settings)
    assert len(server.calls) == made, "not one call more under the same ceiling"
    rows = ask(server, scored(["good"] * N), max_cost=10, **settings)
    assert len(server.calls) == N
    assert all(row.preference == pytest.approx(expected("good")) for row in rows)


def test_verdicts_that_cannot_be_read_are_asked_again_and_never_scored(server):
    def answer(body):
        if "Say 3." in body["messages"][1]["content"]:
            return completion("hm", logprobs={"hm": -0.1})
        return weighted(body)

    server.answer = answer
    judge = client(server, retries=2)
    rows = alpaca_eval.judge(QUESTIONS, scored(["good"] * N), WEIGHTED, judge.ask)
    assert rows[3].preference is None
    assert judge.counts["not accepted"] == 3
    found = {metric.metric: metric for metric in alpaca_eval.measure(rows, None)[0]}
    assert found["win_rate"].n == N - 1
    assert found["win_rate"].value == pytest.approx(100 * (expected("good") - 1))
    assert found["avg_length"].n == N


def test_the_command_reads_a_results_rows(server, tmp_path, capsys):
    rows = ask(server, scored(["good", "bad"] * (N // 2)))
    rows[3] = rows[3].model_copy(update={"preference": None})
    write_jsonl(tmp_path / "alpaca_eval.generations.jsonl", rows)
    capsys.readouterr()
    assert (
        cli.main(
            ["benchmark", "alpaca_eval", "--annotations", str(tmp_path / "alpaca_eval.generations.jsonl")]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)
    metrics = {metric.metric: metric for metric in alpaca_eval.measure(rows, None)[0]}
    assert found["win_rate"] == metrics["win_rate"].value
    assert found["n_total"] == metrics["win_rate"].n == N - 1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("index,preference,len_baseline\n0,1,2\n", "no column len_model"),
        ("index,preference,len_baseline,len_model\n0,1,2,3\n0,1,2,3\n", "index 0 stands twice"),
        ("index,preference,len_baseline,len_model\n0,0.5,2,3\n", "preference 0.5 is not between 1 and 2"),
        ("index,preference,len_baseline,len_model\n0,1.5,,3\n", "a length is missing"),
        ("", "cannot be read"),
    ],
)
def test_annotations_that_are_none(tmp_path, capsys, text, word):
    path = tmp_path / "annotations.csv"
    path.write_text(text)
    assert cli.main(["benchmark", "alpaca_eval", "--annotations", str(path)]) == 2
    assert word in capsys.readouterr().err


def test_equal_outputs_are_a_draw_without_a_call(server):
    same = [Question(instruction="Say.", output="good answer"), *QUESTIONS[1:]]
    rows = alpaca_eval.judge(same, scored(["good"] * N, same), WEIGHTED, client(server).ask)
    assert rows[0].preference == 1.5
    assert len(server.calls) == N - 1


def test_a_question_without_a_response_is_left_out(server):
    rows = ask(server, scored(["good"] * N)[:4] + scored(["good"] * N)[5:])
    assert [row.index for row in rows] == [*range(4), *range(5, N)]
    _, reason = alpaca_eval.measure(rows, None)
    assert reason == "refused: 29 instructions; it is defined on the 805 official ones"


def test_an_instruction_that_stands_twice_is_answered_once_and_counts_twice(server):
    twice = [*QUESTIONS, QUESTIONS[0]]
    assert len(prompts(twice)) == N
    rows = alpaca_eval.judge(twice, scored(["good"] * N), WEIGHTED, client(server).ask)
    assert [row.index for row in rows] == list(range(N + 1))
    assert rows[-1].preference == rows[0].preference
    assert len(server.calls) == N


def test_the_difference_is_paired_by_instruction(server):
    expo, aligned = (
        ask(server, scored(words)) for words in (["good"] * N, ["good"] * 10 + ["bad"] * (N - 10))
    )
    found, reason = alpaca_eval.compare(expo, aligned, None, SelectConfig(resamples=500))
    metrics = {each.metric: each for each in found}
    gain = 100 * (expected("good") - expected("bad")) * (N - 10) / N
    assert metrics["win_rate"].value == pytest.approx(gain)
    assert 0 < metrics["win_rate"].low < gain < metrics["win_rate"].high
    assert metrics["win_rate"].p_value < 0.01
    assert metrics["reward"].value == pytest.approx(3 * (N - 10) / N)
    assert "lc_win_rate" not in metrics
    bare = [row.model_copy(update={"reward": None}) for row in expo]
    assert {each.metric for each in alpaca_eval.measure(bare, None)[0]} == {*metrics} - {"reward"}
    assert reason == "refused: 30 instructions; it is defined on the 805 official ones"


def ranks(body: dict) -> str:
    first = odds(body) > 0
    return json.dumps([{"model": "m", "rank": 1 if first else 2}, {"model": "M", "rank": 2 if first else 1}])


def called(body: dict) -> dict:
    """A reply that has no text, only the call of the tool that was asked for."""
    reply = completion(None)
    function = {"name": body["tools"][0]["function"]["name"]}
    function["arguments"] = json.dumps({"ordered_models": json.loads(ranks(body))})
    tool = {"id": "1", "type": "function", "function": function}
    reply["choices"][0]["message"]["tool_calls"] = [tool]
    return reply


def list_of_models(body: dict) -> str:
    first, second = re.findall(r'"answer": """(.*?)"""', body["messages"][1]["content"], re.DOTALL)
    order = ["model_1", "model_2"]
    if merit(first) < merit(second):
        order.reverse()
    return str([{"model": name, "rank": rank} for rank, name in enumerate(order, 1)])


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("alpaca_eval_gpt4", list_of_models),
        ("alpaca_eval_gpt4_turbo_fn", called),
        ("alpaca_eval_clf_gpt4_turbo", weighted),
    ],
)
def test_other_annotators(server, name, answer):
    server.answer = answer
    words = ["bad", "good"] * (N // 2)
    rows = ask(server, scored(words), name, retries=0)
    assert [row.preference for row in rows] == [2.0 if word == "good" else 1.0 for word in words]
    assert not any("model_name" in call for call in server.calls)


def test_an_annotator_of_ones_own(server, tmp_path):
    folder = tmp_path / "short"
    folder.mkdir()
    (folder / "prompt.txt").write_text('<|im_start|>user\n"""{instruction}""" "output": """{output_1}"""'
                                       ' "output": """{output_2}"""\n<|im_end|>')  # fmt: skip
    (folder / "configs.yaml").write_text(
        "short:\n  prompt_template: short/prompt.txt\n  completions_kwargs: {model_name: x, max_tokens: 3}\n"
        "  fn_completion_parser: regex_parser\n  completion_parser_kwargs: {outputs_to_match: {1: first, 2: second}}\n"
    )

    def answer(body):
        first, second = OUTPUTS.findall(body["messages"][0]["content"])
        return "first" if merit(first) > merit(second) else "second"

    server.answer = answer
    rows = ask(server, scored(["good", "bad"] * (N // 2)), str(folder))
    assert [row.preference for row in rows] == [2.0, 1.0] * (N // 2)
    told = annotator.describe(str(folder))
    assert len(told["prompt_sha256"]["short"]) == 64


def test_a_folder_without_annotators_is_named(tmp_path):
    (tmp_path / "configs.yaml").write_text("mine: {fn_completions: openai_completions}")
    with pytest.raises(ConfigError, match="prompt_template"):
        find_annotator(f"{tmp_path}/")


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("weighted_alpaca_eval_gpt4", "did you mean 'weighted_alpaca_eval_gpt4_turbo'"),
        ("claude", "anthropic_completions"),
        ("alpaca_farm", "tokens_to_avoid"),
    ],
)
def test_annotators_that_cannot_be_used_are_named(name, word):
    with pytest.raises(ConfigError, match=word):
        find_annotator(name)


def test_nothing_is_written_into_the_installation(server):
    """The package's defaults write annotations and model weights beside its own code."""
    site = Path(sysconfig.get_paths()["purelib"])

    def files() -> dict[Path, tuple[int, int]]:
        return {
            path: (path.stat().st_mtime_ns, path.stat().st_size)
            for folder in (site / "alpaca_eval", site)
            for path in (folder.rglob("*") if folder != site else folder.glob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }

    before = files()
    alpaca_eval.measure(ask(server, scored(["good"] * N)), None)
    assert files() == before


def test_the_key_of_a_stray_env_file_is_not_read(tmp_path, monkeypatch):
    (tmp_path / ".env").write_text("OPENAI_API_KEY=stray\n")
    program = (
        "import os, logging\nfrom expoflow.benchmarks.alpaca_eval import win_rates\nwin_rates.package()\n"
        "print(os.environ.get('OPENAI_API_KEY'), logging.getLogger().level)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert run.stdout.split() == ["None", "30"], run.stderr


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[]", "no questions"),
        ('[{"instruction": "a"}]', "instruction, output"),
        ("{", "instruction, output"),
        ('[{"instruction": "a", "output": 3}]', "instruction, output"),
    ],
)
def test_reference_files_that_are_none(tmp_path, text, word):
    path = tmp_path / "reference.json"
    path.write_text(text)
    with pytest.raises(DataError, match=word):
        read_questions(path)


def test_reference_files_as_a_list_or_as_lines(tmp_path):
    rows = [{**question.model_dump(), "generator": "x", "dataset": "y"} for question in QUESTIONS]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    (tmp_path / "lines.json").write_text("\n".join(map(json.dumps, rows)))
    assert read_questions(tmp_path / "list.json") == QUESTIONS
    assert read_questions(tmp_path / "lines.json") == QUESTIONS
