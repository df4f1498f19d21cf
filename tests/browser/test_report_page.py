"""The report in a browser: curves that can be read and changed, a table that sorts, nothing that reaches out."""

import pytest
from expoflow.reporting.pages.report import write_report
from report_results import CAPTION, GRIDS, write_run

pytestmark = pytest.mark.browser
POINTS = ".drawn path[aria-roledescription='point']"


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    results, told = write_run(tmp_path_factory.mktemp("run"))
    write_report(results.report, told)
    return results.report


@pytest.fixture
def drawn(opened, report):
    def open_page(**how):
        page = opened(report, **how)
        page.wait_for_selector("body[data-drawn]")
        return page

    return open_page


def marks(page) -> dict[str, list[str]]:
    """By chart the labels of its points, as a screen reader would say them."""
    return {
        figure.query_selector("figcaption").text_content(): [
            point.get_attribute("aria-label") for point in figure.query_selector_all(POINTS)
        ]
        for figure in page.query_selector_all(".chart")
    }


def column(page, at: int) -> list[str]:
    return page.eval_on_selector_all(
        f"#sortable tbody tr > :nth-child({at})", "cells => cells.map(cell => cell.textContent.trim())"
    )


def test_every_measure_is_drawn_and_a_pair_can_be_left_out(drawn):
    page = drawn()
    found = marks(page)
    counts = {title: len(points) for title, points in found.items()}
    assert counts == {
        "Reward": 8, "NLL": 4, "True quality": 8, "Length": 8, "Degenerate responses": 8
    }  # fmt: skip
    assert any("strong" in label for label in found["Reward"])
    assert page.locator(".drawn svg").first.bounding_box()["width"] > 500
    page.focus("#pairs input[value=strong]")
    page.keyboard.press("Space")
    page.wait_for_function(
        "document.querySelectorAll(`.chart:first-child path[aria-roledescription='point']`).length === 4"
    )
    found = marks(page)
    assert {title: len(points) for title, points in found.items()} == dict.fromkeys(counts, 4)
    assert not any("strong" in label for labels in found.values() for label in labels)
    page.keyboard.press("Space")
    page.wait_for_function(
        "document.querySelectorAll(`.chart:first-child path[aria-roledescription='point']`).length === 8"
    )


def test_a_mark_tells_all_numbers_of_its_alpha(drawn):
    page = drawn()
    page.locator(f".chart:first-child {POINTS.removeprefix('.drawn ')}[aria-label*='0.3']").first.hover(
        force=True
    )
    page.wait_for_selector("#vg-tooltip-element.visible")
    said = page.inner_text("#vg-tooltip-element")
    assert "0.3, chosen" in said
    assert "change 0.60 [0.40, 0.80]" in said  # reward
    assert "True quality" in said
    assert "change -0.3" in said
    assert (
        page.evaluate("getComputedStyle(document.querySelector('#vg-tooltip-element')).position") == "fixed"
    )


def test_an_axis_has_the_values_that_are_there(drawn):
    page = drawn()
    texts = page.eval_on_selector_all(
        ".chart:nth-child(2) svg text", "all => all.map(each => each.textContent)"
    )
    assert "1.5" in texts, texts
    assert {"−1", "0", "0.3", "0.5", "1"} <= set(texts)


def test_the_table_sorts_by_number_and_by_text_and_says_so(drawn):
    page = drawn()
    heads = page.locator("#sortable th[scope=col]")
    before = column(page, 3)
    page.locator("#sortable th button", has_text="ExPO - aligned").click()
    assert [value.split(" ")[0] for value in column(page, 7)] == [
        "+0.020", "+0.200", "+0.400", "0.700", "+20.000", "its"
    ]  # fmt: skip
    assert heads.nth(6).get_attribute("aria-sort") == "ascending"
    page.keyboard.press("Enter")
    assert [value.split(" ")[0] for value in column(page, 7)] == [
        "+20.000", "0.700", "+0.400", "+0.200", "+0.020", "its"
    ]  # fmt: skip
    assert heads.nth(6).get_attribute("aria-sort") == "descending"
    page.locator("#sortable th button", has_text="metric").click()
    assert column(page, 3) == sorted(before)
    assert heads.nth(6).get_attribute("aria-sort") == "none"
    page.locator("#sortable th button", has_text="verdict").click()
    assert column(page, 9)[:2] == ["worse", "better"]


def test_what_is_not_certified_is_grey_and_a_loss_is_not_a_gain(drawn):
    page = drawn()
    colours = {
        verdict: page.evaluate(
            "verdict => getComputedStyle([...document.querySelectorAll('#sortable tbody tr')]"
            ".find(row => row.cells[8].textContent === verdict).cells[6]).color",
            verdict,
        )
        for verdict in ("better", "worse", "not certified")
    }
    assert len(set(colours.values())) == 3


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", [1400, 400])
def test_it_can_be_used_by_everyone(drawn, width, dark):
    from axe_playwright_python.sync_playwright import Axe

    page = drawn(width=width, dark=dark)
    page.eval_on_selector_all("details", "all => all.forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


def test_colours_follow_the_reader_and_the_printer(drawn):
    colour = "getComputedStyle(document.querySelector('.drawn text')).fill"
    page = drawn(dark=True)
    dark = page.evaluate(colour)
    page.emulate_media(color_scheme="light")
    light = page.evaluate(colour)
    assert dark != light
    page.emulate_media(color_scheme="dark", media="print")
    assert page.evaluate(colour) == light
    assert page.pdf()


def test_words_of_users_are_texts_and_pictures_are_in_the_page(drawn):
    page = drawn()
    assert CAPTION in page.text_content("#figures figcaption")
    assert page.evaluate("document.querySelector('#figures img').naturalWidth") == 40
    assert page.eval_on_selector_all("#answer a", "all => all.map(a => a.getAttribute('href'))") == [
        f"pairs/{pair}/answers.html" for pair in GRIDS
    ]
    assert "org/<rm>" in page.text_content("#provenance pre")
