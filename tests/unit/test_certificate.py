"""The certificate: a gain on prompts that took no part in the choice, from tables whose answers are known by hand."""

import json

import numpy as np
import pytest
from expoflow.benchmarks.reward import compare
from expoflow.columns import REWARD_COLUMNS
from expoflow.config.stages import SelectConfig
from expoflow.errors import DataError
from expoflow.files.records import write_csv, write_json
from expoflow.paths import Results
from expoflow.reporting import tables, words
from expoflow.reporting.pages.provenance import Told
from expoflow.reporting.pages.report import write_report
from expoflow.reporting.run_end import closing_words
from expoflow.reporting.tables import SCORED
from expoflow.results import Best, Message, Prompt, Scored, read_certificate
from expoflow.selection import certificate, select, split
from pair_results import write_alphas
from test_sweep import likelihoods, rewards

CONFIG = SelectConfig(resamples=500)
PROMPTS = [f"{number:016x}" for number in range(40)]


def scored(values, samples=1, prompts=PROMPTS):
    """Responses with the rewards `values`, one a prompt, the same for all its samples."""
    return [
        Scored(
            prompt_id=prompt,
            sample=sample,
            seed=sample,
            response="words",
            response_tokens=1,
            finish_reason="stop",
            engine="e",
            reward=float(value),
        )
        for prompt, value in zip(prompts, values, strict=True)
        for sample in range(samples)
    ]


def difference(expo, aligned):
    """The benchmark's own paired difference in reward."""
    prompts = [Prompt(prompt_id=each, messages=[Message(role="user", content=each)]) for each in PROMPTS]
    return next(each for each in compare(prompts, expo, aligned, CONFIG) if each.metric == "reward")


RNG = np.random.default_rng(0)
ALIGNED = RNG.normal(size=40)
GAINS = RNG.normal(0.5, 1, size=40)
BEST = Best(pair="p", alpha="2", certified=True, chosen_share=1, edge=False, reason="it is", prompts=40)


def on_test(gains=GAINS, chose=(), samples=1):
    expo, aligned = scored(ALIGNED + gains, samples), scored(ALIGNED, samples)
    return certificate.on_test(difference(expo, aligned).value, expo, aligned, set(chose), CONFIG, 0)


def certified(held_out, folder, best=BEST, chose=()):
    return certificate.certify(best, held_out, set(chose), folder / "looks.jsonl", CONFIG, "dev", "test")


@pytest.mark.parametrize("samples", [1, 3])
def test_the_certificate_is_of_the_benchmarks_paired_difference(tmp_path, samples):
    held_out = on_test(samples=samples)
    compared = difference(scored(ALIGNED + GAINS, samples), scored(ALIGNED, samples))
    assert held_out.gain == pytest.approx(compared.value)
    assert (held_out.low, held_out.high) == pytest.approx((compared.low, compared.high), abs=0.1)
    found = certified(held_out, tmp_path)
    assert found.certified == (held_out.low > 0)
    assert (found.held_out, found.measure, found.prompts, found.looks) == (True, "reward", 40, 1)
    assert (found.chosen_on, found.judged_on, found.left_out) == ("dev", "test", 0)


def test_a_few_prompts_that_differ_prove_nothing(tmp_path):
    gains = np.zeros(40)
    gains[:3] = 1, 0.8, 1.2
    assert not certified(on_test(gains), tmp_path).certified


def test_prompts_that_chose_alpha_too_do_not_judge_it(tmp_path):
    gains = np.where(np.arange(40) < 10, 100.0, GAINS)
    found = certified(on_test(gains, PROMPTS[:10]), tmp_path)
    assert (found.prompts, found.left_out) == (30, 10)
    assert found.gain == pytest.approx(GAINS[10:].mean())
    assert found.low < found.gain < found.high < 2


def test_if_all_of_them_chose_alpha_nothing_is_certified(tmp_path):
    assert on_test(chose=PROMPTS) is None
    found = certified(None, tmp_path)
    assert (found.held_out, found.certified, found.gain, found.judged_on) == (False, False, None, None)
    assert words.certificate_words(found) == "alpha was chosen and judged on the same prompts"


@pytest.mark.parametrize(
    "change",
    [
        lambda expo, aligned, compared: (compared, expo[1:], aligned),
        lambda expo, aligned, compared: (compared, expo[1:], aligned[1:]),
        lambda expo, aligned, compared: (compared, [*expo[:-1], expo[-1].model_copy(update={"reward": None})], aligned),
        lambda expo, aligned, compared: (compared, [], []),
        lambda expo, aligned, compared: (compared + 5, expo, aligned),
    ],
)  # fmt: skip
def test_results_of_different_responses_are_refused(change):
    expo, aligned = scored(ALIGNED + GAINS), scored(ALIGNED)
    with pytest.raises(DataError, match="are of other responses; delete them and run snakemake again"):
        certificate.on_test(*change(expo, aligned, difference(expo, aligned).value), set(), CONFIG, 0)


def held(gain, low, high, prompts=PROMPTS, measure="reward", digest="d"):
    return certificate.HeldOut(measure, tuple(prompts), gain, low, high, digest)


@pytest.mark.parametrize(
    ("held_out", "alpha", "yes"),
    [
        (held(0.5, 0.1, 0.9), "2", True),
        (held(0.5, -0.1, 0.9), "2", False),
        (held(0.0, 0.0, 0.0), "0", False),
        (held(0.5, 0.1, 0.9), "0", False),
        (held(np.nan, np.nan, np.nan), "2", False),
        (held(-0.5, -0.9, -0.1, measure="nll"), "2", True),
        (held(-0.5, -0.9, 0.1, measure="nll"), "2", False),
    ],
)
def test_what_certifies(held_out, alpha, yes, tmp_path):
    found = certified(held_out, tmp_path, BEST.model_copy(update={"alpha": alpha}))
    assert found.certified is yes
    write_json(tmp_path / "p/certificate.json", found)
    assert (
        read_certificate(tmp_path / "p/certificate.json", BEST.model_copy(update={"alpha": alpha})) == found
    )


def test_every_other_result_on_a_prompt_is_a_look(tmp_path):
    def looks(digest, prompts=PROMPTS):
        return certified(held(0.5, 0.1, 0.9, prompts, digest=digest), tmp_path).looks

    assert [looks("a"), looks("a"), looks("b"), looks("a"), looks("c")] == [1, 1, 2, 2, 3]
    assert looks("d", PROMPTS[1:]) == 4  # without one prompt the others are as they were
    assert looks("e", [f"{number:016x}" for number in range(100, 140)]) == 1
    assert looks("f", PROMPTS[:1]) == 4  # "d" had not this one
    assert len((tmp_path / "looks.jsonl").read_text().splitlines()) == 6


def test_prompts_that_chose_an_alpha_have_been_looked_at(tmp_path):
    assert certified(None, tmp_path, chose=PROMPTS).looks == 0
    found = certified(held(0.5, 0.1, 0.9, PROMPTS[:20]), tmp_path, chose=PROMPTS[20:])
    assert found.looks == 2
    assert certified(held(0.5, 0.1, 0.9, PROMPTS[20:], digest="e"), tmp_path, chose=PROMPTS[:20]).looks == 3


def test_another_choice_and_other_rewards_are_other_results():
    one = on_test()
    assert on_test().digest == one.digest
    assert on_test(GAINS + 1e-9).digest != one.digest


def test_words_say_what_is_to_be_quoted(tmp_path):
    found = certified(held(0.45, 0.3, 0.61), tmp_path)
    said = "gain 0.45 [0.30, 0.61] on 40 prompts of test that took no part in the choice"
    assert words.certificate_words(found) == said
    seen = words.certificate_words(found.model_copy(update={"looks": 3}))
    assert seen == f"{said} (these prompts were looked at 3 times)"
    doubtful = {"certified": False, "low": -0.003}
    assert words.certificate_words(found.model_copy(update=doubtful)) == (
        said.replace("0.30", "-0.003") + ", not certified: the interval contains 0"
    )
    bad = found.model_copy(update={"certified": False, "gain": -0.5, "low": -0.6, "high": -0.4})
    assert words.certificate_words(bad).endswith(", worse than the aligned model there")
    unknown = found.model_copy(update={"low": None, "high": None, "certified": False})
    assert words.certificate_words(unknown).startswith("gain 0.45 on 40 prompts")
    nll = found.model_copy(update={"measure": "nll"})
    assert words.certificate_words(nll).startswith("change of NLL 0.45 [")
    kept = certified(held(0.0, 0.0, 0.0), tmp_path, BEST.model_copy(update={"alpha": "0"}))
    assert words.certificate_words(kept) == "the aligned model is kept, so there is no gain to certify"


@pytest.mark.parametrize("prompts", [1, 4, 5])
def test_a_sweep_of_a_few_prompts_is_written_and_certifies_nothing(prompts, tmp_path):
    few = {alpha: table.head(2 * prompts) for alpha, table in TABLES.items()}
    rows, best = select.select("p", few, dict.fromkeys(few, 1.0), CONFIG, 0)
    select.write_choice(rows, best, tmp_path / "alphas.csv", tmp_path / "best.json")
    assert (best.alpha, best.certified, best.gain_low) == ("2", False, None)
    assert "nan" not in words.best_line(best, 0.0) + (tmp_path / "best.json").read_text()
    held_out = on_test(np.where(np.arange(40) < prompts, 0.5, 0), PROMPTS[prompts:])
    assert np.isnan(held_out.low)
    assert not certified(held_out, tmp_path).certified


# The part of the sweep's prompts that judges.

TABLES = {alpha: rewards(alpha, float(alpha)) for alpha in ("-1", "0", "1", "2")}
LIKELY = {alpha: likelihoods(alpha, 1 - float(alpha) / 10, 0) for alpha in TABLES}


def test_the_parts_are_the_same_whatever_the_order_and_a_further_prompt_moves_few():
    ids = [f"{int(each):016x}" for each in RNG.integers(1 << 62, size=200)]
    half = split.judging(ids, 0.5)
    assert len(half) == 100
    assert split.judging(reversed(ids), 0.5) == half
    assert len(half - split.judging([*ids, "f" * 16], 0.5)) <= 1
    assert len(split.judging(ids, 0.3)) == 60


def test_a_part_chooses_and_the_other_judges():
    config = CONFIG.model_copy(update={"judge": 0.3})
    rows, best = select.select("p", TABLES, dict.fromkeys(TABLES, 1.0), config, 0)
    judging = split.judging(PROMPTS, 0.3)
    assert (best.prompts, len(judging)) == (28, 12)
    for row in rows:
        table = TABLES[row["alpha"]]
        assert row["reward"] == pytest.approx(table.loc[~table["prompt_id"].isin(judging), "reward"].mean())
    held_out = certificate.on_part("p", best.alpha, TABLES, {}, config, 0)
    assert set(held_out.prompts) == judging
    judged = {
        alpha: table.loc[table["prompt_id"].isin(judging), "reward"].mean() for alpha, table in TABLES.items()
    }
    assert held_out.gain == pytest.approx(judged[best.alpha] - judged["0"])
    assert held_out.low < held_out.gain < held_out.high


def test_without_rewards_a_part_judges_what_alpha_was_chosen_by():
    bare = {alpha: table.assign(reward=np.nan) for alpha, table in TABLES.items()}
    config = CONFIG.model_copy(update={"by": "nll", "judge": 0.5})
    held_out = certificate.on_part("p", "2", bare, LIKELY, config, 0)
    assert (held_out.measure, len(held_out.prompts)) == ("nll", 20)
    assert held_out.low <= held_out.gain <= held_out.high
    assert held_out.gain == pytest.approx(-0.2, abs=0.02)
    with pytest.raises(DataError, match="NLL under the aligned model is not known for all responses"):
        certificate.on_part("p", "2", bare, {}, config, 0)


@pytest.mark.parametrize("share", [0.001, 0.999])
def test_a_part_without_prompts_is_refused(share):
    with pytest.raises(
        DataError, match=rf"p: select.judge: {share} of 40 prompts leaves one part without prompts"
    ):
        split.part(TABLES, share, "p")


# Results of an earlier version.


def test_what_an_earlier_version_wrote_is_read():
    old = {
        "pair": "p",
        "alpha": "8",
        "certified": True,
        "reward": 1.0,
        "gain": 0.6,
        "gain_low": 0.5,
        "gain_high": 0.7,
    }
    best = Best.model_validate_json(json.dumps(old | {"chosen_share": 0.9, "edge": False, "reason": "so"}))
    assert (best.prompts, best.optimism, best.gain_pointwise_low) == (None, None, None)
    assert words.best_line(best, "0.4") == "p: best alpha 8, reward 0.40 -> 1.00, gain 0.60 [0.50, 0.70]"
    assert words.optimism_words(best) == ""


@pytest.fixture
def results(tmp_path):
    """The results of a pair, with joint tables, as this version makes them from its files."""

    def make(best, found=None, old=False):
        results = Results(tmp_path)
        file = write_alphas(tmp_path, "p", {"0": 1.0, "2": 1.5})
        if old:
            table = file.read_text().splitlines()
            columns = len([name for name in table[0].split(",") if "pointwise" not in name])
            file.write_text("".join(",".join(row.split(",")[:columns]) + "\n" for row in table))
        write_json(results.best("p"), best)
        if found:
            write_json(results.certificate("p"), found)
        write_csv(tmp_path / "p.csv", [{name: "p" for name in SCORED}], REWARD_COLUMNS)
        tables.write_sweeps(
            results, [file], [results.best("p")], [tmp_path / "p.csv"], [results.certificate("p")]
        )
        tables.write_benchmarks(results.table("benchmarks"), [])
        write_report(results.report, Told(confidence={"p": 0.95}), results)
        (summary,) = tables.read([results.table("summary")])
        return results, summary, results.report.read_text().partition("<script")[0]

    return make


def test_summary_page_and_last_words_quote_the_certificate(results, tmp_path):
    best = BEST.model_copy(
        update={"reward": 1.5, "gain": 0.5, "gain_low": 0.1, "gain_high": 0.9, "optimism": 0.02}
    )
    where, summary, page = results(best, certified(held(0.45, 0.3, 0.61), tmp_path, best))
    names = ("", "_measure", "_gain", "_low", "_high", "_prompts")
    assert [summary[f"certificate{name}"] for name in names] == ["1", "reward", "0.45", "0.3", "0.61", "40"]
    assert (summary["judged_on"], summary["looks"], summary["optimism"]) == ("test", "1", "0.02")
    said = "gain 0.45 [0.30, 0.61] on 40 prompts of test that took no part in the choice"
    assert f">Over the aligned model: {said}: certified.</p>" in page
    assert "About 0.02 of the gain is due to choosing the best of several alphas." in page
    chose = "on dev, where alpha was chosen: reward 1.00 -> 1.50, gain 0.50 [0.10, 0.90]"
    assert f"p: best alpha 2, {said}\n  {chose}\n" in closing_words(where)


def test_without_prompts_of_its_own_everything_says_so(results, tmp_path):
    best = BEST.model_copy(update={"reward": 1.5, "gain": 0.5, "gain_low": 0.1, "gain_high": 0.9})
    where, summary, page = results(best, certified(None, tmp_path, best))
    assert {value for name, value in summary.items() if name.startswith("certificate")} == {""}
    assert ">Certificate: alpha was chosen and judged on the same prompts.</p>" in page
    last = "p: best alpha 2, reward 1.00 -> 1.50, gain 0.50 [0.10, 0.90]\n  alpha was chosen and judged on the same prompts\n"
    assert last in closing_words(where)


def test_the_results_of_an_earlier_version_are_still_shown(results):
    old = {"reward": 1.5, "gain": 0.5, "gain_low": 0.1, "gain_high": 0.9, "prompts": None}
    where, summary, page = results(BEST.model_copy(update=old), old=True)
    assert (summary["certified"], summary["certificate"], summary["gain_low"]) == ("1", "", "0.1")
    assert ">Certificate: none: this choice was made by an earlier version.</p>" in page
    assert (
        "The interval is from an earlier version, which computed it as if no other alpha had been tried."
        in page
    )
    assert "p: best alpha 2, reward 1.00 -> 1.50, gain 0.50 [0.10, 0.90]\n" in closing_words(where)


def test_a_certificate_of_another_choice_is_not_quoted(results, tmp_path):
    for other in ({"alpha": "4"}, {"chosen_share": 0.5}):  # of other models, the same alpha
        found = certified(held(0.45, 0.3, 0.61), tmp_path, BEST.model_copy(update=other))
        where, summary, page = results(BEST, found)
        assert summary["certificate_gain"] == ""
        assert ">Certificate: none yet; run snakemake.</p>" in page
        assert "gain 0.45" not in page + closing_words(where)
