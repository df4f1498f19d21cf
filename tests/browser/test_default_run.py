"""The pages of the default run, as its user sees them; and votes from the page to the win rate."""

import csv
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from playwright.sync_api import expect
from scipy.stats import binomtest
from workflow.tree import Tree

pytestmark = [pytest.mark.browser, pytest.mark.workflow]
PAIR = "mini20"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [*csv.DictReader(file)]


def test_the_report_answers_first_and_its_curves_can_be_used(default_run, opened):
    page = opened(default_run / "report.html")
    page.wait_for_selector("body[data-drawn=yes]")
    text = page.locator("main").inner_text()
    for row in rows(default_run / "summary.csv"):
        assert row["pair"] in text
        assert f"{float(row['certificate_gain']):.2f}" in text
    charts = page.locator(".chart svg:visible")
    assert charts.count() >= 4
    marks = page.locator(".chart svg path[aria-label]").count()
    page.locator("#pairs input").first.focus()
    page.keyboard.press("Space")
    expect(page.locator(".chart svg path[aria-label]")).not_to_have_count(marks)
    assert page.locator(".chart svg path[aria-label]").count() < marks
    assert page.locator("a[href='pairs/mini20/answers.html']").count()


def test_the_answers_are_read_at_every_alpha_and_found_again_by_their_address(default_run, opened):
    path = default_run / "pairs" / PAIR / "answers.html"
    page = opened(path)
    page.wait_for_selector("#prompt-title:not(:empty)")
    seen = set()
    page.locator("#b").focus()
    page.keyboard.press("Home")
    for _ in range(6):
        seen.add((page.locator("#b-name").inner_text(), page.locator("#pane-b .text").inner_text()))
        page.keyboard.press("ArrowRight")
    assert len({name for name, _ in seen}) == 6  # -1, 0 and four alphas
    assert len({text for _, text in seen}) > 2
    page.keyboard.press("j")
    first = page.locator("#prompt").inner_text()
    page.wait_for_url("**#*prompt=*")
    again = opened(path, page.evaluate("location.hash"))
    again.wait_for_selector("#prompt-title:not(:empty)")
    assert again.locator("#prompt").inner_text() == first
    again.locator("#search").fill(first[:20])
    expect(again.locator("#count")).not_to_have_text("400 of 400")
    assert first in again.locator("#list").inner_text()


def test_votes_in_the_browser_become_the_win_rate_that_a_hand_computes(default_run, opened, tmp_path):
    page = opened(default_run / "pairs" / PAIR / "answers.html")
    page.wait_for_selector("#prompt-title:not(:empty)")
    page.locator("#vote").click()
    for number in range(20):
        left, right = (page.locator(f"#ballot-{side}").inner_text() for side in ("left", "right"))
        # somebody who likes long answers, and tires
        page.keyboard.press("0" if number >= 18 else "1" if len(left) >= len(right) else "2")
    with page.expect_download() as saved:
        page.locator("#save").click()
    tree = Tree(tmp_path / "tree", tmp_path / "kept")
    shutil.copytree(default_run.parent, tree.folder, symlinks=True)
    shutil.copytree(default_run.parent.parent / "store", tree.store)
    saved.value.save_as(tree.folder / "votes.jsonl")
    votes = [json.loads(line) for line in (tree.folder / "votes.jsonl").read_text().splitlines()]
    assert len(votes) == 20
    assert {vote["prompts"] for vote in votes} == {"reward"}  # prompts that took no part in the choice
    won: dict[str, list[float]] = {}
    for vote in votes:
        won.setdefault(vote["prompt_id"], []).append({"expo": 1, "tie": 0.5, "aligned": 0}[vote["winner"]])
    by_hand = sum(sum(each) / len(each) for each in won.values()) / len(won)

    def ask(config: dict) -> None:
        config["pairs"][PAIR]["benchmarks"] = {"human": {"votes": "votes.jsonl"}}

    tree.edit(ask)
    planned = tree.planned()
    assert planned == {"compare": 1, "benchmark_table": 1, "report": 1}
    tree.snakemake("--cores", "2")
    (found,) = [
        row
        for row in rows(tree.folder / "results/benchmarks.csv")
        if (row["benchmark"], row["metric"]) == ("human", "win_rate")
    ]
    assert float(found["value"]) == pytest.approx(by_hand, abs=1e-6)
    assert int(found["n"]) == len(won)
    assert 0 <= float(found["low"]) < by_hand < float(found["high"]) <= 1
    counts = Counter(value for each in won.values() for value in each)
    if not counts[0.5] and len(won) == 20:
        exact = binomtest(int(counts[1]), 20).proportion_ci()
        assert (float(found["low"]), float(found["high"])) == pytest.approx((exact.low, exact.high), abs=1e-6)
    report = opened(tree.folder / "results/report.html")
    report.wait_for_selector("body[data-drawn=yes]")
    assert "human" in report.locator("main").inner_text()
