"""AlpacaEval in the workflow, beside a finished run: what is asked, what a rerun costs, where the money ends."""

import json
import math
import re

import pytest
from judge_server import JudgeServer, completion

pytest.importorskip("alpaca_eval", reason="pip install 'expoflow[bench]'")
pytestmark = [pytest.mark.workflow, pytest.mark.long]
JOBS = {"benchmark_alpaca_eval": 3, "compare": 1, "benchmark_table": 1, "paper_tables": 1, "report": 1}
JOBS |= {"answers_page": 1}
N = 24
OUTPUTS = re.compile(r'"output": """(.*?)"""', re.DOTALL)


def longer(body: dict) -> dict:
    """The longer output is better, the more so the longer it is."""
    first, second = OUTPUTS.findall(body["messages"][1]["content"])
    odds = (len(first) - len(second)) / 20
    chances = {"m": -math.log1p(math.exp(-odds)), "M": -math.log1p(math.exp(odds))}
    return completion("m", logprobs=chances)


def alpaca_eval(server: JudgeServer, generate: dict | None = None, **judge):
    """A change of the config; the reference's outputs are made from the tree's own prompts."""

    def change(config: dict) -> None:
        asked = {"base_url": server.url, "model": "judge", "api_key_env": "", "backoff": 0} | judge
        section = {"reference": "reference.json", "judge": asked} | (
            {"generate": generate} if generate else {}
        )
        config["benchmarks"]["alpaca_eval"] = section

    return change


@pytest.fixture
def tree(finished):
    prompts = [
        json.loads(line)["prompt"] for line in (finished.folder / "dev.jsonl").read_text().splitlines()
    ]
    texts = [prompt if isinstance(prompt, str) else prompt[0]["content"] for prompt in prompts]
    rows = [
        {"instruction": text, "output": "a reference " * (1 + place % 4)} for place, text in enumerate(texts)
    ]
    assert len(rows) == N
    (finished.folder / "reference.json").write_text(json.dumps(rows))
    return finished


def result(tree, variant: str) -> dict:
    return json.loads(tree.read(f"pairs/tiny/benchmarks/{variant}/alpaca_eval.json"))


def rows(tree, variant: str) -> list[dict]:
    text = tree.read(f"pairs/tiny/benchmarks/{variant}/alpaca_eval.generations.jsonl").decode()
    return [json.loads(line) for line in text.splitlines()]


def test_alpaca_eval_beside_a_finished_run(tree):
    with JudgeServer(longer) as server:
        tree.edit(alpaca_eval(server))
        assert tree.planned() == JOBS
        assert f"bill: alpaca_eval: {3 * N} calls of judge" in tree.snakemake("--dry-run")
        tree.snakemake("--cores", "1")
        calls = len(server.calls)
        assert N < calls <= 3 * N
        metrics = {
            variant: {metric["metric"]: metric for metric in result(tree, variant)["metrics"]}
            for variant in ("sft", "aligned", "expo", "expo-aligned")
        }
        for variant in ("sft", "aligned", "expo"):
            found = rows(tree, variant)
            assert [row["index"] for row in found] == list(range(N))
            for row in found:
                assert row["len_model"] == len(row["response"].strip())
                better = 1 / (1 + math.exp((row["len_baseline"] - row["len_model"]) / 20))
                assert row["preference"] == pytest.approx(1 + better)
            mean = sum(row["preference"] - 1 for row in found) / N
            assert metrics[variant]["win_rate"]["value"] == pytest.approx(100 * mean)
            assert metrics[variant]["win_rate"]["n"] == N
        difference = metrics["expo"]["win_rate"]["value"] - metrics["aligned"]["win_rate"]["value"]
        assert metrics["expo-aligned"]["win_rate"]["value"] == pytest.approx(difference)
        made_with = result(tree, "expo")["provenance"]
        assert made_with["length_controlled"].startswith(f"refused: {N} instructions")
        assert result(tree, "expo-aligned")["provenance"]["length_controlled"].startswith("refused: ")
        assert made_with["generate"]["max_tokens"] == 12
        assert (made_with["decoding"], made_with["judge"]["model"]) == ("generate", "judge")
        assert made_with["alpaca_eval"] == "0.6.6"
        table = tree.read("benchmarks.csv").decode()
        assert "tiny,expo,alpaca_eval,win_rate" in table
        assert "lc_win_rate" not in table
        assert tree.planned() == {}

        # an alpha that loses: every rule behind select runs, and no judge is called
        tree.edit(lambda config: config["pairs"]["tiny"]["alphas"].append(200))
        output = tree.snakemake("--cores", "1")
        assert len(server.calls) == calls
        assert f"judge judge: 0 calls, {N} verdicts are kept" in output

        # costs and patience are no part of a result; another decoding is
        tree.edit(alpaca_eval(server, max_cost=9, prices={"judge": {"input": 1, "output": 1}}, timeout=9))
        assert tree.planned() == {}
        tree.edit(alpaca_eval(server, generate={"temperature": 0}))
        assert tree.planned() == JOBS
        tree.snakemake("--cores", "1")
        made_with = result(tree, "expo")["provenance"]
        assert (made_with["generate"]["temperature"], made_with["generate"]["top_k"]) == (0, 40)
        assert made_with["decoding"] == "benchmarks.alpaca_eval.generate"


def test_the_ceiling_stops_a_run_and_a_higher_one_continues_it(tree):
    prices = {"judge": {"input": 100, "output": 0}}  # 0.01 USD a call by its usage
    with JudgeServer(longer) as server:
        tree.edit(alpaca_eval(server, prices=prices, max_cost=0.3, concurrency=1))
        tree.snakemake("--cores", "1", "--keep-going", check=False)
        made = len(server.calls)
        assert 0 < made < 30
        spent = json.loads(tree.read("costs/alpaca_eval.json"))["spent"]
        assert spent == pytest.approx(0.01 * made)
        logs = "".join(
            path.read_text() for path in (tree.folder / "results/logs/benchmark").rglob("*.alpaca_eval.log")
        )
        assert "which might exceed max_cost: 0.3" in logs
        tree.edit(alpaca_eval(server, prices=prices, max_cost=9, concurrency=1))
        tree.snakemake("--cores", "1")
        bodies = [json.dumps(call, sort_keys=True) for call in server.calls]
        assert len(bodies) == len(set(bodies)), "nothing was asked twice"
        assert result(tree, "expo")["provenance"]["judge"]["judgments"] == N


def test_what_is_missing_is_said_before_any_job(tree):
    with JudgeServer(longer) as server:
        tree.edit(alpaca_eval(server))
        section = {
            "reference": "nowhere.json",
            "annotator": "weighted_alpaca_eval_gpt4",
            "df_gamed": "none.csv",
        }
        tree.edit(lambda config: config["benchmarks"]["alpaca_eval"].update(section))
        output = tree.snakemake("--dry-run", check=False)
        assert "benchmarks.alpaca_eval.reference: no file 'nowhere.json'" in output
        assert "benchmarks.alpaca_eval.df_gamed: no file 'none.csv'" in output
        assert "did you mean 'weighted_alpaca_eval_gpt4_turbo'" in output
        assert not server.calls
