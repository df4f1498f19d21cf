"""Prompts that judge a choice and take part in it: refused if none is left, else told before any job and in the certificate."""

import json

import pytest
from expoflow.checks import parse
from expoflow.checks.machine import check_sources
from expoflow.data import prompts as prompt_sets
from expoflow.errors import ConfigError
from expoflow.files.records import write_jsonl
from expoflow.paths import Results
from expoflow.reporting.words import certificate_words
from expoflow.results import Certificate

MODELS = {"sft": {"hub": "org/sft"}, "dpo": {"hub": "org/dpo"}, "rm": {"hub": "org/rm"}}


def config(dev, test):
    return parse(
        {
            "models": MODELS,
            "pairs": {"p": {"sft": "sft", "aligned": "dpo", "alphas": [0.3]}},
            "prompts": {"dev": dev, "test": test},
            "reward_model": "rm",
            "benchmarks": {"reward": {"prompts": "test"}},
        }
    )


def said(dev, test, results):
    notes = []
    check_sources(config(dev, test), results, notes.append)
    return notes


@pytest.fixture
def file(tmp_path):
    def write(name, numbers, text="Question {}?"):
        rows = [json.dumps({"prompt": text.format(number)}) for number in numbers]
        (tmp_path / name).write_text("\n".join(rows) + "\n")
        return {"file": str(tmp_path / name)}

    return write


@pytest.fixture
def results(tmp_path):
    return Results(tmp_path / "results")


def test_sets_without_a_prompt_in_common_pass(file, results):
    assert said(file("dev.jsonl", range(5)), file("test.jsonl", range(5, 9)), results) == []
    assert said({"miniature": "dev"}, {"miniature": "test"}, results) == []


def test_the_same_prompts_are_refused(file, results):
    one, copy, part = (
        file("a.jsonl", range(5)),
        file("b.jsonl", reversed(range(5))),
        file("c.jsonl", range(2)),
    )
    hub = {"hub": "org/data", "split": "test"}
    for dev, test in (
        (one, one),
        (one, copy),
        (one, part),
        (one, one | {"subset": 3}),
        (hub, hub | {"subset": 9}),
    ):
        with pytest.raises(
            ConfigError, match="all prompts of 'test' choose alpha too, as 'dev'; name prompts"
        ):
            said(dev, test, results)


def test_the_miniatures_same_split_is_refused(results):
    with pytest.raises(ConfigError, match="all prompts of 'test' choose alpha too"):
        said({"miniature": "dev"}, {"miniature": "dev"}, results)


def test_prompts_of_both_sets_are_counted(file, results):
    (note,) = said(file("dev.jsonl", range(5)), file("test.jsonl", range(3, 10)), results)
    assert (
        "pairs.p.benchmarks.reward.prompts: 2 of the 7 prompts of 'test' choose alpha too, as 'dev'" in note
    )
    whole = file("all.jsonl", range(9))
    (note,) = said(whole | {"subset": 4}, whole, results)
    assert "4 of the 9 prompts" in note


def test_prompts_that_are_spelled_otherwise_are_the_same_prompts(file, results, tmp_path):
    dev = file("dev.jsonl", range(5))
    (note,) = said(dev, file("test.jsonl", range(3, 10), " question\n {}? "), results)
    assert (
        "2 of the 7 prompts of 'test' differ from prompts of 'dev', which choose alpha, only in white space, case or system message"
        in note
    )
    with pytest.raises(ConfigError, match="all prompts of 'test' choose alpha too"):
        said(dev, file("test.jsonl", range(3), "QUESTION {}?"), results)
    rows = [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Question {n}?"}]
        for n in (4, 8)
    ]
    (tmp_path / "system.jsonl").write_text("".join(json.dumps({"prompt": row}) + "\n" for row in rows))
    system = {"file": str(tmp_path / "system.jsonl")}
    (note,) = said(dev, system, results)
    assert "1 of the 2 prompts of 'test' differ" in note
    # of finished sets, too
    for name, source in (("dev", dev), ("test", system)):
        write_jsonl(results.prompts(name), prompt_sets.load(config(source, source).prompts["dev"], 42))
    assert said(dev, system, results) == [note]


def test_parts_of_one_dataset_of_the_hub_are_told_before_they_are_known(results):
    hub = {"hub": "org/data", "split": "test", "subset": 9}
    (note,) = said(hub, hub | {"seed": 7}, results)
    assert "'test' and 'dev' are drawn from the same prompts" in note


def test_a_finished_set_counts_by_its_ids_and_is_no_reason_to_refuse(file, results):
    dev, test = {"hub": "org/data", "split": "dev"}, {"hub": "org/data", "split": "test"}
    for name, source in (("dev", file("dev.jsonl", range(5))), ("test", file("test.jsonl", range(5)))):
        write_jsonl(results.prompts(name), prompt_sets.load(config(source, source).prompts["dev"], 42))
    (note,) = said(dev, test, results)
    assert "5 of the 5 prompts of 'test' choose alpha too" in note
    # the set of an earlier config does not keep a corrected one from being used
    assert (
        said(file("dev.jsonl", range(5)), file("other.jsonl", range(7, 9)), Results(results.folder / "new"))
        == []
    )


def test_the_certificate_says_how_many_do_not_count():
    known = {
        "pair": "p",
        "alpha": "2",
        "choice": "x",
        "confidence": 0.95,
        "chosen_on": "dev",
        "judged_on": "test",
    }
    numbers = {"measure": "reward", "gain": 0.45, "low": 0.3, "high": 0.61, "prompts": 280}
    found = Certificate(**known, **numbers, held_out=True, certified=True, left_out=20)
    assert certificate_words(found) == (
        "gain 0.45 [0.30, 0.61] on 280 prompts of test that took no part in the choice (20 more prompts of test chose alpha too,"
        " and do not count)"
    )
