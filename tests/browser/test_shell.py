"""What all pages have in common: they stand alone, and nothing but their own scripts runs in them."""

import pytest
from expoflow.reporting.pages import shell

pytestmark = pytest.mark.browser
HOSTILE = ["</script><img src=x onerror=alert(1)>", "<!--<script>", "\u2028 \x00 \U0001f41d"]


def test_a_page_unpacks_its_data_and_runs_no_script_of_it(tmp_path, opened, monkeypatch):
    assets = tmp_path / "assets"
    assets.mkdir()
    for name in ("unpack.js", "base.css"):
        (assets / name).write_text(shell.asset(name))
    (assets / "show.js").write_text(
        'unpack("data").then(texts => { const all = "</script><!--"; document.body.dataset.marks = all;'
        ' for (const text of texts) { const line = document.createElement("p"); line.textContent = text; document.body.append(line); } });'
    )
    monkeypatch.setattr(shell, "ASSETS", assets)
    shell.write_page(
        tmp_path / "page.html",
        title="a page",
        body="<main><h1>a page</h1></main>",
        styles=["base.css"],
        scripts=["unpack.js", "show.js"],
        data={"data": HOSTILE},
    )
    page = opened(tmp_path / "page.html")
    page.wait_for_selector("p")
    assert [each.text_content() for each in page.query_selector_all("p")] == HOSTILE
    assert page.evaluate("document.body.dataset.marks") == "</script><!--"
    assert page.evaluate("getComputedStyle(document.body).margin") == "0px"


def test_a_script_that_is_not_the_pages_own_does_not_run(tmp_path, chromium):
    shell.write_page(
        tmp_path / "page.html",
        title="a page",
        body='<main><img src="https://example.org/a.png" alt="" onerror="window.ran = 1"><script>window.ran = 1</script></main>',
        styles=["base.css"],
        scripts=["unpack.js"],
        data={},
    )
    page, left = chromium.new_page(), []
    page.on("requestfinished", lambda request: left.append(request.url))
    page.on("requestfailed", lambda request: left.append(request.failure))
    page.goto((tmp_path / "page.html").as_uri())
    page.evaluate("1")
    assert page.evaluate("window.ran") is None
    assert sorted(left) == ["csp", (tmp_path / "page.html").as_uri()]
    page.close()


def test_no_page_may_evaluate_texts_or_fetch():
    policy = shell.policy(["let a"], "p {}")
    assert "unsafe" not in policy
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
