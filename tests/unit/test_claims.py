"""Claims: the rule of the verdicts, and the tables and pages of runs that were written by hand."""

import csv
import re
import shutil
from pathlib import Path

import claimed
import numpy as np
import pandas as pd
import pytest
from expoflow.checks import parse
from expoflow.claims import answers, details, page, tables
from expoflow.claims.run import Run, correlation
from expoflow.claims.spurious import length_controlled
from expoflow.claims.statement import STATEMENTS, Measure, measured, outcome, verdict
from expoflow.cli import main
from expoflow.config import Config
from expoflow.errors import ConfigError
from expoflow.paths import Results
from scipy.special import expit

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "claims.md"


@pytest.mark.parametrize(
    ("expected", "value", "low", "high", "said"),
    [
        ("above", 1, 0.5, 1.5, "yes"),
        ("above", 1, -0.5, 2.5, "open"),
        ("above", 1, None, None, "yes"),
        ("above", 0, None, None, "no"),
        ("above", -1, -3, 1, "no"),
        ("below", -1, -2, -0.5, "yes"),
        ("below", -1, -2, 0.5, "open"),
        ("below", 1, 0.5, 2, "no"),
        ("not above", 1, -0.5, 2.5, "yes"),
        ("not above", 1, 0.5, 2.5, "no"),
        ("not above", -1, -2, -0.5, "yes"),
        ("not below", -1, -2, -0.5, "no"),
        ("not below", -1, -2, 0.5, "yes"),
        ("not below", 0, 0, 0, "yes"),
        ("", 1, 0.5, 1.5, ""),
    ],
)
def test_a_measure_is_as_expected_or_not(expected, value, low, high, said):
    measure = Measure(quantity="q", subject="s", value=value, low=low, high=high, expected=expected)
    assert outcome(measure) == said


@pytest.mark.parametrize(
    ("runs", "said"),
    [
        ([["yes", "yes"], ["yes", ""]], "holds"),
        ([["yes"], ["open"]], "depends"),
        ([["open"], ["open"], ["open"]], "depends"),
        ([["no"], ["no"]], "does not hold"),
        ([["no", "yes"], ["no", "open"]], "does not hold"),
        ([["no", "yes", "yes"], ["no", "no", "no"]], "depends"),
        ([["no"], ["yes"], ["no"]], "depends"),
        ([["", ""], []], ""),
        ([[], ["yes"]], "holds"),
    ],
)
def test_the_rule_of_the_verdicts(runs, said):
    assert verdict(runs) == said


def test_the_interval_is_that_of_the_draws_and_not_of_the_estimate():
    measure = measured("q", "s", np.concatenate([[7.0], np.linspace(0, 1, 1001)]))
    assert (measure.value, measure.low, measure.high) == (7.0, pytest.approx(0.025), pytest.approx(0.975))
    assert measured("q", "s", 3).low is None


def test_rank_correlation_by_draw():
    draws = [np.array([1.0, 3, 2]), np.array([2.0, 2, 2]), np.array([3.0, 1, 2])]
    assert correlation([0.1, 0.2, 0.4], draws) == pytest.approx([1, -1, 0])


def test_length_control_takes_the_share_of_length_out_of_a_win_rate():
    rng = np.random.default_rng(0)
    longer = rng.normal(3, 5, 4000)
    preferred = expit(0.4 + 2 * np.tanh(longer / longer.std()))
    assert length_controlled(preferred, longer) == pytest.approx(expit(0.4), abs=1e-3)
    assert preferred.mean() > 0.7
    assert length_controlled(preferred, np.zeros(4000)) == pytest.approx(preferred.mean())


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two runs; in the second one the model trained on all data is the better one by ten."""
    folder = tmp_path_factory.mktemp("claimed")
    for seed, shift in (("seed=1", 0.0), ("seed=2", 10.0)):
        measure(claimed.config(), folder / seed, shift)
    return folder


def measure(config: Config, folder: Path, shift: float = 0.0) -> None:
    results = claimed.write(folder, config, shift)
    tables.write_claims(
        config, Results(results), *(results / f"{name}.csv" for name in ("claims", "regrets", "styles"))
    )


def rows(folder: Path, name: str) -> list[dict[str, str]]:
    with open(folder / "results" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_every_pair_has_its_regret_by_every_way_that_was_computed(folder):
    found = {(row["pair"], row["by"]): row for row in rows(folder / "seed=1", "regrets")}
    assert set(found) == {
        (pair, by) for pair in ("half", "full", "separate") for by in ("none", "reward", "nll")
    }
    assert float(found["half", "reward"]["regret"]) == pytest.approx(0.75)
    assert float(found["half", "nll"]["regret"]) == 0
    assert found["half", "nll"]["alpha"] == "5"
    assert (found["half", "reward"]["kind"], found["separate", "reward"]["kind"]) == (
        "fractions",
        "combinations",
    )


def test_styles_are_what_responses_say(folder):
    found = {(row["pair"], row["alpha"]): row for row in rows(folder / "seed=1", "styles")}
    assert [found["half", alpha]["closings"] for alpha in ("-1", "0", "5", "60")] == ["0", "0", "1", "4"]
    assert {row["correct"] for row in found.values()} == {"1"}
    assert found["half", "5"]["setting"] == "fraction 0.5"


def test_claims_say_what_the_run_was_made_to_say(folder):
    found = {}
    for row in rows(folder / "seed=1", "claims"):
        found.setdefault(row["statement"], []).append(row)
    closings = next(row for row in found["spurious_features_grow"] if row["quantity"] == "closings")
    assert (float(closings["value"]), closings["outcome"]) == (4, "yes")
    assert [row["outcome"] for row in found["reward_is_overoptimised"]] == ["yes", "yes"]
    assert [row["outcome"] for row in found["path_is_monotone"]] == ["yes", "yes"]
    assert [float(row["value"]) for row in found["quality_follows"]] == pytest.approx([-0.75, -0.75])
    assert [row["outcome"] for row in found["tasks_keep"]] == ["yes", "no"]
    assert [row["note"] for row in found["tasks_keep"]] == ["", "changed by more than 0.03"]
    best = found["share_beats_all_data"][0]
    assert float(best["value"]) == pytest.approx(4.6)
    better = next(row for row in found["nll_is_no_worse_than_reward"] if row["expected"])
    assert (float(better["value"]), better["outcome"], better["n"]) == (pytest.approx(0.75), "yes", "3")
    assert "implicit_is_no_worse_than_reward" not in found
    assert "harder_is_better" not in found


def test_intervals_are_paired_over_the_same_prompts(folder):
    run = Run(claimed.config(), Results.of(folder / "seed=1"))
    assert np.ptp(run.gain("half")) < 1e-9
    assert np.ptp(run.peak("half") - run.peak("full")) < 1e-9
    assert np.ptp(run.peak("half")) > 0.01
    assert run.at("half", "reward", 32.5)[0] == pytest.approx(
        (run.at("half", "reward", 5) + run.peak("half"))[0] / 2
    )


def cells(text: str) -> dict[str, list[str]]:
    """The link and the other cells of every row that begins with a link, by its phrase."""
    rows = re.findall(r"^\| \[(.+?)\]\((.+?)\) \| (.*) \|$", text.replace("\\|", "|"), re.MULTILINE)
    return {phrase: [link, *rest.split(" | ")] for phrase, link, rest in rows}


def summary(text: str) -> list[str]:
    return text.partition("## Summary\n")[2].partition("\n## ")[0].splitlines()


@pytest.fixture(scope="module")
def written(folder) -> Path:
    """The page of the two runs."""
    out, notes = folder / "docs" / "page.md", folder / "notes.md"
    notes.write_text("It is a caveat.\n\nNothing was tried.\n")
    runs = [str(folder / seed) for seed in ("seed=1", "seed=2")]
    assert main(["claims", *runs, "--out", str(out), "--notes", str(notes)]) == 0
    return out


def test_the_page_is_made_of_the_runs(written):
    text = written.read_text()
    rows = cells(text)
    _, said, what, value, met = rows[STATEMENTS["share_beats_all_data"].phrase]
    assert (said, value, met) == ("**depends**", "-0.4 (-5.4 to 4.6) ±0", "1 of 2")
    assert what == STATEMENTS["share_beats_all_data"].number
    assert rows[STATEMENTS["path_is_monotone"].phrase][1] == "**holds**"
    assert rows[STATEMENTS["quality_follows"].phrase][1] == "**does not hold**"
    said = [row[1].strip("*") for row in rows.values()]
    counts = ", ".join(
        f"{said.count(word)} {words}" for word, words in (("holds", "hold"), ("does not hold", "do not"))
    )
    assert f"{counts} and {said.count('depends')} depend on the pair or the run" in " ".join(summary(text))
    assert "| fractions (4) | 0.000 (0.000 to 0.000), max 0.00 | 0.562 (0.375 to 0.750), max 0.75 |" in text
    assert "It is a caveat." in summary(text)
    assert "\nNothing was tried.\n" in text
    pictures = re.findall(r"!\[.*\]\((page/\w+\.png)\)", text)
    assert {"page/data.png", "page/styles.png", "page/regrets.png"} <= set(pictures)
    assert all((written.parent / picture).stat().st_size > 5000 for picture in pictures)
    with open(written.parent / "page" / "measures.csv", newline="") as file:
        assert {row["run"] for row in csv.DictReader(file)} == {"seed=1", "seed=2"}


def test_the_details_have_the_measurement_and_the_numbers_of_every_row(written):
    text = (written.parent / "page" / "details.md").read_text().replace("\\|", "|")
    anchors = {details.anchor(heading) for heading in re.findall(r"^### (.*)$", text, re.MULTILINE)}
    rows = cells(written.read_text())
    assert {row[0].partition("#")[2] for row in rows.values()} == anchors
    measured = [each for each in STATEMENTS.values() if each.phrase in rows]
    assert len(measured) == len(rows) > 10
    assert all(each.how in " ".join(text.split()) for each in measured)
    assert "| reward | the best share | -0.4 (-5.4 to 4.6) ±0 | 1 of 2 |" in text
    assert "[page.md](../page.md)" in text


def test_the_pages_from_the_runs_and_from_their_measures_are_the_same_bytes(written, folder, tmp_path):
    shutil.copytree(written.parent / "page", tmp_path / "page")
    (tmp_path / "page" / "details.md").unlink()
    out = tmp_path / "page.md"
    assert main(["claims", "--out", str(out), "--notes", str(folder / "notes.md")]) == 0
    names = ["page.md", *(f"page/{path.name}" for path in (written.parent / "page").iterdir())]
    assert {"page/details.md", "page/measures.csv"} < set(names)
    assert all((tmp_path / name).read_bytes() == (written.parent / name).read_bytes() for name in names)


def test_a_figure_that_the_runs_do_not_have_is_removed(folder, tmp_path):
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "plane.png").write_bytes(b"of another run")
    out = tmp_path / "page.md"
    assert main(["claims", str(folder / "seed=1"), "--out", str(out)]) == 0
    assert not (tmp_path / "page" / "plane.png").exists()
    assert "plane.png" not in out.read_text()


def test_no_runs_and_no_measures_is_an_error(tmp_path, capsys):
    assert main(["claims", "--out", str(tmp_path / "page.md")]) == 2
    assert "page/measures.csv: no such file; name the runs" in capsys.readouterr().err


def test_every_statement_is_measured_on_the_config_that_make_claims_runs(tmp_path):
    config = claimed.config(claimed.WHOLE)
    measure(config, tmp_path)
    found = {}
    for row in rows(tmp_path, "claims"):
        found.setdefault(row["statement"], []).append(row)
    assert set(found) == set(STATEMENTS)
    assert (
        {int(row["claim"]) for each in found.values() for row in each}
        == set(range(1, 14))
        == set(page.CLAIMS)
    )
    first = {name: each[0] for name, each in found.items()}
    slopes = [row for row in found["slope_is_positive"] if row["quantity"] == "slope of the expected reward"]
    assert {(row["value"], row["low"], row["outcome"]) for row in slopes} == {("0.5", "0.4", "yes")}
    assert "two-sft" not in {row["subject"] for row in slopes}
    assert [row["outcome"] for row in found["combinations_have_no_slope"] if row["expected"]] == ["no"] * 4
    assert float(first["gradient_is_right"]["value"]) == pytest.approx(0.04 - 0.1)
    assert float(first["first_order_reaches_best"]["value"]) == pytest.approx(1 / 120 - 1, rel=1e-4)
    assert float(first["delta_is_small"]["value"]) == pytest.approx(-0.05)
    assert float(first["step_is_small"]["value"]) == pytest.approx(120 * 0.05 - 0.1)
    alphas = [float(config.pairs[pair].grid()[-1]) for pair in config.claims.fractions]
    steps = [0.1 * alphas[0], *alphas[1:]]
    narrower = max(alphas) / min(alphas) - max(steps) / min(steps)
    assert float(first["step_is_the_same"]["value"]) == pytest.approx(narrower, rel=1e-4)
    assert float(first["cosines_rise"]["value"]) == pytest.approx(0.001)
    tops = {row["quantity"]: row for row in found["plane_top_is_nearer"]}
    nearer = tops["cosine with the highest reward"]  # the two steps are half a right angle apart
    assert (float(nearer["value"]), nearer["outcome"]) == (pytest.approx(1 - 0.5**0.5, rel=1e-4), "yes")
    assert (nearer["subject"], nearer["note"]) == ("data20 less data40", "top at a 2, b 0")
    assert float(tops["cosine with the highest quality"]["value"]) == pytest.approx(0.5**0.5 - 1, rel=1e-4)
    hacked = {row["quantity"]: row["value"] for row in found["independent_chooses_better"]}
    assert (hacked["quality"], hacked["alpha by the labelling model"]) == ("-0.75", "0")
    kinds = {row["kind"] for row in rows(tmp_path, "regrets")}
    assert kinds == {
        "fractions",
        "in_time",
        "learning_rates",
        "epochs",
        "length_bias",
        "betas",
        "label_noise",
    } | {
        "labelled",
        "combinations",
    }


def test_a_run_without_claims_is_named(tmp_path, capsys):
    (tmp_path / "other").mkdir()
    assert main(["claims", str(tmp_path / "other"), "--out", str(tmp_path / "page.md")]) == 2
    assert "other/results/claims.csv: no such file; run snakemake in" in capsys.readouterr().err


def test_a_rehearsal_is_no_run_of_a_page(tmp_path, capsys):
    (tmp_path / "run/results").mkdir(parents=True)
    (tmp_path / "run/results/claims.csv").write_text("claim,rehearsal\nx,4\n")
    assert main(["claims", str(tmp_path / "run"), "--out", str(tmp_path / "page.md")]) == 2
    assert "run/results/claims.csv: is of a rehearsal, which shows no result" in capsys.readouterr().err


@pytest.mark.skipif(not PAGE.exists(), reason="docs/claims.md is not there: make claims")
def test_the_page_of_this_repository_is_that_of_its_numbers(tmp_path):
    with open(PAGE.with_suffix("") / "measures.csv", newline="") as file:
        found = list(csv.DictReader(file))
    runs = list(dict.fromkeys(row["run"] for row in found))
    assert len(runs) >= 3
    text = PAGE.read_text()
    for picture in re.findall(r"!\[.*\]\((.*\.png)\)", text):
        assert (PAGE.parent / picture).is_file()
    assert 3 <= len([line for line in summary(text) if line]) <= 15
    copy = tmp_path / "claims"
    shutil.copytree(PAGE.with_suffix(""), copy)
    notes = REPOSITORY / "config" / "miniature-claims.md"
    assert main(["claims", "--out", str(tmp_path / "claims.md"), "--notes", str(notes)]) == 0
    assert (tmp_path / "claims.md").read_text() == text
    assert (copy / "details.md").read_text() == (PAGE.with_suffix("") / "details.md").read_text()


def test_every_number_of_a_row_is_that_of_the_measures():
    """Means and extremes are computed here a second time, from the table itself."""
    table = pd.read_csv(PAGE.with_suffix("") / "measures.csv", keep_default_na=False)
    rows = cells(PAGE.read_text())
    assert {STATEMENTS[name].phrase for name in table["statement"]} == set(rows)
    for name, own in table.groupby("statement"):
        own = own[own["expected"] != ""]
        first = own[own["quantity"] == own["quantity"].iloc[0]]
        *_, value, met = rows[STATEMENTS[name].phrase]
        found = [float(each) for each in re.findall(r"-?[\d.]+", value)]
        values = first["value"].astype(float)
        expected = [values.mean(), values.min(), values.max()]
        if (first["low"] != "").any():
            bounded = first[first["low"] != ""]
            expected.append((bounded["high"].astype(float) - bounded["low"].astype(float)).mean() / 2)
        assert found == pytest.approx(expected, rel=6e-3, abs=1e-4)
        assert met == f"{(own['outcome'] == 'yes').sum()} of {len(own)}"


def test_phrases_are_headings_of_their_own():
    phrases = [each.phrase for each in STATEMENTS.values()]
    assert len({details.anchor(phrase) for phrase in phrases}) == len(phrases)
    assert not any("  " in phrase or "--" in details.anchor(phrase) for phrase in phrases)


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0"), (1234.5, "1234"), (0.12345, "0.123"), (-0.00012, "-0.0001"), (4.0, "4")]
)
def test_numbers_have_three_digits(value, text):
    assert answers.number(value) == text


def broken(**claims) -> dict:
    config = claimed.yaml.safe_load(claimed.CONFIG.read_text())
    return {**config, "claims": claims}


def test_claims_need_a_reward_model():
    config = claimed.yaml.safe_load(claimed.CONFIG.read_text())
    del config["reward_model"], config["figures"]
    with pytest.raises(ConfigError, match="claims: they compare rewards and need reward_model"):
        parse(config)


@pytest.mark.parametrize(
    ("claims", "problem"),
    [
        ({"fractions": ["half", "ful"]}, "claims.fractions: no pair 'ful'; did you mean 'full'?"),
        ({"fractions": ["half"]}, "claims.fractions: the pairs must be two or more that differ in fraction"),
        ({"epochs": ["half", "full"]}, "claims.epochs: the pairs must be two or more that differ in epochs"),
        ({"betas": ["half", "separate"]}, "claims.betas: the aligned model of 'separate' has no beta"),
        (
            {"labelled": ["full"]},
            "claims.labelled: no single other reward model labelled the training of 'full'",
        ),
        ({"combinations": {"separate": ["two"]}}, "claims.combinations.separate: no pair 'two'"),
        ({"fraction": ["half"]}, "claims.fraction: unknown key 'fraction'; did you mean 'fractions'?"),
    ],
)
def test_claims_that_pairs_cannot_answer_are_refused(claims, problem):
    with pytest.raises(ConfigError, match=re.escape(problem)):
        parse(broken(**claims))
