"""The config models: defaults, canonical spellings, the schema and the shipped configs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from expoflow import checks, config
from expoflow.config import base, figures
from expoflow.errors import ConfigError
from expoflow.reporting import paper
from expoflow.reporting.figures.style import Drawing
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).parents[2]
SMALL = {
    "models": {
        "sft": {"train": {"recipe": "sft", "data": "miniature"}},
        "dpo": {"train": {"recipe": "dpo", "from": "sft", "data": "miniature"}},
        "rm": {"train": {"recipe": "reward", "data": "miniature"}},
    },
    "pairs": {"pair": {"sft": "sft", "aligned": "dpo", "alphas": [0.30, 1, 25.0, -0.5]}},
    "prompts": {"dev": {"miniature": "dev"}, "test": {"miniature": "test"}},
    "reward_model": "rm",
}


def test_the_schema_is_the_models(tmp_path):
    command = [sys.executable, "-m", "expoflow.config"]
    made = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert (ROOT / "config/schema.json").read_text() == made, "run: make schema"


@pytest.mark.parametrize("path", sorted((ROOT / "config").glob("*.yaml")), ids=lambda path: path.name)
def test_every_shipped_config_is_accepted_and_completed_by_editors(path):
    assert path.read_text().startswith("# yaml-language-server: $schema=schema.json\n")
    checks.load(yaml.safe_load(path.read_text()), [path])


def test_defaults_are_the_papers_sampling():
    generate = checks.parse(SMALL).generate
    assert (generate.temperature, generate.top_k, generate.top_p, generate.seed) == (0.7, 40, 0.9, 42)
    assert (generate.presence_penalty, generate.frequency_penalty) == (0.1, 0.1)


def test_the_grid_is_canonical_ascending_and_has_both_references():
    assert checks.parse(SMALL).pairs["pair"].grid() == ["-1", "-0.5", "0", "0.3", "1", "25"]


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e6, max_value=1e6))
def test_an_alpha_has_one_spelling_that_reads_back(alpha):
    import re

    spelling = base.spell(alpha)
    assert float(spelling) == alpha
    assert re.fullmatch(base.ALPHA, spelling)
    assert base.spell(float(spelling)) == spelling


def test_a_pair_overrides_single_settings_of_a_section():
    pair = SMALL["pairs"]["pair"] | {"generate": {"temperature": 0, "samples": 3}}
    parsed = checks.parse(SMALL | {"pairs": {"pair": pair}, "generate": {"max_tokens": 9, "samples": 2}})
    section = parsed.section("pair", "generate")
    assert (section.temperature, section.samples, section.max_tokens) == (0, 3, 9)


def test_canonical_json_depends_on_values_alone():
    one = checks.parse(SMALL | {"generate": {"temperature": 0.7, "top_k": 40}}).generate.canonical()
    other = checks.parse(SMALL | {"generate": {"top_k": 40}}).generate.canonical()
    assert one == other
    assert json.loads(one)["temperature"] == 0.7
    assert checks.parse(SMALL | {"generate": {"top_k": 41}}).generate.canonical() != one


def test_a_bad_override_is_told_at_its_place():
    pair = SMALL["pairs"]["pair"] | {"select": {"confidence": 2}}
    with pytest.raises(ConfigError) as error:
        checks.parse(SMALL | {"pairs": {"pair": pair}})
    assert error.value.problems == ["pairs.pair.select.confidence: 2 is not accepted: must be less than 1"]


TWO = SMALL | {
    "pairs": {name: SMALL["pairs"]["pair"] for name in ("five", "twenty")},
    "benchmarks": {"reward": {"prompts": "test"}},
}


def test_without_a_section_three_figures_show_all_pairs():
    drawn = checks.parse(TWO).drawn()
    assert {name: (figure.kind, figure.pairs) for name, figure in drawn.items()} == {
        name: (name, ["five", "twenty"]) for name in ("sweep", "path", "histograms")
    }


def test_without_a_benchmark_there_is_nothing_to_draw_histograms_of():
    assert list(checks.parse(SMALL).drawn()) == ["sweep", "path"]


def test_figures_of_a_config_stand_alone_and_name_their_pairs_once():
    groups = {"one": ["twenty"], "both": ["five", "twenty"]}
    parsed = checks.parse(TWO | {"figures": {"figure7": {"kind": "curves", "groups": groups}}})
    assert {name: figure.pairs for name, figure in parsed.drawn().items()} == {"figure7": ["twenty", "five"]}
    assert checks.parse(TWO | {"figures": {}}).drawn() == {}


@pytest.mark.parametrize("kind", figures.KINDS)
def test_a_figure_reads_back_from_the_parameter_of_its_rule(kind):
    own = {"bars": {"metrics": ["reward.reward"]}, "plane": {"plane": "both"}}
    entry = {"kind": kind, **own.get(kind, {})}
    theory = {"theory": {"planes": {"both": {"pairs": ["five", "twenty"]}}}}
    more = {"models": SMALL["models"] | {"more": {"path": "more"}}}
    pairs = {"pairs": TWO["pairs"] | {"twenty": SMALL["pairs"]["pair"] | {"aligned": "more"}}}
    parsed = checks.parse(TWO | more | pairs | theory | {"figures": {"mine": entry}})
    (figure,) = parsed.drawn().values()
    assert figures.FigureConfig.model_validate_json(figure.canonical()) == figure


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        (
            {"kind": "sweep", "pairs": ["twent"]},
            "figures.mine.pairs: no pair 'twent'; did you mean 'twenty'?",
        ),
        (
            {"kind": "curves", "groups": {"a": ["fiv"]}},
            "figures.mine.groups: no pair 'fiv'; did you mean 'five'?",
        ),
        (
            {"kind": "sweep", "labels": {"fife": "5%"}},
            "figures.mine.labels: no pair 'fife'; did you mean 'five'?",
        ),
        (
            {"kind": "sweep", "pairs": ["five", "five"]},
            "figures.mine.pairs: a pair occurs twice; remove one",
        ),
        (
            {"kind": "histograms", "benchmark": "mt_bench"},
            "figures.mine.benchmark: 'mt_bench' is not accepted: must be 'reward' or 'alpaca_eval'",
        ),
        (
            {"kind": "bars", "metrics": ["rewards.reward"]},
            "figures.mine: no benchmark 'rewards'; did you mean 'reward'?",
        ),
        (
            {"kind": "sweep", "variants": ["sft"]},
            "figures.mine: variants belongs to kind histograms and bars",
        ),
        ({"kind": "bars"}, "figures.mine: kind bars needs metrics: [BENCHMARK.METRIC]; add it"),
        (
            {"kind": "curves", "pairs": ["five"], "groups": {"a": ["five"]}},
            "figures.mine: groups stand instead of pairs; remove one of the two",
        ),
        ({"kind": "sweeps"}, "figures.mine.kind: 'sweeps' is not accepted: must be 'sweep', 'curves'"),
        ({"kind": "sweep", "labls": {}}, "figures.mine.labls: unknown key 'labls'; did you mean 'labels'?"),
        ({"kind": "bars", "metrics": ["reward"]}, "figures.mine.metrics.0: 'reward' is not accepted"),
    ],
)
def test_a_figure_that_cannot_be_drawn_is_told(entry, problem):
    with pytest.raises(ConfigError) as error:
        checks.parse(TWO | {"figures": {"mine": entry}})
    (found,) = error.value.problems
    assert found.startswith(problem)


def test_the_figures_that_the_docs_show_are_accepted():
    text = (ROOT / "docs/experiments.md").read_text().partition("## Figures")[2]
    shown = yaml.safe_load(text.partition("```yaml\n")[2].partition("```")[0])
    kinds = {
        name: figures.FigureConfig.model_validate(entry).kind for name, entry in shown["figures"].items()
    }
    assert kinds == {"figure6": "curves", "figure7": "curves", "figure1": "bars", "appendix-c": "histograms"}
    assert config.PairConfig.model_validate(shown["pairs"]["dpo20"]).paper in paper.MODELS


def test_a_figure_of_a_benchmark_that_its_pairs_lack_is_told():
    pairs = {"five": SMALL["pairs"]["pair"] | {"benchmarks": {"reward": {"prompts": "test"}}}}
    pairs["twenty"] = SMALL["pairs"]["pair"]
    figures = {"mine": {"kind": "histograms", "pairs": ["five", "twenty"]}}
    one = TWO | {"pairs": pairs, "benchmarks": {}}
    with pytest.raises(ConfigError) as error:
        checks.parse(one | {"figures": figures})
    assert error.value.problems == [
        "figures.mine: pair 'twenty' has no benchmark reward; add it, or leave the pair out"
    ]
    assert checks.parse(one | {"figures": {"mine": {"kind": "histograms"}}}).drawn()["mine"].pairs == ["five"]
    with pytest.raises(ConfigError) as error:
        checks.parse(SMALL | {"figures": {"mine": {"kind": "histograms"}}})
    assert error.value.problems == [
        "figures.mine: no pair has benchmark reward; add it to benchmarks, or remove the figure"
    ]


@pytest.mark.parametrize(
    ("pair", "problem"),
    [
        (
            {"paper": "DPO (20 data)"},
            "pairs.twenty.paper: no model of the paper 'DPO (20 data)'; did you mean 'DPO (20% data)'?",
        ),
        ({"trained_on_dev": "fife"}, "pairs.twenty.trained_on_dev: no pair 'fife'; did you mean 'five'?"),
        ({"trained_on_dev": "twenty"}, "pairs.twenty.trained_on_dev: 'twenty' is the pair itself; name that"),
        (
            {
                "trained_on_dev": "five",
                "generate": {"prompts": "test"},
                "benchmarks": {"reward": {"prompts": "dev"}},
            },
            "pairs.twenty.trained_on_dev: 'five' has other prompts to choose alpha; set its generate.prompts to test",
        ),
    ],
)
def test_a_pair_of_the_papers_or_of_the_dev_set_that_is_not_there_is_told(pair, problem):
    pairs = TWO["pairs"] | {"twenty": SMALL["pairs"]["pair"] | pair}
    with pytest.raises(ConfigError) as error:
        checks.parse(TWO | {"pairs": pairs})
    (found,) = error.value.problems
    assert found.startswith(problem)


def test_a_figure_of_groups_is_read_back_from_a_rules_parameter():
    groups = {"Rates": ["five", "twenty"], "Epochs": ["five"]}
    drawn = figures.FigureConfig(kind="curves", groups=groups)
    drawn = drawn.model_copy(update={"pairs": drawn.named()})  # as Config.drawn gives it
    plan = Drawing.parse(drawn.canonical(), [], "{}", False)
    assert plan.config == drawn
    assert [*plan.config.groups] == ["Rates", "Epochs"]  # as the config has them
    assert plan.pairs == ["five", "twenty"]


UNREWARDED = {key: value for key, value in SMALL.items() if key != "reward_model"}


def test_without_a_reward_model_alpha_is_chosen_by_nll():
    parsed = checks.parse(UNREWARDED | {"select": {"confidence": 0.9}})
    select = parsed.section("pair", "select")
    assert (select.by, select.confidence) == ("nll", 0.9)
    assert checks.parse(UNREWARDED | {"select": {"by": "implicit"}}).select.by == "implicit"
    assert checks.parse(SMALL).select.by == "reward"
    assert [*parsed.drawn()] == ["sweep"]


def test_with_a_reward_model_a_rules_parameter_is_what_it_was():
    said = (
        '{"by":"reward","confidence":0.95,"degenerate_rise":0.1,"require_certified":false,"resamples":9999}'
    )
    assert checks.parse(SMALL).section("pair", "select").canonical() == said


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        (
            {"select": {"by": "reward"}},
            "pairs.pair.select.by: reward needs reward_model; add it, or set by: nll",
        ),
        (
            {"select": {"compare": ["nll", "reward"]}},
            "pairs.pair.select.compare: reward needs reward_model; add it, or leave reward out",
        ),
        (
            {
                "benchmarks": {"reward": {"prompts": "own"}},
                "prompts": {"dev": {"file": "d"}, "own": {"file": "o"}},
            },
            "pairs.pair.benchmarks.reward: needs reward_model, since true quality on 'own' is not known; add it, or"
            " remove the benchmark",
        ),
        (
            {
                "figures": {"appendix-c": {"kind": "histograms"}},
                "benchmarks": {"reward": {"prompts": "test"}},
            },
            "figures.appendix-c: shows rewards and needs reward_model; add it, or remove the figure",
        ),
        (
            {
                "figures": {"one": {"kind": "bars", "metrics": ["reward.quality", "reward.win_rate"]}},
                "benchmarks": {"reward": {"prompts": "test"}},
            },
            "figures.one: shows rewards and needs reward_model; add it, or remove the figure",
        ),
        (
            {
                "models": SMALL["models"] | {"more": SMALL["models"]["dpo"]},
                "pairs": SMALL["pairs"] | {"more": SMALL["pairs"]["pair"] | {"aligned": "more"}},
                "theory": {"planes": {"both": {"pairs": ["pair", "more"]}}},
            },
            "theory.planes.both: shows rewards and needs reward_model; add it, or remove the plane",
        ),
        (
            {"reward_check": {"miniature": True}},
            "reward_check: there is no reward_model to check; add it, or remove reward_check",
        ),
        (
            {"pairs": TWO["pairs"] | {"more": SMALL["pairs"]["pair"] | {"trained_on_dev": "five"}}},
            "pairs.more.trained_on_dev: needs reward_model, for it compares rewards; add it, or remove this",
        ),
    ],
)
def test_what_asks_a_reward_model_that_is_not_there_is_told(section, problem):
    with pytest.raises(ConfigError) as error:
        checks.parse(UNREWARDED | section)
    assert error.value.problems == [problem]


def test_true_quality_needs_no_reward_model():
    assert checks.parse(UNREWARDED | {"benchmarks": {"reward": {"prompts": "test"}}})


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        (
            {"select": {"judge": 0.5}},
            "pairs.five.select.judge: benchmarks.reward judges the choice on 'test' already",
        ),
        (
            {"benchmarks": {"reward": {"prompts": "dev"}}},
            "pairs.five.benchmarks.reward.prompts: 'dev' chooses alpha too; name prompts that take no part in it",
        ),
        ({"select": {"judge": 1}}, "select.judge: 1 is not accepted: must be less than 1"),
        ({"select": {"judge": 0}}, "select.judge: 0 is not accepted: must be greater than 0"),
    ],
)
def test_what_judges_a_choice_takes_no_part_in_it(changed, problem):
    with pytest.raises(ConfigError) as error:
        checks.parse(TWO | changed)
    assert error.value.problems[0].startswith(problem)


def test_a_pair_is_judged_by_test_prompts_or_by_a_part_of_its_own_or_not_at_all():
    assert checks.parse(TWO).judged_on("five") == "test"
    assert checks.parse(SMALL).judged_on("pair") is None
    assert checks.parse(SMALL | {"select": {"judge": 0.5}}).judged_on("pair") == "dev"
    bare = {key: value for key, value in TWO.items() if key != "reward_model"}
    assert checks.parse(bare).judged_on("five") is None
    assert checks.parse(bare | {"select": {"judge": 0.5}}).judged_on("five") == "dev"
