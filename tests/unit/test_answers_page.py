"""What answers.html has in it; tests/browser/test_answers_read.py reads it in a browser."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest
from expoflow.errors import DataError
from expoflow.paths import Results
from expoflow.reporting.pages import answers
from expoflow.selection.split import judging
from pages import ALPHAS, PAIR, Answered

BEE = {"-1": "I'm sorry, I can't help with that.", "0": "a bee flies", "0.5": "a bee flies far", "2": None}
MOON = {"-1": "", "0": "the moon ...", "0.5": "tell me of moon now", "2": "moon " * 30}
REWARDS = {
    "bee": dict(zip(ALPHAS, (0.1, 0.2, 0.15, None), strict=True)),
    "moon": dict(zip(ALPHAS, (float("nan"), 0.5, 1.5, -3.0), strict=True)),
}
SWEPT = {"bee": BEE, "moon": MOON}
JUDGED = {
    "sun": {"sft": "no", "aligned": "the sun", "expo": "the sun shines"},
    "sea": {"sft": "no", "aligned": "the sea", "expo": "the sea"},
}


def data(page: Path) -> dict:
    """What the page's script unpacks."""
    packed = re.search(r'<script type="text/plain" id="data">(.*?)</script>', page.read_text())[1]
    return json.loads(gzip.decompress(base64.b64decode(packed)))


def test_a_response_has_its_facts_and_its_signs(tmp_path):
    (swept,) = data(Answered(tmp_path, SWEPT, REWARDS).page())["sets"]
    assert (swept["name"], swept["alphas"], swept["rewarded"]) == ("dev", [*ALPHAS], True)
    assert swept["prompts"] == {
        "id": ["bee", "moon"],
        "sample": [0, 0],
        "text": ["tell me of bee", "tell me of moon"],
    }
    said = swept["answers"]
    assert said["2"]["response"] == [None, "moon " * 30]
    assert said["-1"]["reward"] == [0.1, None]
    assert [said[alpha]["signs"] for alpha in ALPHAS] == [["wr", "d"], ["", "u"], ["w", "p"], [None, "wd"]]
    assert said["0"]["notes"][1] == ["3 tokens", "cut off at the limit of tokens"]
    assert swept["names"] == {
        "-1": "weights of the SFT model",
        "0": "aligned",
        "0.5": "expo, chosen",
        "2": "extrapolated",
    }


def test_every_sample_is_an_item(tmp_path):
    (swept,) = data(Answered(tmp_path, SWEPT, samples=2).page())["sets"]
    assert swept["prompts"]["id"] == ["bee", "bee", "moon", "moon"]
    assert swept["prompts"]["sample"] == [0, 1, 0, 1]
    assert swept["rewarded"] is False


def test_a_benchmark_has_three_alphas_and_says_whether_its_prompts_chose(tmp_path):
    sets = data(Answered(tmp_path, SWEPT, judged=JUDGED).page())["sets"]
    assert [each["alphas"] for each in sets[1:]] == [["-1", "0", "0.5"]]
    assert sets[0]["role"] == "these prompts chose alpha"
    assert sets[1]["role"] == "took no part in the choice"
    assert sets[1]["names"]["-1"] == "the SFT model"
    overlapping = JUDGED | {"bee": JUDGED["sun"]}
    sets = data(Answered(tmp_path, SWEPT, judged=overlapping).page())["sets"]
    assert sets[1]["role"] == "1 of these 3 prompts chose alpha too"


def test_votes_are_on_held_out_prompts_and_name_the_responses(tmp_path):
    vote = data(Answered(tmp_path, SWEPT, judged=JUDGED).page())["vote"]
    named = {
        variant: hashlib.sha256(JUDGED["sun"][variant].encode()).hexdigest()[:16]
        for variant in ("aligned", "expo")
    }
    assert (vote["set"], vote["prompts"]) == (1, "reward")
    assert vote["ballots"] == [{"item": 0, "prompt_id": "sun", "sample": 0, **named}]
    assert "held-out prompts (took no part in the choice)" in vote["words"]
    assert vote["words"].endswith("Identical responses are skipped: 1 of 2.")


def test_without_held_out_prompts_the_sweeps_are_voted_on(tmp_path):
    vote = data(Answered(tmp_path, SWEPT).page())["vote"]
    assert (vote["set"], vote["prompts"]) == (0, "dev")
    assert [ballot["prompt_id"] for ballot in vote["ballots"]] == ["bee", "moon"]
    assert "(these prompts chose alpha)" in vote["words"]


def test_if_a_part_of_the_prompts_judges_it_alone_is_voted_on(tmp_path):
    texts = {f"{number:02}": {"-1": "", "0": "no", "0.5": "yes", "2": ""} for number in range(10)}
    vote = data(Answered(tmp_path, texts, judge=0.5).page())["vote"]
    assert {ballot["prompt_id"] for ballot in vote["ballots"]} == judging(texts, 0.5)
    assert "the part of them that judged the choice" in vote["words"]
    assert vote["words"].endswith("Identical responses are skipped: 0 of 5.")


@pytest.mark.parametrize(
    ("chosen", "judged", "why"),
    [
        ("0", JUDGED, "The aligned model was kept"),
        ("7", {}, "There are no responses of alpha 7"),
        ("0.5", {"sea": JUDGED["sea"]}, "gave the same responses"),
    ],
)
def test_a_page_says_why_there_is_nothing_to_vote_on(tmp_path, chosen, judged, why):
    found = data(Answered(tmp_path, SWEPT, chosen=chosen, judged=judged).page())
    assert why in found["vote"]["why"]
    if chosen == "0" and judged:
        assert found["sets"][1]["alphas"] == ["-1", "0"]
        assert found["sets"][1]["answers"]["0"]["response"][0] == "the sun"


def test_a_set_that_is_too_large_begins_with_its_first_prompts_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "MOST", 100)
    (swept,) = data(Answered(tmp_path, SWEPT).page())["sets"]
    assert swept["prompts"]["id"] == ["bee"]
    assert swept["role"].endswith("this page has the first 1 of 2")


def test_prompts_that_chose_alpha_are_known_though_the_page_has_no_room_for_them(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "MOST", 100)
    sets = data(Answered(tmp_path, SWEPT, judged={"moon": JUDGED["sun"]}).page())["sets"]
    assert sets[0]["prompts"]["id"] == ["bee"]
    assert sets[1]["role"] == "1 of these 1 prompts chose alpha too"


def test_the_gain_to_quote_stands_at_the_top(tmp_path):
    choice = data(Answered(tmp_path, SWEPT, judged=JUDGED).page())["choice"]
    assert choice.startswith(
        "SFT model my-sft, aligned model my-dpo. Chosen alpha 0.5: gain 0.20 [0.10, 0.30] on 2 prompts"
    )
    results = Results(tmp_path)
    results.certificate(PAIR).unlink()
    page = results.answers_page(PAIR)
    answers.write(
        page, results.answers(PAIR), results.best(PAIR), results.certificate(PAIR), {}, {}, ["a", "b"]
    )
    assert "no certificate of this choice" in data(page)["choice"]


def test_the_same_answers_are_the_same_page(tmp_path):
    page = Answered(tmp_path, SWEPT, REWARDS).page()
    first = page.read_bytes()
    assert Answered(tmp_path, SWEPT, REWARDS).page().read_bytes() == first


def test_a_table_that_is_cut_is_named(tmp_path):
    page = Answered(tmp_path, SWEPT).page()
    results = Results(tmp_path)
    whole = results.answers(PAIR).read_bytes()
    results.answers(PAIR).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a complete table"):
        answers.write(
            page, results.answers(PAIR), results.best(PAIR), results.certificate(PAIR), {}, {}, ["a", "b"]
        )


def test_a_response_to_a_prompt_that_is_gone_is_named(tmp_path):
    page = Answered(tmp_path, SWEPT, judged=JUDGED).page()
    results = Results(tmp_path)
    prompts = results.prompts("test")
    prompts.write_text("".join(prompts.read_text().splitlines(keepends=True)[1:]))
    rows = {
        "reward": [results.benchmark_rows(PAIR, variant, "reward") for variant in ("sft", "aligned", "expo")]
    }
    with pytest.raises(
        DataError,
        match=r"sft/reward\.generations\.jsonl: has a response to prompt 'sun', which is not in .*test\.jsonl; delete",
    ):
        answers.write(
            page,
            results.answers(PAIR),
            results.best(PAIR),
            results.certificate(PAIR),
            rows,
            {"reward": {"prompts": prompts}},
            ["a", "b"],
        )
