"""The section theory in a config: what is wrong in it is said before any job."""

import pytest
from expoflow.checks import parse
from expoflow.checks.machine import check_sources
from expoflow.errors import ConfigError

DPO = {"recipe": "dpo", "from": "sft", "data": "miniature"}
SFT = {"recipe": "sft", "data": "miniature"}
CONFIG = {
    "models": {
        "sft": {"train": SFT},
        "base": {"train": SFT | {"seed": 1}},
        "one": {"train": DPO},
        "two": {"train": DPO | {"fraction": 0.5}},
        "rm": {"train": {"recipe": "reward", "data": "miniature"}},
    },
    "pairs": {
        "a": {"sft": "sft", "aligned": "one", "alphas": [1]},
        "b": {"sft": "sft", "aligned": "two", "alphas": [1]},
        "again": {"sft": "sft", "aligned": "one", "alphas": [2]},
        "other": {"sft": "base", "aligned": "one", "alphas": [1]},
    },
    "prompts": {"dev": {"miniature": "dev"}},
    "reward_model": "rm",
}


def problem(theory=None, figures=None) -> str:
    sections = {"theory": theory, "figures": figures}
    given = {name: section for name, section in sections.items() if section is not None}
    with pytest.raises(ConfigError) as caught:
        parse(CONFIG | given)
    return str(caught.value)


@pytest.mark.parametrize(
    ("theory", "words"),
    [
        ({"prompts": "deb"}, "theory.prompts: no prompt set 'deb'; did you mean 'dev'?"),
        ({"planes": {"p": {"pairs": ["a", "c"]}}}, "theory.planes.p.pairs: no pair 'c'"),
        ({"planes": {"p": {"pairs": ["a", "other"]}}}, "they start from 'sft' and 'base'"),
        ({"planes": {"p": {"pairs": ["a", "again"]}}}, "both have the aligned model 'one'"),
        ({"planes": {"p": {"pairs": ["a"]}}}, "theory.planes.p.pairs: "),
        ({"step": 0}, "theory.step: 0 is not accepted"),
        ({"stepp": 0.1}, "theory.stepp: unknown key 'stepp'; did you mean 'step'?"),
    ],
)
def test_what_theory_may_say(theory, words):
    assert words in problem(theory)


@pytest.mark.parametrize(
    ("theory", "figure", "words"),
    [
        (None, {"kind": "cosines"}, "figures.f: kind cosines shows what theory measures; add theory: {}"),
        ({}, {"kind": "plane"}, "kind plane needs plane: NAME"),
        ({}, {"kind": "plane", "plane": "x"}, "figures.f.plane: no plane 'x'"),
        (
            {"planes": {"p": {"pairs": ["a", "b"]}}},
            {"kind": "plane", "plane": "p", "pairs": ["a"]},
            "a plane has its own pairs",
        ),
        ({}, {"kind": "cosines", "pairs": ["a", "other"]}, "pair 'other' shares its sft with no other"),
        ({}, {"kind": "sweep", "plane": "p"}, "plane belongs to kind plane"),
    ],
)
def test_figures_of_what_theory_measures(theory, figure, words):
    assert words in problem(theory, {"f": figure})


def test_figures_that_theory_brings():
    plane = {"around": {"pairs": ["b", "a"]}}
    drawn = parse(CONFIG | {"theory": {"planes": plane}}).drawn()
    assert list(drawn) == ["sweep", "path", "first_order", "cosines", "around"]
    assert drawn["around"].pairs == ["b", "a"]
    assert drawn["cosines"].pairs == ["a", "b", "again"]
    assert list(parse(CONFIG).drawn()) == ["sweep", "path"]


def test_a_file_of_preferences_is_looked_at_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pairs.jsonl").write_text('{"prompt": "hello", "chosen": "yes"}\n')
    for name, words in (("pairs.jsonl", "no column 'rejected'"), ("none.jsonl", "none.jsonl")):
        with pytest.raises(ConfigError) as caught:
            check_sources(parse(CONFIG | {"theory": {"preferences": name}}))
        assert "theory.preferences: " in str(caught.value)
        assert words in str(caught.value)
