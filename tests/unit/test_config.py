"""The config models: defaults, canonical spellings, the schema and the shipped configs."""

import json
from pathlib import Path

import pytest
import yaml
from expoflow import checks, config
from expoflow.errors import ConfigError
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
    assert (ROOT / "config/schema.json").read_text() == config.schema(), "run: make schema"


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

    spelling = config.spell(alpha)
    assert float(spelling) == alpha
    assert re.fullmatch(config.ALPHA, spelling)
    assert config.spell(float(spelling)) == spelling


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
