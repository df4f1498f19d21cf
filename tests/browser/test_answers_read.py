"""answers.html as a reader uses it: the slider, the list, links, keys, marks and blind votes."""

import hashlib
import json
from pathlib import Path

import pytest
from pages import ALPHAS, PAIR, Answered
from playwright.sync_api import expect

pytestmark = pytest.mark.browser
TOPICS = [f"topic{number}" for number in range(300)]
HOSTILE = {
    "script": "</script><script>window.ran = 1</script><img src=x onerror='window.ran = 1'>",
    "formula": "=cmd|' /C calc'!A0\t@SUM(1)",
    "bidi": "\u202egnp.exe\u2066 \u05d0\u05d1",
    "nul": "a\x00b \u2028 \ufeff \U0001f41d",
    "long": "w" * 5000,
}


def ordinary(topics=TOPICS) -> tuple[dict, dict]:
    """Responses and rewards: alpha 0.5 gains by the topic's number, modulo 7, and a few are special."""
    responses, rewards = {}, {}
    for number, topic in enumerate(topics):
        responses[topic] = {alpha: f"At {alpha} the {topic} is like a river in spring." for alpha in ALPHAS}
        rewards[topic] = {alpha: float(alpha) * (number % 7 - 3) for alpha in ALPHAS}
    responses[topics[1]]["0.5"] = "I'm sorry, I can't help with that."
    responses[topics[2]]["0.5"] = "It goes on and on ..."
    responses[topics[3]]["2"] = None
    responses[topics[4]]["0.5"] = ""
    responses[topics[5]]["0.5"] = responses[topics[5]]["0"]
    return responses, rewards


@pytest.fixture
def page(tmp_path) -> Path:
    return Answered(tmp_path, *ordinary()).page()


def judged(count: int = 6) -> dict[str, dict[str, str]]:
    return {
        f"test{number}": {
            "sft": "no",
            "aligned": f"short {number}",
            "expo": f"a longer answer {number}" if number else "short 0",
        }
        for number in range(count)
    }


def text(view, selector: str) -> str:
    return view.text_content(selector)


def rows(view) -> list[str]:
    return [each.text_content() for each in view.query_selector_all("#list bdi")]


def ready(view):
    view.wait_for_selector("#list button")
    return view


def test_the_slider_moves_the_text_of_b_alone(page, opened):
    view = ready(opened(page))
    assert "At 0 the topic0" in text(view, "#pane-a .text")
    assert "At 0.5 the topic0" in text(view, "#pane-b .text")
    view.focus("#b")
    view.keyboard.press("ArrowRight")
    assert "At 2 the topic0" in text(view, "#pane-b .text")
    assert "At 0 the topic0" in text(view, "#pane-a .text")
    assert view.get_attribute("#b", "aria-valuetext") == "alpha 2: extrapolated"
    assert "reward -6.00 (-6.00 from A)" in text(view, "#pane-b .facts")
    view.evaluate("b.value = 0; b.dispatchEvent(new Event('input'))")
    assert "At -1 the topic0" in text(view, "#pane-b .text")
    view.click("#variants >> text=aligned")
    assert text(view, "#pane-b h3") == "B: alpha 0, aligned"
    view.select_option("#a", "2")
    assert "At 2 the topic0" in text(view, "#pane-a .text")


def test_what_an_alpha_did_not_answer_is_said(page, opened):
    view = ready(opened(page, "#prompt=topic3&b=2"))
    assert text(view, "#pane-b p") == "alpha 2 has no response to this prompt"
    assert view.query_selector("#pane-b .text") is None
    view = ready(opened(page, "#prompt=topic4"))
    assert text(view, "#pane-b .text") == "empty"


def test_search_finds_prompts_and_the_shown_responses(page, opened):
    view = ready(opened(page))
    assert text(view, "#count") == "300 of 300"
    view.keyboard.press("/")
    view.keyboard.type("TOPIC123")
    expect(view.locator("#count")).to_have_text("1 of 300")
    assert rows(view) == ["tell me of topic123"]
    view.fill("#search", "can't help")
    expect(view.locator("#list bdi").first).to_have_text("tell me of topic1")
    view.fill("#search", "nowhere")
    expect(view.locator("#count")).to_have_text("0 of 300")
    view.keyboard.press("Escape")
    view.keyboard.press("j")
    assert text(view, "#prompt") == "tell me of topic0"


def test_the_list_is_sorted_and_grows_as_it_scrolls(page, opened):
    view = ready(opened(page))
    assert len(rows(view)) == 50
    view.evaluate("list => { list = document.getElementById('list'); list.scrollTop = list.scrollHeight }")
    expect(view.locator("#list li")).to_have_count(100)
    view.select_option("#sort", "gain")
    assert rows(view)[:2] == ["tell me of topic6", "tell me of topic13"]
    view.select_option("#sort", "loss")
    assert rows(view)[:2] == ["tell me of topic0", "tell me of topic7"]
    view.select_option("#sort", "reward")
    assert rows(view)[0] == "tell me of topic6"
    view.click("#variants >> text=sft")
    assert rows(view)[0] == "tell me of topic0"
    view.click("#variants >> text=expo")
    view.select_option("#sort", "length")
    assert rows(view)[-1] != "tell me of topic4"
    assert text(view, "#list li:nth-child(1) small").endswith("10 tokens")


@pytest.mark.parametrize(
    ("sign", "found"),
    [("r", "topic1"), ("u", "topic2"), ("d", "topic4")],
)
def test_filters_leave_what_holds_for_b(page, opened, sign, found):
    view = ready(opened(page))
    view.check(f"#filters [value={sign}]")
    assert text(view, "#count") == "1 of 300"
    assert rows(view) == [f"tell me of {found}"]
    assert text(view, f"#filters label:has([value={sign}]) span") == "(1)"
    view.click("#variants >> text=aligned")
    assert text(view, "#count") == "0 of 300"


def test_those_worse_than_aligned_are_found(page, opened):
    view = ready(opened(page))
    view.check("#filters [value=w]")
    assert text(view, "#count") == f"{sum(number % 7 < 3 for number in range(300))} of 300"


def test_without_rewards_nothing_is_sorted_or_filtered_by_them(tmp_path, opened):
    view = ready(opened(Answered(tmp_path, ordinary()[0]).page()))
    assert not view.is_visible("#filters [value=w]")
    assert view.eval_on_selector_all("#sort option:not(:disabled)", "all => all.map(each => each.value)") == [
        "order",
        "length",
    ]
    assert "reward" not in text(view, "#pane-b .facts")


def test_a_link_opens_one_prompt_at_two_alphas_and_follows_the_reader(tmp_path, opened):
    page = Answered(tmp_path, *ordinary(), samples=2, judged=judged()).page()
    view = ready(opened(page, "#prompt=topic7&sample=1&set=dev&a=-1&b=2.0"))
    assert text(view, "#prompt-title") == "Prompt topic7, sample 1"
    assert (text(view, "#pane-a h3"), text(view, "#pane-b h3")) == (
        "A: alpha -1, weights of the SFT model",
        "B: alpha 2, extrapolated",
    )
    assert text(view, "#notice") == ""
    assert view.evaluate("document.querySelector('#list [aria-current]').textContent").startswith(
        "tell me of topic7"
    )
    view.keyboard.press("j")
    view.wait_for_url("**/answers.html#set=dev&prompt=topic8&sample=0&a=-1&b=2")
    view.evaluate("location.hash = 'set=reward&prompt=test3'")
    expect(view.locator("#prompt-title")).to_have_text("Prompt test3")
    assert text(view, "#role") == "took no part in the choice"
    assert text(view, "#pane-b .text") == "a longer answer 3"


def test_a_link_to_what_is_not_there_says_so(page, opened):
    view = ready(opened(page, "#prompt=nothing&set=prod&a=x&b=9"))
    assert (
        text(view, "#notice")
        == "This page does not have what the link names: set prod, a x, b 9, prompt nothing."
    )
    assert text(view, "#prompt-title") == "Prompt topic0"
    assert text(view, "#pane-b h3") == "B: alpha 0.5, expo, chosen"


def test_keys_move_prompt_and_alpha_but_not_while_one_types(page, opened):
    view = ready(opened(page))
    for key in ("j", "ArrowDown", "ArrowDown", "k", "ArrowUp", "j"):
        view.keyboard.press(key)
    assert text(view, "#prompt-title") == "Prompt topic2"
    view.keyboard.press("ArrowLeft")
    view.keyboard.press("ArrowLeft")
    view.keyboard.press("ArrowLeft")
    assert text(view, "#pane-b h3") == "B: alpha -1, weights of the SFT model"
    view.keyboard.press("/")
    view.keyboard.type("jjv/")
    assert text(view, "#prompt-title") == "Prompt topic2"
    assert view.input_value("#search") == "jjv/"
    view.keyboard.press("Escape")
    view.uncheck("#keys")
    view.keyboard.press("v")
    assert view.is_hidden("#ballot")


def test_words_that_only_one_has_are_marked(page, opened):
    view = ready(opened(page))
    assert view.eval_on_selector_all("#pane-a del", "all => all.map(each => each.textContent.trim())") == [
        "0"
    ]
    assert view.eval_on_selector_all("#pane-b ins", "all => all.map(each => each.textContent.trim())") == [
        "0.5"
    ]
    assert text(view, "#pane-b .text") == "At 0.5 the topic0 is like a river in spring."
    view.uncheck("#marks")
    assert view.query_selector("ins, del") is None
    view = ready(opened(page, "#prompt=topic5"))
    assert text(view, "#marked") == "the same text"


def test_marks_of_long_texts_are_left_out_and_it_says_so(tmp_path, opened):
    responses = {
        name: {alpha: f"{name} {alpha} " * size for alpha in ALPHAS}
        for name, size in (("long", 9000), ("words", 1500))
    }
    page = Answered(tmp_path, responses).page()
    for name in responses:
        view = ready(opened(page, f"#prompt={name}"))
        assert text(view, "#marked") == "too long to mark"
        assert text(view, "#pane-b .text") == responses[name]["0.5"]


def test_marks_are_the_longest_common_words(page, opened):
    view = ready(opened(page))

    def marked(before, after):
        parts = view.evaluate("texts => differences(...texts)", [before, after])
        return [[part["text"] for part in side if part["own"]] for side in parts], [
            "".join(part["text"] for part in side) for side in parts
        ]

    assert marked("the cat sat", "the dog sat") == ([["cat "], ["dog "]], ["the cat sat", "the dog sat"])
    assert marked("", "a b") == ([[], ["a b"]], ["", "a b"])
    assert marked("a\n\nb", "a b") == ([[], []], ["a\n\nb", "a b"])
    assert marked("one two three four", "two three five") == (
        [["one ", "four"], ["five"]],
        ["one two three four", "two three five"],
    )
    assert marked("我喜欢蜜蜂", "我喜欢河流")[1] == ["我喜欢蜜蜂", "我喜欢河流"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_texts_are_shown_and_do_nothing(tmp_path, opened, name):
    said = {alpha: f"{HOSTILE[name]} {alpha}" for alpha in ALPHAS}
    judged = {"test": {"sft": "", "aligned": HOSTILE[name], "expo": said["0"]}}
    asked = {"one": HOSTILE[name], "test": HOSTILE[name]}
    hostile = Answered(tmp_path, {"one": said, "two": said}, judged=judged, asked=asked)
    view = ready(opened(hostile.page(), width=400))
    assert text(view, "#pane-b .text") == said["0.5"]
    assert text(view, "#prompt") == HOSTILE[name]
    view.keyboard.press("v")
    assert sorted([text(view, "#ballot-left"), text(view, "#ballot-right")]) == sorted(
        [HOSTILE[name], said["0"]]
    )
    assert view.evaluate("window.ran") is None
    assert view.evaluate("document.documentElement.scrollWidth") <= 400


def test_votes_are_blind_kept_and_saved(tmp_path, opened):
    answered = judged()
    view = ready(opened(Answered(tmp_path, *ordinary(), judged=answered).page()))
    view.keyboard.press("v")
    assert "held-out prompts (took no part in the choice)" in text(view, "#ballot-what")
    assert "Identical responses are skipped: 1 of 6." in text(view, "#ballot-what")
    shown = view.inner_text("main")
    assert not any(word in shown for word in ("reward 0", "tokens", "alpha"))
    view.fill("#voter", "Ada")
    view.keyboard.press("Tab")
    expected = []
    for key in ("1", "2", "0", "3", "u", "1"):
        if key != "u":
            expected.append((text(view, "#ballot-prompt"), text(view, "#ballot-left"), key))
        else:
            expected.pop()
        view.keyboard.press(key)
    assert text(view, "#progress") == "4 of 5 voted"
    view.reload()
    ready(view)
    view.click("#vote")
    view.fill("#voter", "Ada")
    view.keyboard.press("Tab")
    assert text(view, "#progress") == "4 of 5 voted"
    view.click("#right")
    assert text(view, "#progress") == "5 of 5 voted. Save the votes, or end."
    assert view.is_disabled("#left")
    with view.expect_download() as saved:
        view.click("#save")
    assert saved.value.suggested_filename == f"votes.{PAIR}.jsonl"
    votes = [json.loads(line) for line in Path(saved.value.path()).read_text().splitlines()]
    assert len(votes) == 5
    for vote, (prompt, left, key) in zip(votes, expected, strict=False):
        said = answered[vote["prompt_id"]]
        assert prompt == f"tell me of {vote['prompt_id']}"
        side = next(variant for variant in ("aligned", "expo") if said[variant] == left)
        other = {"aligned": "expo", "expo": "aligned"}[side]
        assert vote["left"] == side
        assert vote["winner"] == {"1": side, "2": other}.get(key, "tie")
        names = {
            variant: hashlib.sha256(said[variant].encode()).hexdigest()[:16]
            for variant in ("aligned", "expo")
        }
        assert {key: vote[key] for key in names} == names
    assert {(vote["pair"], vote["prompts"], vote["sample"], vote["voter"]) for vote in votes} == {
        (PAIR, "reward", 0, "Ada")
    }
    assert [*votes[0]] == [
        "pair",
        "prompts",
        "prompt_id",
        "sample",
        "aligned",
        "expo",
        "winner",
        "left",
        "voter",
        "time",
    ]
    view.keyboard.press("Escape")
    won = [vote["winner"] for vote in votes]
    assert (
        text(view, "#notice")
        == f"5 votes: expo {won.count('expo')}, aligned {won.count('aligned')}, tie {won.count('tie')}."
    )


def test_another_voter_begins_anew_and_both_are_saved(tmp_path, opened):
    view = ready(opened(Answered(tmp_path, *ordinary(), judged=judged()).page()))
    view.keyboard.press("v")
    view.keyboard.press("1")
    view.fill("#voter", "Bob")
    view.keyboard.press("Tab")
    assert text(view, "#progress") == "0 of 5 voted"
    assert view.is_disabled("#undo")
    view.keyboard.press("2")
    with view.expect_download() as saved:
        view.click("#save")
    assert [json.loads(line)["voter"] for line in Path(saved.value.path()).read_text().splitlines()] == [
        "",
        "Bob",
    ]


def test_prompts_and_sides_come_in_random_order(tmp_path, opened):
    view = ready(opened(Answered(tmp_path, *ordinary(), judged=judged(60)).page()))
    view.keyboard.press("v")
    asked, left = [], []
    for _ in range(59):
        asked.append(int(text(view, "#ballot-prompt").removeprefix("tell me of test")))
        left.append("longer" in text(view, "#ballot-left"))
        view.keyboard.press("0")
    assert sorted(asked) == [*range(1, 60)]
    assert asked != sorted(asked)
    assert 10 < sum(left) < 49  # but once in ten million tries


def test_without_storage_votes_last_as_long_as_the_page(tmp_path, opened):
    view = ready(opened(Answered(tmp_path, *ordinary(), judged=judged()).page()))
    view.evaluate("Object.defineProperty(window, 'localStorage', { get() { throw new Error('no') } })")
    view.keyboard.press("v")
    view.keyboard.press("1")
    assert text(view, "#progress") == "1 of 5 voted"
    assert "cannot keep votes" in text(view, "#notice")


def test_if_the_aligned_model_was_kept_there_is_nothing_to_vote_on(tmp_path, opened):
    view = ready(opened(Answered(tmp_path, *ordinary(), chosen="0").page()))
    assert text(view, "#pane-b h3") == "B: alpha 2, extrapolated"
    view.keyboard.press("v")
    assert text(view, "#notice") == "The aligned model was kept (alpha 0), so there is nothing to vote on."
    assert view.is_hidden("#ballot")


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("dark", [False, True])
def test_the_page_is_accessible(tmp_path, opened, width, dark):
    from axe_playwright_python.sync_playwright import Axe

    view = ready(opened(Answered(tmp_path, *ordinary(), judged=judged()).page(), width=width, dark=dark))
    for mode in ("reading", "voting"):
        found = Axe().run(view)
        assert found.violations_count == 0, f"{mode}: {found.generate_report()}"
        assert view.evaluate("document.documentElement.scrollWidth") <= width
        view.keyboard.press("v")


def test_it_prints_the_open_prompt_and_both_responses(page, opened):
    view = ready(opened(page))
    view.emulate_media(media="print")
    assert not view.is_visible("#list")
    assert not view.is_visible("#b")
    assert view.is_visible("#prompt")
    assert view.is_visible("#pane-b .text")


def test_a_key_that_is_held_down_is_one_vote(tmp_path, opened):
    view = ready(opened(Answered(tmp_path, *ordinary(), judged=judged(60)).page()))
    view.keyboard.press("v")
    for _ in range(9):
        view.keyboard.down("1")
    view.keyboard.up("1")
    assert text(view, "#progress") == "1 of 59 voted"
    view.focus("#right")
    for _ in range(9):
        view.keyboard.down("Enter")
    view.keyboard.up("Enter")
    assert text(view, "#progress") == "2 of 59 voted"


def test_votes_of_two_tabs_are_all_kept(tmp_path, opened):
    view = ready(opened(Answered(tmp_path, *ordinary(), judged=judged(60)).page()))
    other = view.context.new_page()
    other.goto(view.url.partition("#")[0])
    ready(other)
    for each in (view, other):
        each.keyboard.press("v")
    for each in (view, view, other):
        each.keyboard.press("1")
    with other.expect_download() as saved:
        other.click("#save")
    votes = [json.loads(line) for line in Path(saved.value.path()).read_text().splitlines()]
    assert len(votes) == len({vote["prompt_id"] for vote in votes})
    assert len(votes) >= 2


def test_small_and_large_rewards_are_no_zero(tmp_path, opened):
    responses = {"bee": {alpha: f"at {alpha}" for alpha in ALPHAS}}
    rewards = {"bee": {"-1": 1e30, "0": 3e-7, "0.5": 1e-7, "2": 0.0}}
    view = ready(opened(Answered(tmp_path, responses, rewards).page()))
    assert text(view, "#pane-b .facts li") == "reward 1.0e-7 (-2.0e-7 from A)"
    assert text(view, "#filters label:has([value=w]) span") == "(1)"
    view.click("#variants >> text=sft")
    assert text(view, "#pane-b .facts li") == "reward 1.0e+30 (+1.0e+30 from A)"
