"""Published figures of AlpacaEval 2.0 from the published verdicts, through the command that anyone can run.

The verdicts lie in shared/data beside the repository, or in $EXPOFLOW_PUBLISHED; they are no part of it.
"""

import csv
import json
import math
import os
import re
from pathlib import Path

import pandas as pd
import pytest
from expoflow import cli
from expoflow.benchmarks.alpaca_eval import benchmark as alpaca_eval
from expoflow.benchmarks.alpaca_eval import win_rates
from expoflow.benchmarks.alpaca_eval.files import Question
from expoflow.benchmarks.judge.judge import Judge
from expoflow.config.benchmarks import JudgeConfig
from expoflow.config.stages import SelectConfig
from expoflow.results import Scored
from judge_server import JudgeServer, completion

pytest.importorskip("alpaca_eval", reason="pip install 'expoflow[bench]'")


def published() -> Path:
    """The folder of published data, or a skip that says where it was looked for."""
    places = [parent / "shared" / "data" for parent in Path(__file__).resolve().parents]
    if given := os.environ.get("EXPOFLOW_PUBLISHED"):
        places = [Path(given)]
    for place in places:
        if (place / "alpaca_eval_leaderboard.csv").is_file():
            return place
    pytest.skip("no published data: neither shared/data beside the repository nor $EXPOFLOW_PUBLISHED")


@pytest.fixture
def data() -> Path:
    return published()


def row(data: Path, model: str) -> dict[str, float]:
    with open(data / "alpaca_eval_leaderboard.csv", newline="") as file:
        return next(row for row in csv.DictReader(file) if row[""] == model)


def command(capsys: pytest.CaptureFixture, *arguments: object) -> dict:
    assert cli.main(["benchmark", "alpaca_eval", *map(str, arguments)]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("model", ["zephyr-7b-alpha", "zephyr_0.05"])
def test_the_published_figures(data, capsys, model):
    gamed = data / "alpaca_eval_df_gamed_surrogate.csv"
    found = command(
        capsys, "--annotations", data / f"alpaca_eval_{model}.csv", "--df-gamed", gamed,
        "--instruction-difficulty", data / "alpaca_eval_instruction_difficulty.csv",
    )  # fmt: skip
    expected = row(data, model)
    for name in ("win_rate", "standard_error", "discrete_win_rate"):
        assert found[name] == pytest.approx(float(expected[name]), abs=1e-9), name
    for name in ("n_wins", "n_wins_base", "n_draws", "n_total", "avg_length"):
        assert found[name] == int(expected[name]), name
    assert found["length_controlled_winrate"] == pytest.approx(
        float(expected["length_controlled_winrate"]), abs=1e-3
    )
    assert "surrogate" in found["length_controlled"]["note"]


def test_a_subset_has_no_length_controlled_win_rate(data, capsys, tmp_path):
    table = pd.read_csv(data / "alpaca_eval_zephyr_0.05.csv")
    gamed = data / "alpaca_eval_df_gamed_surrogate.csv"
    part, other, moved = (tmp_path / f"{name}.csv" for name in ("part", "other", "moved"))
    table.head(804).to_csv(part, index=False)
    table.assign(len_baseline=table["len_baseline"] + 1).to_csv(other, index=False)
    table.assign(index=table["index"] + 1).to_csv(moved, index=False)
    for path, word in ((part, "804"), (other, "reference"), (moved, "order")):
        found = command(capsys, "--annotations", path, "--df-gamed", gamed)
        assert found["length_controlled_winrate"] is None
        assert found["length_controlled"].startswith("refused: ")
        assert word in found["length_controlled"]
        assert found["win_rate"] == pytest.approx(float(row(data, "zephyr_0.05")["win_rate"]), abs=0.01)


def test_rows_go_by_their_index_and_not_by_their_line(data, capsys, tmp_path):
    table = pd.read_csv(data / "alpaca_eval_zephyr_0.05.csv")
    shuffled = tmp_path / "shuffled.csv"
    table.sample(frac=1, random_state=1).to_csv(shuffled, index=False)
    gamed = data / "alpaca_eval_df_gamed_surrogate.csv"
    found = command(capsys, "--annotations", shuffled, "--df-gamed", gamed)
    expected = float(row(data, "zephyr_0.05")["length_controlled_winrate"])
    assert found["length_controlled_winrate"] == pytest.approx(expected, abs=1e-3)


def test_without_the_file_it_is_named(data, capsys):
    found = command(capsys, "--annotations", data / "alpaca_eval_zephyr_0.05.csv")
    assert "df_gamed.csv" in found["length_controlled"]
    assert found["length_controlled_winrate"] is None


def test_files_that_do_not_belong_together(data, capsys, tmp_path):
    other = tmp_path / "difficulty.csv"
    table = pd.read_csv(data / "alpaca_eval_instruction_difficulty.csv", index_col=0)
    (table + 0.1).to_csv(other)
    arguments = ["--annotations", data / "alpaca_eval_zephyr_0.05.csv", "--instruction-difficulty", other]
    arguments += ["--df-gamed", data / "alpaca_eval_df_gamed_surrogate.csv"]
    assert cli.main(["benchmark", "alpaca_eval", *map(str, arguments)]) == 2
    assert "do not belong together" in capsys.readouterr().err


class Verdicts:
    """A judge that repeats published verdicts: which output is the model's stands in its first letter."""

    def __init__(self, path: Path):
        self.table = win_rates.read_annotations(path)
        self.questions = [
            Question(instruction=f"instruction {index}", output="r" * length)
            for index, length in self.table["len_baseline"].items()
        ]

    def scored(self) -> list[Scored]:
        return [
            Scored(
                prompt_id=question.prompt().prompt_id, sample=0, seed=0, response="m" * length, reward=length / 100,
                response_tokens=length, finish_reason="stop", engine="transformers",
            )
            for question, length in zip(self.questions, self.table["len_model"], strict=True)
        ]  # fmt: skip

    def answer(self, body: dict) -> dict:
        asked = body["messages"][1]["content"]
        index = int(re.search(r"instruction (\d+)", asked).group(1))
        better = self.table["preference"][index] - 1  # probability that the model's output is the better one
        first_is_model = re.search(r'"output": """(.)', asked).group(1) == "m"
        first = better if first_is_model else 1 - better
        chances = {"m": first, "M": 1 - first}
        return completion("m", logprobs={name: math.log(max(p, 1e-30)) for name, p in chances.items()})


def test_the_published_figures_through_prompts_a_judge_and_back(data):
    """805 calls over HTTP: prompts, order of the outputs, log probabilities and parser are the package's."""
    published = Verdicts(data / "alpaca_eval_zephyr_0.05.csv")
    with JudgeServer(published.answer) as server:
        config = JudgeConfig(base_url=server.url, model="gpt-4-1106-preview", api_key_env="")
        ask = Judge(config, say=lambda line: None).ask
        rows = alpaca_eval.judge(
            published.questions, published.scored(), "weighted_alpaca_eval_gpt4_turbo", ask
        )
        assert len(server.calls) == 805
    metrics, basis = alpaca_eval.measure(rows, data / "alpaca_eval_df_gamed_surrogate.csv")
    found, expected = {metric.metric: metric for metric in metrics}, row(data, "zephyr_0.05")
    assert found["win_rate"].value == pytest.approx(float(expected["win_rate"]), abs=1e-9)
    assert found["win_rate"].standard_error == pytest.approx(float(expected["standard_error"]), abs=1e-9)
    controlled = float(expected["length_controlled_winrate"])
    assert found["lc_win_rate"].value == pytest.approx(controlled, abs=1e-3)
    assert int(found["avg_length"].value) == int(expected["avg_length"])
    assert "surrogate" in basis["note"]


def test_the_difference_of_two_published_models_has_intervals(data, monkeypatch):
    """The package's standard error of 0.5 holds the fit fixed; fitted anew the difference has twice that."""
    monkeypatch.setattr(alpaca_eval, "REFITS", 25)
    after, before = (
        [
            alpaca_eval.Judged(**row.model_dump(), index=index, **published.table.loc[index])
            for index, row in enumerate(published.scored())
        ]
        for published in (Verdicts(data / f"alpaca_eval_{m}.csv") for m in ("zephyr-7b-alpha", "zephyr_0.05"))
    )
    gamed, config = data / "alpaca_eval_df_gamed_surrogate.csv", SelectConfig()
    metrics, basis = alpaca_eval.compare(after, before, gamed, config)
    found = {metric.metric: metric for metric in metrics}
    assert found["win_rate"].value == pytest.approx(6.733561194307979 - 5.008784366960614, abs=1e-9)
    assert found["lc_win_rate"].value == pytest.approx(9.965565362657289 - 9.085183556987324, abs=2e-3)
    assert 0.7 < found["lc_win_rate"].standard_error < 1.7
    for name in ("win_rate", "lc_win_rate"):
        assert found[name].low < found[name].value < found[name].high
        assert found[name].n == 805
    assert basis["resamples"] == 25
