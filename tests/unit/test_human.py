"""Votes of people: what counts, the win rate by hand, and what is told before any job."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from expoflow import checks
from expoflow.benchmarks import bill
from expoflow.benchmarks.comparison import Comparison
from expoflow.benchmarks.human import benchmark, files
from expoflow.benchmarks.human.files import Vote
from expoflow.benchmarks.metrics import share
from expoflow.checks.machine import check_sources
from expoflow.config.stages import SelectConfig
from expoflow.errors import ConfigError, DataError
from expoflow.files.records import read_json, write_json, write_jsonl
from expoflow.paths import Results
from expoflow.project import estimate, status
from expoflow.results import BenchmarkResult, Scored
from expoflow.selection import statistics
from expoflow.selection.split import choosing, judging
from scipy import stats

CONFIG = {
    "models": {
        "sft": {"train": {"recipe": "sft", "data": "miniature"}},
        "dpo": {"train": {"recipe": "dpo", "from": "sft", "data": "miniature"}},
        "rm": {"train": {"recipe": "reward", "data": "miniature"}},
    },
    "pairs": {"tiny": {"sft": "sft", "aligned": "dpo", "alphas": [0.3]}},
    "prompts": {"dev": {"miniature": "dev"}, "test": {"miniature": "test"}},
    "reward_model": "rm",
    "benchmarks": {"human": {"votes": "votes.jsonl"}},
}
REWARD = {"reward": {"prompts": "test"}}


def text(alpha: str, prompt: str, sample: int = 0) -> str:
    return f"{prompt} at {alpha}, {sample}: äöü"


def digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def vote(prompt: str, winner: str, sample: int = 0, **given) -> Vote:
    known = {"pair": "tiny", "prompts": "dev", "left": "expo", "voter": "ann", "time": "2026-11-30T21:00:00Z"}
    known |= {name: digest(text(at, prompt, sample)) for name, at in (("aligned", "0"), ("expo", "0.3"))}
    return Vote(prompt_id=prompt, sample=sample, winner=winner, **known | given)


def line(**changed) -> str:
    return json.dumps(vote("a", "expo").model_dump() | changed)


# Numbers.


@pytest.mark.parametrize("n", [1, 2, 7, 20, 101])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_of_wins_and_losses_interval_and_p_value_are_the_exact_ones(n, confidence):
    for wins in range(n + 1):
        exact = stats.binomtest(wins, n)
        interval = exact.proportion_ci(confidence, method="exact")
        metric = share("win_rate", np.repeat([1.0, 0.0], [wins, n - wins]), confidence)
        assert (metric.low, metric.high) == pytest.approx((interval.low, interval.high), abs=1e-12)
        assert metric.p_value == pytest.approx(exact.pvalue, abs=1e-12)


def test_twenty_of_twenty_and_none_of_twenty_are_not_sure():
    won, lost = (share("win_rate", np.full(20, value), 0.95) for value in (1.0, 0.0))
    assert (won.low, won.high) == pytest.approx((0.025 ** (1 / 20), 1))
    assert (lost.low, lost.high) == pytest.approx((0, 1 - 0.025 ** (1 / 20)))
    assert won.standard_error is None
    assert lost.standard_error is None


def test_the_p_value_says_what_the_interval_says():
    for n in (3, 8, 20, 57):
        for halves in range(2 * n + 1):
            for confidence in (0.8, 0.95):
                low, high = statistics.share_interval(halves / 2 / n, n, confidence)
                sure = statistics.share_p_value(halves / 2 / n, n) < 1 - confidence
                assert sure == (low > 0.5 or high < 0.5), (n, halves)
                assert 0 <= low <= halves / 2 / n <= high <= 1


def test_with_ties_the_interval_holds_at_least_as_often_as_it_says():
    """All outcomes of n prompts, each a win, a tie or a loss."""
    for n in (5, 12, 20):
        halves = np.arange(2 * n + 1)
        intervals = np.array([statistics.share_interval(each / 2 / n, n, 0.95) for each in halves])
        for tie in (0.0, 0.1, 0.3, 0.6):
            for win in np.linspace(0, 1 - tie, 21):
                chances = np.array([1.0])
                for _ in range(n):
                    chances = np.convolve(chances, [1 - win - tie, tie, win])
                held = (intervals[:, 0] <= win + tie / 2) & (win + tie / 2 <= intervals[:, 1])
                assert chances[held].sum() >= 0.95 - 1e-9, (n, tie, win)


def measured(votes, chose=(), **select) -> dict:
    known = {}
    for each in votes:
        known.setdefault((each.prompts, each.prompt_id, each.sample), set()).add((each.aligned, each.expo))
    counted = benchmark.count(votes, known, set(chose))
    return {metric.metric: metric for metric in benchmark.measure(counted, SelectConfig(**select))}


def test_a_prompt_is_the_mean_of_its_votes():
    votes = [
        vote("a", "expo"),
        vote("a", "aligned", voter="bob"),
        vote("a", "expo", sample=1),
        vote("b", "tie"),
        vote("c", "expo", left="aligned"),
    ]
    found = measured(votes)
    rate = found["win_rate"]
    assert (rate.value, rate.n) == (pytest.approx((2 / 3 + 1 / 2 + 1) / 3), 3)
    assert (rate.low, rate.high) == statistics.share_interval(rate.value, 3, 0.95)
    assert rate.standard_error == pytest.approx(np.std([2 / 3, 1 / 2, 1], ddof=1) / np.sqrt(3))
    assert (found["ties"].value, found["ties"].n) == (1 / 5, 5)
    # expo stood on the left and won twice; once aligned won on the right, and once expo did
    assert (found["left_won"].value, found["left_won"].n) == (2 / 4, 4)
    assert found["left_won"].low is None


def test_of_two_equal_answers_nobody_prefers_one():
    same = digest("the same")
    found = measured([vote("a", "expo", aligned=same, expo=same), vote("b", "aligned")])
    assert (found["win_rate"].value, found["ties"].value, found["left_won"].n) == (0.25, 0.5, 1)


def test_ties_alone_say_nothing_of_sides():
    found = measured([vote("a", "tie"), vote("b", "tie")])
    assert set(found) == {"win_rate", "ties"}
    assert found["win_rate"].value == 0.5
    assert found["win_rate"].p_value == 1


def test_what_counts():
    known = {("dev", name, 0): {(digest(text("0", name)), digest(text("0.3", name)))} for name in "abc"}
    votes = [
        vote("a", "expo"),
        vote("b", "expo", expo=digest("of an earlier choice")),
        vote("a", "tie"),  # the same voter's later one
        vote("a", "aligned", voter="bob"),
        vote("c", "expo", sample=1),
        vote("d", "expo"),
        vote("c", "expo", prompts="test"),
    ]
    counted = benchmark.count(votes, known, {"a", "b", "c"})
    assert [(each.voter, each.winner) for each in counted.votes] == [("ann", "tie"), ("bob", "aligned")]
    assert (counted.other, counted.replaced, counted.chose, counted.held_out) == (4, 1, 0, False)
    assert [each.split("; ")[0] for each in benchmark.said(counted, "tiny")] == [
        "tiny: 4 votes do not count: they are not on the answers of this run",
        "tiny: 1 votes do not count: the same voter voted again on the same answers",
        "tiny: all votes are on prompts that also chose alpha: the win rate is not held-out (sweep_win_rate)",
    ]
    assert {metric.metric for metric in benchmark.measure(counted, SelectConfig())} == {
        "sweep_win_rate",
        "ties",
        "left_won",
    }


def test_votes_on_prompts_that_chose_alpha_do_not_count_beside_others():
    votes = [vote("a", "aligned"), vote("b", "expo", prompts="reward"), vote("a", "tie", prompts="reward")]
    assert measured(votes, chose="a")["win_rate"].value == 1
    assert measured(votes[:1], chose="a")["sweep_win_rate"].value == 0


def test_prompts_that_judge_the_choice_did_not_make_it():
    ids = [f"{number:016x}" for number in range(10)]
    chose = choosing(ids, 0.3)
    assert chose == set(ids) - judging(ids, 0.3)
    assert len(chose) == 7
    assert choosing(ids, None) == set(ids)


# A pair's files.


def generations(alpha: str, prompts: str) -> list[Scored]:
    fixed = {"sample": 0, "seed": 0, "response_tokens": 1, "finish_reason": "stop", "engine": "transformers"}
    return [Scored(reward=1.0, prompt_id=name, response=text(alpha, name), **fixed) for name in prompts]


@pytest.fixture
def compared(tmp_path):
    """Run the comparison on votes, with these settings of the config."""

    def run(votes: list[Vote], alpha: float = 0.3, **settings):
        config = checks.parse(CONFIG | settings)
        rows = [
            {"pair": "tiny", "prompts": "dev", "alpha": at, "prompt_id": name, "sample": 0, "response": text(at, name), "reward": 1.0}
            for at in ("-1", "0", "0.3", "1")
            for name in "abcd"
        ]  # fmt: skip
        pd.DataFrame(rows).to_parquet(tmp_path / "answers.parquet")
        write_json(tmp_path / "recipe.json", {"alpha": alpha, "effective_alpha": alpha, "more": "of it"})
        write_jsonl(tmp_path / "votes.jsonl", votes)
        inputs = {"votes": "votes.jsonl", "answers": "answers.parquet", "model": "recipe.json"}
        if config.benchmarks.reward:
            for name, at in (("aligned", "0"), ("expo", "0.3")):
                write_jsonl(tmp_path / f"{name}.jsonl", generations(at, "dxyz"))
                inputs[name] = f"{name}.jsonl"
        said = []
        benchmark.run_comparison(
            Comparison(
                pair="tiny",
                benchmark="human",
                config=config,
                inputs={name: tmp_path / file for name, file in inputs.items()},
                result=tmp_path / "human.json",
                say=said.append,
            )
        )
        return read_json(tmp_path / "human.json", BenchmarkResult), said

    return run


def test_the_result_says_on_which_prompts_it_is(compared):
    others = [vote("a", "expo", pair="other"), vote("e", "expo")]
    result, said = compared([vote("a", "expo"), vote("b", "tie"), *others])
    assert (result.variant, result.benchmark, result.prompts) == ("expo-aligned", "human", "dev")
    assert result.metric("sweep_win_rate").value == 0.75
    told = {name: result.provenance[name] for name in ("alpha", "held_out", "votes", "voters", "expo_left")}
    assert told == {"alpha": "0.3", "held_out": False, "votes": 2, "voters": 1, "expo_left": 2}
    assert result.provenance["not_counted"] == {"other_answers": 1, "replaced": 0, "prompts_that_chose": 0}
    assert said[-1].startswith("tiny: human: expo - aligned: sweep_win_rate 0.750 [")


def test_votes_on_held_out_answers_count_alone(compared):
    held = [vote(name, "expo", prompts="reward") for name in "xyz"]
    both = [vote("a", "aligned"), vote("d", "aligned", prompts="reward")]  # d chose alpha too
    result, said = compared(held + both, benchmarks=CONFIG["benchmarks"] | REWARD)
    assert (result.prompts, result.metric("win_rate").value, result.metric("win_rate").n) == ("test", 1, 3)
    assert result.provenance["not_counted"]["prompts_that_chose"] == 2
    assert any("2 votes do not count: they are on prompts that chose alpha" in each for each in said)


def test_half_of_the_sweeps_prompts_may_be_held_out(compared):
    result, _ = compared([vote(name, "expo") for name in "abcd"], select={"judge": 0.5})
    assert (result.prompts, result.metric("win_rate").n) == ("dev", 2)


def test_votes_on_an_earlier_choice_are_no_votes(compared):
    votes = [vote("a", "expo", expo=digest(text("1", "a"))), vote("b", "tie", aligned=digest("once"))]
    with pytest.raises(
        DataError,
        match=r"none of the 2 votes on tiny is on answers of alpha 0 and alpha 0.3, .*; vote again on",
    ):
        compared(votes)


def test_of_the_aligned_model_itself_there_is_nothing_to_prefer(compared):
    with pytest.raises(DataError, match=r"alpha 0 was chosen, .*; remove human from the benchmarks"):
        compared([vote("a", "expo")], alpha=0)


# Before any job.


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "benchmarks.human.votes: no file 'votes.jsonl'; vote on results/pairs/tiny/answers.html and save"),
        ("", "pairs.tiny.benchmarks.human.votes: 'votes.jsonl' has no vote on this pair (pairs in it: none); vote on"),
        (line(pair="mine"), "'votes.jsonl' has no vote on this pair (pairs in it: mine); vote on results/pairs/tiny"),
        (line() + "\n{}\n", "votes.jsonl:2: is not a vote (pair: Field required); correct or remove the line"),
        (line() + "\nvoted\n", "votes.jsonl:2: not JSON (Expecting value); write one JSON object per line"),
        (line(winner="both"), "votes.jsonl:1: is not a vote (winner: Input should be 'aligned', 'expo' or 'tie'); correct"),
        (line(expo="0.3"), "votes.jsonl:1: is not a vote (expo: String should match pattern '^[0-9a-f]{16}$'); correct"),
        (line(prompt="Hello"), "votes.jsonl:1: is not a vote (prompt: Extra inputs are not permitted); correct or remove"),
        (line(sample=-1), "votes.jsonl:1: is not a vote (sample: Input should be greater than or equal to 0); correct"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_votes_is_told_before_any_job(content, problem, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("votes.jsonl").write_text(content)
    with pytest.raises(ConfigError) as error:
        check_sources(checks.parse(CONFIG))
    (found,) = error.value.problems
    assert problem in found
    # also where a finished run has a result already
    write_json(Results().benchmark("tiny", "expo-aligned", "human"), {})
    with pytest.raises(ConfigError):
        check_sources(checks.parse(CONFIG))


def test_files_of_several_voters_stand_one_after_the_other(tmp_path):
    (tmp_path / "votes.jsonl").write_bytes(f"\ufeff{line()}\r\n\r\n{line(voter='bob')}".encode())
    assert [each.voter for each in files.read_votes(tmp_path / "votes.jsonl")] == ["ann", "bob"]


def test_others_know_that_it_has_no_result_of_single_models(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = checks.parse(CONFIG | {"benchmarks": CONFIG["benchmarks"] | REWARD})
    result = Results().benchmark("tiny", "expo-aligned", "human")
    assert bill.unfinished(config) == {("tiny", "reward"): 3, ("tiny", "human"): 1}
    assert status.stages(config)["tiny: benchmark"][3:] == [result]
    write_json(result, {})
    assert ("tiny", "human") not in bill.unfinished(config)
    bars = {"mine": {"kind": "bars", "metrics": ["human.win_rate"]}}
    with pytest.raises(
        ConfigError, match=r"figures.mine: human compares two models, and has no values of each"
    ):
        checks.parse(CONFIG | {"figures": bars})


def test_a_rehearsal_leaves_it_out():
    assert checks.parse(CONFIG | {"limit": 4}).section("tiny", "benchmarks").names() == []
    assert checks.parse(CONFIG).section("tiny", "benchmarks").names() == ["human"]


def test_the_plan_says_how_many_votes_there_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = checks.parse(CONFIG)
    before = estimate.lines(estimate.plan(config, online=False))
    Path("votes.jsonl").write_text(
        "\n".join([line(), line(voter="bob"), line(prompt_id="b"), line(pair="other")])
    )
    after = estimate.lines(estimate.plan(config, online=False))
    added = "votes on tiny: 3 (prompts: 2, voters: 2); no model is run for them"
    assert [each for each in after if each not in before] == [added]
