"""Measure the page of answers of a generated pair, and an empty page, in Chromium.

Needs Chromium and the extra `test`:

    python bench/answers_page.py --work DIR [--prompts 1000] [--alphas 7] [--characters 2000] [--repeats 5]
"""

import argparse
import itertools
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from expoflow.files.records import write_json
from expoflow.paths import Results
from expoflow.reporting.pages import answers
from expoflow.results import Best, Certificate
from expoflow.scoring.answers import SCHEMA
from playwright.sync_api import Page, sync_playwright

PAIR, CHOSEN = "bench", "1"
EMPTY = "<!doctype html><html lang=en><title>empty</title><main><h2 id=prompt-title>Prompt</h2></main></html>"
# Milliseconds from the start of the navigation to a picture with the first answer.
FIRST = "() => new Promise(done => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
# Milliseconds from the slider's event to a picture with the other answer.
MOVE = """(at) => new Promise(done => {
  const slider = document.getElementById("b"), begun = performance.now();
  slider.value = at;
  slider.dispatchEvent(new Event("input"));
  requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun)));
})"""
IDLE = "() => new Promise(done => { const begun = performance.now(); requestAnimationFrame(() => setTimeout(() => done(performance.now() - begun))); })"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="a folder for the pair")
    for name, default in (("prompts", 1000), ("alphas", 7), ("characters", 2000), ("repeats", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    page, seconds = write(arguments)
    empty = arguments.work / "empty.html"
    empty.write_text(EMPTY)
    print(
        f"{arguments.prompts} x {arguments.alphas} x {arguments.characters} characters: {page.stat().st_size / 1e6:.1f} MB, written in {seconds:.1f} s"
    )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        measured = {}
        for name, path in (("empty", empty), ("answers", page)):
            opened = [first(browser.new_page(), path) for _ in range(arguments.repeats)]
            view = browser.new_page()
            view.goto(path.as_uri())
            view.wait_for_selector("#prompt-title:not(:empty)")
            asked = (MOVE if name == "answers" else IDLE, arguments.alphas)
            measured[name] = (opened, moves(view, *asked, arguments.repeats))
        browser.close()
    for place, what in enumerate(("first answer", "slider's move")):
        values, floor = (measured[name][place] for name in ("answers", "empty"))
        ratio = statistics.median(values) / statistics.median(floor)
        print(
            f"{what}: median {statistics.median(values):.0f} ms, slowest {max(values):.0f}; {ratio:.1f} times an empty page ({statistics.median(floor):.0f} ms)"
        )


def first(view: Page, path: Path) -> float:
    """Return milliseconds from the start of the navigation until the first answer is visible."""
    view.goto(path.as_uri())
    view.wait_for_selector("#prompt-title:not(:empty)")
    return view.evaluate(FIRST)


def moves(view: Page, script: str, alphas: int, repeats: int) -> list[float]:
    """Return the milliseconds of every move of the slider, there and back."""
    return [view.evaluate(script, at) for at in [*range(alphas), *reversed(range(alphas))] * repeats]


def write(arguments: argparse.Namespace) -> tuple[Path, float]:
    """Make the page of a generated pair; return it and the seconds that it took."""
    results = Results(arguments.work)
    page = results.answers_page(PAIR)
    page.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.Table.from_pylist([*rows(arguments)], SCHEMA), results.answers(PAIR), compression="zstd"
    )
    best = Best(pair=PAIR, alpha=CHOSEN, certified=False, chosen_share=1, edge=False, reason="generated")
    write_json(results.best(PAIR), best)
    certificate = Certificate(
        pair=PAIR,
        alpha=CHOSEN,
        choice=best.digest(),
        held_out=False,
        certified=False,
        confidence=0.95,
        chosen_on="dev",
    )
    write_json(results.certificate(PAIR), certificate)
    begun = time.monotonic()
    answers.write(
        page, results.answers(PAIR), results.best(PAIR), results.certificate(PAIR), {}, {}, ["sft", "aligned"]
    )
    return page, time.monotonic() - begun


def rows(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    """Make responses with word frequencies by Zipf's law; two alphas share about half of them."""
    chance = random.Random(0)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    words = [
        "".join(chance.choices(letters, range(26, 0, -1), k=chance.randint(2, 11))) for _ in range(20_000)
    ]
    weights = [*itertools.accumulate(1 / rank for rank in range(1, len(words) + 1))]

    def text(size: int) -> list[str]:
        return chance.choices(words, cum_weights=weights, k=size)

    size = arguments.characters // 6
    asked = [(f"{number:016x}", " ".join(text(20)), text(size)) for number in range(arguments.prompts)]
    for alpha in range(-1, arguments.alphas - 1):
        for name, prompt, common in asked:
            response = changed(common, text, chance)
            yield {
                "pair": PAIR,
                "alpha": str(alpha),
                "prompts": "dev",
                "prompt_id": name,
                "prompt": prompt,
                "sample": 0,
                "seed": 42,
                "response": response.ljust(arguments.characters, ".")[: arguments.characters],
                "response_tokens": size,
                "finish_reason": "stop",
                "engine": "transformers",
                "reward": chance.gauss(0, 1),
                "degenerate": "",
                "refusal": False,
                "repeats_prompt": False,
            }


def changed(common: list[str], text: Callable[[int], list[str]], chance: random.Random) -> str:
    """Return `common` with about every second stretch of ten words replaced."""
    parts = [text(10) if chance.random() < 0.5 else common[at : at + 10] for at in range(0, len(common), 10)]
    return " ".join(itertools.chain.from_iterable(parts))


if __name__ == "__main__":
    main()
