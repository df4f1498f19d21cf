"""The last screen of a run: what was chosen, what to look at, what to type next, from where one stands."""

from pathlib import Path

import pytest
from expoflow.checks import parse
from expoflow.files.records import write_csv, write_json
from expoflow.paths import Results
from expoflow.reporting import remarks
from expoflow.reporting.run_end import Ran, closing_words
from expoflow.reporting.words import duration
from expoflow.results import Best
from expoflow.selection.choice import Candidate, choose

ALPHAS = ["pair", "alpha", "reward", "gain_pointwise_low", "length", "degenerate"]
SUMMARY = ["pair", "reward_aligned"]
BENCHMARKS = ["pair", "variant", "benchmark", "metric", "value", "low", "high", "p_value"]


def chosen(*values):
    """A choice as the rule select makes it, of alphas 0, 0.5, 1, ... with these rewards."""
    found = choose(
        [
            Candidate(f"{at / 2:g}", value, value - values[0], value - 1, value + 1)
            for at, value in enumerate(values)
        ],
        0.95,
    )
    return Best(
        pair="p", alpha=found.alpha, certified=False, chosen_share=1, edge=found.edge, reason=found.reason
    )


def row(alpha, reward, low="", length=40, degenerate=0.0):
    values = ("p", alpha, reward, low, length, degenerate)
    return dict(zip(ALPHAS, map(str, values), strict=True))


@pytest.fixture
def project(tmp_path, monkeypatch):
    def make(best, alphas, benchmarks=(), folder="project"):
        (tmp_path / folder / "results").mkdir(parents=True)
        results = Results.of(tmp_path / folder)
        write_json(results.best("p"), best)
        write_csv(results.alphas("p"), alphas, ALPHAS)
        write_csv(results.table("summary"), [{"pair": "p", "reward_aligned": 1.0}], SUMMARY)
        write_csv(results.table("benchmarks"), benchmarks, BENCHMARKS)
        results.report.write_text("page")
        monkeypatch.chdir(tmp_path / folder)
        return Results()

    return make


def ran(cwd, file="config.yaml", train=False, **given):
    hub = {name: {"hub": f"org/{name}"} for name in ("sft", "dpo")}
    made = {"sft": {"train": {"recipe": "sft", "data": "miniature"}}}
    made["dpo"] = {"train": {"recipe": "dpo", "from": "sft", "data": "miniature"}}
    config = parse(
        {
            "models": made if train else hub,
            "pairs": {"p": {"sft": "sft", "aligned": "dpo", "alphas": [0.5, 1]}},
            "prompts": {"dev": {"miniature": "dev"}},
            **given,
        }
    )
    return Ran(config, file and Path(file), cwd, 4321)


def test_everything_is_said_from_where_one_stands(project, tmp_path):
    results = project(chosen(1, 2, 3), [row("0", 1.0), row("1", 3.0, length=52, degenerate=0.025)])
    lines = closing_words(results, ran(tmp_path)).splitlines()
    assert lines[0].startswith("p: best alpha 1: largest mean reward of 3 alphas")
    assert "next" not in lines[0]
    assert lines[1:] == [
        "  responses: 52 tokens on average, 2.5% degenerate (aligned: 40, 0.0%)",
        "  next: the grid ends here, and the best alpha may lie beyond: expoflow run project --alphas 0.5,1,1.5,2",
        "report: project/results/report.html, tables: project/results/*.csv",
        "model: project/results/pairs/p/expo/, its card: README.md there; with the evidence: expoflow publish project/results/pairs/p/expo"
        " --repo ORG/NAME --dry-run",
        "serve: vllm serve project/results/pairs/p/expo; as GGUF: python llama.cpp/convert_hf_to_gguf.py project/results/pairs/p/expo",
        "took: 1 h 12 min",
    ]


def test_from_elsewhere_paths_are_whole_and_commands_quote_them(project, tmp_path):
    results = project(chosen(1, 2, 3), [row("0", 1.0), row("1", 3.0)], folder="my project")
    said = closing_words(results, ran(tmp_path / "elsewhere", "../other.yaml"))
    folder = tmp_path / "my project"
    assert f"report: {folder}/results/report.html" in said
    assert f"vllm serve '{folder}/results/pairs/p/expo'" in said
    assert f"expoflow run --config {tmp_path}/other.yaml --out '{folder}'" in said


def test_a_miniature_is_not_served_and_a_clone_runs_snakemake(project):
    results = project(chosen(1, 2, 3), [row("0", 1.0), row("1", 3.0)])
    said = closing_words(results, ran(Path.cwd(), None, train=True))
    assert "vllm serve" not in said
    assert "of pairs.p in the config, then: snakemake --cores all\n" in said
    assert "report: results/report.html, tables: results/*.csv\n" in said


def test_an_aligned_model_that_is_kept_is_not_published(project):
    said = closing_words(project(chosen(3, 2, 1), [row("0", 3.0), row("1", 1.0)]), ran(Path.cwd()))
    assert said.startswith("p: best alpha 0")
    assert said.endswith(
        "\nno better model: alpha 0 was chosen, which is the aligned model\ntook: 1 h 12 min"
    )


def test_a_rehearsal_advises_nothing_but_the_run_itself(project):
    worse = dict(zip(BENCHMARKS, ("p", "expo-aligned", "reward", "quality", -1, -2, -0.5, 0.01), strict=True))
    results = project(chosen(1, 2, 3), [row("-1", 4, 0.5), row("0", 1.0), row("1", 3.0)], [worse])
    lines = closing_words(results, ran(Path.cwd(), limit=4)).splitlines()
    assert lines[1:] == [
        "  responses: 40 tokens on average, 0.0% degenerate (aligned: 40, 0.0%)",
        "report: results/report.html, tables: results/*.csv",
        "A REHEARSAL on the first 4 prompts of every set: no result; the same without --limit (in the config: limit) makes results",
        "took: 1 h 12 min",
    ]


def test_a_choice_inside_the_grid_has_no_next_command(project):
    results = project(chosen(1, 3, 2), [row("0", 1.0), row("0.5", 3.0)])
    assert "next:" not in closing_words(results, ran(Path.cwd()))
    assert remarks.further(chosen(1, 3, 2), None, []) == ("", [])
    assert remarks.further(chosen(1, 2, 3), None, [])[1] == ["1.5", "2"]


def test_a_grid_that_tells_nothing_doubles_unless_its_end_is_worse():
    def advice(high, alpha="0.5", certified=False):
        best = chosen(1, 3, 2).model_copy(
            update={"reward": 3, "prompts": 60, "alpha": alpha, "certified": certified}
        )
        rows = [
            {"alpha": alpha, "gain_pointwise_high": high}
            for alpha, high in (("1", high), ("0", ""), ("0.5", "1"))
        ]
        return remarks.further(best, None, rows)

    told = "60 prompts do not distinguish any alpha from the aligned model: try more prompts"
    assert advice("0.2") == (f"{told}, or larger alphas", ["2", "4", "8"])
    assert advice("-0.2") == (told, [])
    assert advice("0.2", certified=True) == advice("0.2", alpha="0") == ("", [])


@pytest.mark.parametrize(("low", "told"), [(0.05, True), (-0.01, False), ("", False)])
def test_an_sft_model_with_the_higher_reward_is_told(project, low, told):
    results = project(chosen(0.46, 0.4), [row("-1", 0.63, low), row("0", 0.46)])
    said = closing_words(results, ran(Path.cwd()))
    assert (
        "WARNING: the SFT model (alpha -1) has a higher reward than the aligned one: 0.63 against 0.46;"
        in said
    ) == told


def difference(metric, value, low, high, benchmark="reward", variant="expo-aligned", pair="p", p_value=""):
    values = (pair, variant, benchmark, metric, value, low, high, p_value)
    return dict(zip(BENCHMARKS, map(str, values), strict=True))


def test_what_is_surely_worse_is_named(project):
    rows = [
        difference("accuracy", -0.05, -0.08, -0.02),
        difference("quality", -0.05, -0.08, 0.02),
        difference("length", -9, -10, -8),
        difference("avg_length", -90, -100, -80, "alpaca_eval"),
        difference("unfinished", 0.04, 0.02, 0.06, p_value=0.001),
        difference("accuracy_fact", -1, -1, -1, p_value=0.5),  # of two prompts
        difference("win_rate", 0.4, 0.3, 0.48),
        difference("win_rate", -3, -5, -1, "alpaca_eval"),
        difference("win_rate", 0.25, 0.11, 0.49, "human", p_value=0.041),
        difference("ties", 0.1, "", "", "human"),
        difference("reward", -1, "", "", variant="expo"),
        difference("reward", -1, -2, -0.5, pair="q"),
    ]
    said = closing_words(project(chosen(1, 3, 2), [row("0", 1.0)], rows), ran(Path.cwd()))
    assert (
        "  worse than the aligned model in 5 of 7 metrics, each by its own 95% interval: reward accuracy -0.05 [-0.08, -0.02], reward"
        " unfinished +0.04 [+0.02, +0.06], reward win_rate -0.1 [-0.2, -0.02], alpaca_eval win_rate -3 [-5, -1],"
        " human win_rate -0.25 [-0.39, -0.01]\n"
    ) in said


def test_lm_evals_figures_are_worse_by_what_lm_eval_says_of_them():
    rows = [
        difference("ifeval.acc", -0.2, -0.3, -0.1, "lm_eval"),
        difference("crows.pct_stereotype", -0.2, -0.3, -0.1, "lm_eval"),
        difference("crows.likelihood_diff", 0.2, 0.1, 0.3, "lm_eval"),
        difference("gsm8k.exact_match.strict-match", -0.2, -0.3, -0.1, "lm_eval"),
        difference("own.grade", -0.2, -0.3, -0.1, "lm_eval"),
        difference("other.grade", -0.2, -0.3, -0.1, "lm_eval"),
    ]
    higher = {"ifeval.acc": True, "gsm8k.exact_match": True, "own.grade": None}
    higher |= {"crows.pct_stereotype": False, "crows.likelihood_diff": False}
    said = remarks.worse(rows, "p", higher, 0.9)
    assert said == (
        "3 of 4 metrics, each by its own 90% interval: lm_eval ifeval.acc -0.2 [-0.3, -0.1], lm_eval crows.likelihood_diff +0.2"
        " [+0.1, +0.3], lm_eval gsm8k.exact_match.strict-match -0.2 [-0.3, -0.1]"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (48.4, "48 s"),
        (723, "12 min 3 s"),
        (720, "12 min"),
        (18720, "5 h 12 min"),
        (183600, "2 d 3 h"),
    ],
)
def test_times_are_written_for_people(seconds, text):
    assert duration(seconds) == text
