"""MT-Bench on a real tiny model, against a scripted judge: what a user gets, and what it costs after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path

import pytest
from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.job import Job
from expoflow.benchmarks.mt_bench import benchmark as mt_bench
from expoflow.benchmarks.mt_bench import files as mt_bench_files
from expoflow.checkpoints import manifests
from expoflow.checks import parse
from expoflow.config.benchmarks import MtBenchBenchmark
from expoflow.config.sources import ModelConfig
from expoflow.errors import DataError, JudgeError
from expoflow.files.records import read_json, read_jsonl, write_json
from expoflow.miniature import model, world
from expoflow.results import BenchmarkResult
from judge_server import EMPTY, GARBAGE, Fault, JudgeServer, completion

CATEGORIES = ("writing", "roleplay", "reasoning", "math", "coding", "extraction", "stem", "humanities")
TEMPLATES = {
    "single-v1": "GRADE 1\n[Q] {question}\n[A] {answer}",
    "single-math-v1": "GRADE 1 BY\n[Q] {question}\n[R] {ref_answer_1}\n[A] {answer}",
    "single-v1-multi-turn": "GRADE 2\n[Q] {question_1}\n[A] {answer_1}\n[Q] {question_2}\n[A] {answer_2}",
    "single-math-v1-multi-turn": "GRADE 2 BY\n[Q] {question_1}\n[R] {ref_answer_1}\n[A] {answer_1}\n"
    "[Q] {question_2}\n[R] {ref_answer_2}\n[A] {answer_2}",
}
ASKED = [prompt.messages[0].content for prompt in world.prompts("train", 0)[:160]]


def write_files(folder: Path, count: int = 80) -> Path:
    """Files in FastChat's formats and folders, with questions of the miniature's world: ten a category."""
    rows, references = [], []
    for i in range(count):
        category = CATEGORIES[i // 10]
        rows.append({"question_id": 81 + i, "category": category, "turns": ASKED[2 * i : 2 * i + 2]})
        if category in ("math", "reasoning", "coding"):
            turns = [f"first right {i}", f"second right {i}"]
            references.append({"question_id": 81 + i, "choices": [{"index": 0, "turns": turns}]})
    judges = [
        {"name": name, "type": "single", "system_prompt": "Be fair.", "prompt_template": text,
         "output_format": "[[rating]]"}
        for name, text in TEMPLATES.items()
    ]  # fmt: skip
    judges.append({"name": "pair-v2", "type": "pairwise", "prompt_template": "{unknown}"})
    for name, lines in (
        ("mt_bench/question.jsonl", rows),
        ("mt_bench/reference_answer/gpt-4.jsonl", references),
        ("judge_prompts.jsonl", judges),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save(model.new(0), folder)
    return folder


@pytest.fixture
def place(tmp_path, checkpoint, monkeypatch) -> Path:
    """A Snakemake directory with the inputs of a job."""
    monkeypatch.chdir(tmp_path)
    source = ModelConfig(path=str(checkpoint))
    write_json(tmp_path / "model.json", manifests.manifest("model", source, checkpoint))
    gathered = mt_bench_files.questions(MtBenchBenchmark(data=str(write_files(tmp_path / "data"))), seed=0)
    write_json(tmp_path / "data.json", gathered)
    return tmp_path


def settings(server: JudgeServer, **judge) -> dict:
    """A config with the judge at `server`."""
    endpoint = {"base_url": server.url, "model": "judge", "api_key_env": "", "backoff": 0.01, **judge}
    return {
        "models": {name: {"path": name} for name in ("sft", "dpo", "rm")},
        "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [1]}},
        "prompts": {"dev": {"miniature": "dev"}},
        "reward_model": "rm",
        "benchmarks": {"mt_bench": {"data": "data", "max_tokens": 6, "judge": endpoint}},
    }


def make_job(config: dict, variant: str = "aligned", said: list | None = None) -> Job:
    return Job(
        pair="pair",
        variant=variant,
        benchmark="mt_bench",
        config=parse(config),
        inputs={"model": Path("model.json"), "data": Path("data.json")},
        usage=ModelConfig(path="x").usage(date(2024, 7, 26)),
        code="0",
        result=Path(f"{variant}.json"),
        rows=Path(f"{variant}.generations.jsonl"),
        say=print if said is None else said.append,
    )


def asked_of(body: dict) -> tuple[int, str]:
    """Which question and turn a judge's prompt is about."""
    last = re.findall(r"^\[Q\] (.*)$", body["messages"][-1]["content"], re.MULTILINE)[-1]
    return divmod(ASKED.index(last), 2)


def grade(body: dict) -> str:
    """Question i gets 1 + i % 10 in the first turn and one less, at least 1, in the second."""
    question, turn = asked_of(body)
    return f"Well. Rating: [[{max(1, 1 + question % 10 - turn)}]]"


# By hand: each category has 1..10 in turn 1, mean 5.5, and 1, 1..9 in turn 2, mean 4.6.
EXPECTED = {"score": 5.05, "turn_1": 5.5, "turn_2": 4.6} | dict.fromkeys(CATEGORIES, 5.05)


def values(path: str = "aligned.json") -> dict[str, float]:
    return {metric.metric: metric.value for metric in read_json(Path(path), BenchmarkResult).metrics}


def test_160_judgments_and_the_score_by_hand(place):
    with JudgeServer(grade) as server:
        mt_bench.run(make_job(settings(server)))
    assert len(server.calls) == 160
    assert values() == pytest.approx(EXPECTED)
    result = read_json(Path("aligned.json"), BenchmarkResult)
    assert {m.metric: m.n for m in result.metrics} == {
        "score": 80,
        "turn_1": 80,
        "turn_2": 80,
    } | dict.fromkeys(CATEGORIES, 10)
    # 10 categories' questions have the means 1, 1.5, 2.5 ... 9.5, eight of each
    means = [1, *(x + 0.5 for x in range(1, 10))] * 8
    spread = (sum((x - 5.05) ** 2 for x in means) / 79) ** 0.5
    assert result.metrics[0].standard_error == pytest.approx(spread / 80**0.5)
    judge = result.provenance["judge"]
    assert (judge["judgments"], judge["missing"], judge["counts"]) == (160, 0, {"calls": 160})
    assert set(result.provenance["files"]) == set(mt_bench_files.FILES)
    assert "openai" in result.provenance


def test_what_the_judge_is_asked(place):
    with JudgeServer(grade) as server:
        mt_bench.run(make_job(settings(server)))
    rows = {
        (row.question_id, row.turn): row
        for row in read_jsonl(Path("aligned.generations.jsonl"), mt_bench.Graded)
    }
    for body in server.calls:
        question, turn = asked_of(body)
        one, two = ASKED[2 * question : 2 * question + 2]
        first, second = (rows[81 + question, place].response for place in (1, 2))
        math = CATEGORIES[question // 10] in ("math", "reasoning", "coding")
        expected = [f"GRADE {turn + 1}{' BY' if math else ''}", f"[Q] {one}"]
        expected += [f"[R] first right {question}"] if math else []
        expected += [f"[A] {first}"]
        if turn:
            expected += [f"[Q] {two}"]
            expected += [f"[R] second right {question}"] if math else []
            expected += [f"[A] {second}"]
        system, user = body["messages"]
        assert (system["content"], user["content"]) == ("Be fair.", "\n".join(expected))
        assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 2048, "judge")


def test_the_second_turn_sees_the_first_answer_and_categories_have_their_temperature(place):
    with JudgeServer(grade) as server:
        mt_bench.run(make_job(settings(server)))
        first = [row.response for row in read_jsonl(Path("aligned.generations.jsonl"), mt_bench.Graded)]
        # another seed moves what is sampled: writing and roleplay, hardly stem and humanities; never the others
        changed = settings(server)
        changed["benchmarks"]["mt_bench"]["seed"] = 7
        mt_bench.run(make_job(changed))
    rows = read_jsonl(Path("aligned.generations.jsonl"), mt_bench.Graded)
    moved = {row.category for row, before in zip(rows, first, strict=True) if row.response != before}
    assert {"writing", "roleplay"} <= moved <= {"writing", "roleplay", "stem", "humanities"}
    assert {row.response_tokens for row in rows} <= set(range(7))


def test_a_rerun_generates_nothing_and_calls_nobody(place, checkpoint):
    said = []
    with JudgeServer(grade) as server:
        mt_bench.run(make_job(settings(server)))
        before = Path("aligned.json").read_bytes(), Path("aligned.generations.jsonl").read_bytes()
        Path("aligned.json").unlink()
        mt_bench.run(
            make_job(
                settings(server, concurrency=2, max_cost=1, prices={"judge": {"input": 1, "output": 1}}),
                said=said,
            )
        )
    assert len(server.calls) == 160
    assert "judge judge: 0 calls, 160 verdicts are kept" in said
    assert sum("are kept from before" in line for line in said) == 6
    assert Path("aligned.generations.jsonl").read_bytes() == before[1]
    assert values() == pytest.approx(EXPECTED)


RUN = """
    import json, sys
    sys.path[:0] = json.loads(sys.argv[1])
    from test_mt_bench import make_job
    from expoflow.benchmarks.mt_bench import benchmark as mt_bench
    mt_bench.run(make_job(json.load(sys.stdin)))
"""


@pytest.mark.long
def test_killed_after_57_the_rerun_makes_103_calls(place):
    """SIGKILL of the whole job, answers included, when 57 judgments have been read."""
    with JudgeServer(grade) as server:
        config = settings(server, concurrency=1)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RUN), json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            text=True,
        )
        server.on_call = lambda index: os.kill(process.pid, signal.SIGKILL) if index == 57 else None
        process.communicate(json.dumps(config))
        assert process.returncode == -signal.SIGKILL
        assert not Path("aligned.json").exists()
        server.on_call = lambda index: None
        under_way = len(server.calls)
        assert under_way == 58  # the last one was asked, and never read
        said = []
        mt_bench.run(make_job(config, said=said))
    assert len(server.calls) - under_way == 103
    assert any("103 calls, 57 verdicts are kept" in line for line in said)
    assert sum("are kept from before" in line for line in said) == 6  # no answer was generated again
    assert values() == pytest.approx(EXPECTED)


def test_faults_are_handled_counted_and_reported(place):
    said = []
    with JudgeServer(grade) as server:
        server.faults = {
            3: Fault(status=429, headers={"Retry-After": "0"}),
            10: Fault(status=500),
            20: GARBAGE,
            30: EMPTY,
            40: Fault(hang=60),
            50: Fault(body=json.dumps(completion("I would rather not say."))),
        }
        mt_bench.run(make_job(settings(server, timeout=10), said=said))
    expected = {
        "rate limited": 1, "server error": 1, "garbage": 1, "empty choice": 1, "timeout": 1, "not accepted": 1
    }  # fmt: skip
    assert values() == pytest.approx(EXPECTED)
    judge = read_json(Path("aligned.json"), BenchmarkResult).provenance["judge"]
    assert judge["counts"] == {"calls": 166} | expected
    assert judge["missing"] == 0
    line = next(line for line in said if line.startswith("judge judge: 166 calls"))
    assert all(f"{name} {count}" in line for name, count in expected.items())


def test_a_grade_that_never_comes_is_left_out_and_never_invented(place):
    """Question 9 (writing) of the first turn would have got a 10."""

    def stubborn(body):
        return "Rating: ten out of ten" if asked_of(body) == (9, 0) else grade(body)

    said = []
    with JudgeServer(stubborn) as server:
        mt_bench.run(make_job(settings(server, retries=2), said=said))
    assert len(server.calls) == 162
    result = read_json(Path("aligned.json"), BenchmarkResult)
    found = {metric.metric: metric for metric in result.metrics}
    assert (found["turn_1"].value, found["turn_1"].n) == (pytest.approx((440 - 10) / 79), 79)
    assert (found["turn_2"].value, found["turn_2"].n) == (pytest.approx(4.6), 80)
    assert (result.provenance["judge"]["missing"], result.provenance["judge"]["judgments"]) == (1, 159)
    row = next(
        r for r in read_jsonl(Path("aligned.generations.jsonl"), mt_bench.Graded) if r.question_id == 90
    )
    assert (row.turn, row.score, row.judgment) == (1, None, None)
    assert any("1 of 160 verdicts are missing" in line for line in said)


def test_without_any_grade_there_is_no_result(place):
    with JudgeServer(lambda body: "no") as server, pytest.raises(JudgeError, match="none of 160 grades came"):
        mt_bench.run(make_job(settings(server, retries=0)))
    assert not Path("aligned.json").exists()


def test_max_cost_stops_at_the_right_call_and_the_rerun_goes_on(place):
    """A judgment costs 1 + 1 USD, and may cost its prompt and 2,048 tokens of reply."""
    with JudgeServer(lambda body: completion(grade(body), usage=(1_000, 1))) as server:
        prices = {"judge": {"input": 1_000, "output": 1_000_000}}
        tokens = {"concurrency": 1, "prices": prices}
        with pytest.raises(JudgeError, match=r"raise max_cost and run again"):
            mt_bench.run(make_job(settings(server, max_cost=2060, **tokens)))
        # each call costs 2; the next may cost 2048 + its prompt, some 0.05: after 5 calls 10 + 2048 fit, 12 do not
        assert len(server.calls) == 6
        ledger = json.loads(Path("results/costs/mt_bench.json").read_text())
        assert ledger["spent"] == pytest.approx(12)
        mt_bench.run(make_job(settings(server, max_cost=2400, **tokens)))
    assert len(server.calls) == 160
    assert values() == pytest.approx(EXPECTED)
    assert json.loads(Path("results/costs/mt_bench.json").read_text())["spent"] == pytest.approx(320)
    assert read_json(Path("aligned.json"), BenchmarkResult).provenance["judge"]["cost"] == pytest.approx(320)


VERDICTS = {
    "Rating: [[7]]": 7, "Rating: [[7.5]] as [1] says": 7.5, "I give it [8].": 8, "[3] sources. Rating: [[4]]": 4,
    "Rating: [[11]]": None, "Rating: [[0]]": None, "Rating: 7/10": None, "[[rating]]": None, "": None,
}  # fmt: skip


@pytest.mark.parametrize("said", VERDICTS)
def test_a_verdict_is_read_as_fastchat_does_and_never_a_zero(said):
    assert mt_bench.score(completion(said)) == VERDICTS[said]


def test_the_difference_is_paired_over_what_both_have_a_grade_of(place):
    def rows(scores: dict[tuple[int, int], float | None]) -> list[mt_bench.Graded]:
        return [
            mt_bench.Graded(question_id=q, category="math", turn=turn, response="", response_tokens=0, finish_reason="stop", engine="transformers", score=score)
            for (q, turn), score in scores.items()
        ]  # fmt: skip

    aligned = rows({(1, 1): 5, (1, 2): 4, (2, 1): 7, (2, 2): None, (3, 1): 2, (3, 2): 2})
    expo = rows({(1, 1): 6, (1, 2): 6, (2, 1): 7, (2, 2): 9, (3, 1): None, (3, 2): 3})
    for variant, each in (("aligned", aligned), ("expo", expo)):
        Path(f"{variant}.jsonl").write_text("".join(row.model_dump_json() + "\n" for row in each))
    with JudgeServer(grade) as server:
        config = settings(server) | {"select": {"resamples": 200}}
    comparison = Comparison(
        pair="pair", benchmark="mt_bench", config=parse(config), result=Path("difference.json"),
        inputs={"aligned": Path("aligned.jsonl"), "expo": Path("expo.jsonl")},
    )  # fmt: skip
    mt_bench.run_comparison(comparison)
    found = {m.metric: m for m in read_json(Path("difference.json"), BenchmarkResult).metrics}
    assert (found["score"].value, found["score"].n) == (pytest.approx((1.5 + 0 + 1) / 3), 3)
    assert (found["turn_1"].value, found["turn_1"].n) == (pytest.approx(0.5), 2)
    assert found["math"].low <= found["math"].value <= found["math"].high


def spoil(folder: Path, name: str, change) -> None:
    path = folder / name
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


SPOILT = {
    "a missing file": (lambda d: (d / "judge_prompts.jsonl").unlink(), "has no judge_prompts.jsonl; name a folder"),
    "a missing judge prompt": (
        lambda d: spoil(d, "judge_prompts.jsonl", lambda rows: rows.pop(0)),
        "judge_prompts.jsonl: no judge prompt 'single-v1'",
    ),
    "a prompt with another name to fill in": (
        lambda d: spoil(d, "judge_prompts.jsonl", lambda rows: rows[0].update(prompt_template="{essay}")),
        "judge_prompts.jsonl: not in FastChat's format .*essay",
    ),
    "a question with one turn": (
        lambda d: spoil(d, "mt_bench/question.jsonl", lambda rows: rows[0].update(turns=["one"])),
        "question.jsonl: not in FastChat's format",
    ),
    "a question twice": (
        lambda d: spoil(d, "mt_bench/question.jsonl", lambda rows: rows.append(rows[0])),
        "question.jsonl: question_id 81 stands twice",
    ),
    "a reference that is missing": (
        lambda d: spoil(d, "mt_bench/reference_answer/gpt-4.jsonl", lambda rows: rows.pop(0)),
        "gpt-4.jsonl: no answer to question 101, which is graded against one",
    ),
    "no JSON": (
        lambda d: (d / "mt_bench/question.jsonl").write_text("{"), "question.jsonl: cannot be read as JSON lines"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILT)
def test_files_that_are_not_as_published_are_told(tmp_path, case):
    change, expected = SPOILT[case]
    change(write_files(tmp_path))
    with pytest.raises(DataError, match=expected):
        mt_bench_files.questions(MtBenchBenchmark(data=str(tmp_path)), seed=0)
