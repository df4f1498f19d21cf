"""results/pairs/{pair}/answers.html: the page to read, compare and vote on a pair's answers."""

import html
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from expoflow.benchmarks import readable
from expoflow.benchmarks.human.files import HELD_OUT, answer_digest
from expoflow.files.hashing import json_digest
from expoflow.files.records import read_json
from expoflow.paths import of_pair
from expoflow.reporting.pages.shell import asset, write_page
from expoflow.reporting.words import certificate_words
from expoflow.results import Best, Certificate, read_certificate
from expoflow.scoring.answers import read_answers
from expoflow.scoring.degenerate import fault
from expoflow.scoring.refusals import refuses, repeats_prompt
from expoflow.selection.split import choosing

STYLES = ("base.css", "answers.css")
SCRIPTS = ("unpack.js", "diff.js", "votes.js", "answers.js")
SFT, ALIGNED = "-1", "0"
MOST = (
    64_000_000  # characters of a set: a browser can hold some hundred million, and opens this many in seconds
)
DIGITS = 9  # significant digits of a reward in the page
ENDS = {"stop": "ended by itself", "length": "cut off at the limit of tokens"}
FAULTS = {"empty": "empty", "repeating": "ends in a loop"}

Row = Mapping[str, Any]
"""One response: alpha, prompt_id, prompt, sample, and what is known of it, under the names of `scoring.answers.SCHEMA`."""


def write(
    page: Path,
    answers: Path,
    best: Path,
    certificate: Path,
    rows: Mapping[str, Sequence[Path]],
    inputs: Mapping[str, Mapping[str, Path]],
    models: Sequence[str],
    judge: float | None = None,
) -> None:
    """Write the page into the folder of the pair.

    `answers` is the table of the sweep. `rows` has the rows of sft, aligned and expo for every
    readable benchmark. `inputs` has the files that the benchmark reads beside the model. `models`
    are the names of the SFT and the aligned model. `judge` is the share of the sweep's prompts that
    judges the choice, if there is one. Raises DataError if a file is broken.
    """
    choice = read_json(best, Best)
    certified = read_certificate(certificate, choice)
    swept = read_answers(answers).to_pylist()
    sets = [_sweep(swept, choice, certified, rows)]
    asked = {row["prompt"] for row in swept}
    sets += [_benchmark(name, inputs[name], paths, choice, asked) for name, paths in rows.items()]
    pair = of_pair(page)
    judged = certificate_words(certified) if certified else "no certificate of this choice"
    said = f"SFT model {models[0]}, aligned model {models[1]}. Chosen alpha {choice.alpha}: {judged}."
    chose = choosing((row["prompt_id"] for row in swept), judge)
    votes = _votes(sets, choice, chose if judge else set())
    data = {"pair": pair, "choice": said, "chosen": choice.alpha, "sets": sets, "vote": votes}
    write_page(
        page,
        title=html.escape(f"{pair}: answers"),
        body=asset("answers.html"),
        styles=STYLES,
        scripts=SCRIPTS,
        data={"data": data},
    )


def _sweep(
    rows: Sequence[Row], best: Best, certificate: Certificate | None, benchmarks: Iterable[str]
) -> dict[str, Any]:
    """The set of the sweep. Links use another name for it if a benchmark has its name."""
    prompts = rows[0]["prompts"] if rows else ""
    role = "these prompts chose alpha"
    if certificate and certificate.held_out and certificate.judged_on == certificate.chosen_on:
        role = "a part of these prompts chose alpha, the others judged the choice"
    name = f"{prompts}.sweep" if prompts in benchmarks else prompts
    return {
        **_set(rows, role, best, "weights of the SFT model"),
        "name": name,
        "title": f"{prompts}: the sweep",
        "prompts_of": prompts,
    }


def _benchmark(
    name: str, inputs: Mapping[str, Path], variants: Sequence[Path], best: Best, chose: set[str]
) -> dict[str, Any]:
    """The set of a benchmark. `chose` has the texts of the prompts that chose alpha."""
    rows = [*_answered(name, inputs, variants, best.alpha)]
    asked = {row["prompt"] for row in rows}
    both = len(asked & chose)
    role = (
        f"{both:,} of these {len(asked):,} prompts chose alpha too" if both else "took no part in the choice"
    )
    title = f"{name}: held-out prompts" if name == HELD_OUT else name
    return {
        **_set(rows, role, best, "the SFT model"),
        "name": name,
        "title": title,
        "prompts_of": name,
    }


def _answered(name: str, inputs: Mapping[str, Path], variants: Sequence[Path], chosen: str) -> Iterator[Row]:
    """The responses of a benchmark. If alpha 0 was chosen, expo is the aligned model."""
    sft, aligned, expo = variants
    for alpha, path in {SFT: sft, chosen: expo, ALIGNED: aligned}.items():
        for answer in readable.answers(name, inputs, path):
            yield {
                **vars(answer),
                "alpha": alpha,
                "prompt_id": answer.item,
                "degenerate": fault(answer.response, answer.finish_reason),
                "refusal": refuses(answer.response),
                "repeats_prompt": repeats_prompt(answer.prompt, answer.response),
            }


def _set(rows: Sequence[Row], role: str, best: Best, sft: str) -> dict[str, Any]:
    """A set, column by column: its items, and each alpha's answers in the order of the items.

    An item is a prompt and a sample. An alpha without a response to an item has None there. `sft`
    is the name of alpha -1.
    """
    items = {(row["prompt_id"], row["sample"]): row["prompt"] for row in rows}
    kept = _within(items, rows)
    place = {item: at for at, item in enumerate(kept)}
    if len(kept) < len(items):
        role += f"; this page has the first {len(kept):,} of {len(items):,}"
    answers: dict[str, dict[str, list]] = {}
    found = {(row["alpha"], place.get((row["prompt_id"], row["sample"]))): row for row in rows}
    for (alpha, at), row in found.items():
        if at is None:
            continue
        facts = _facts(row, found.get((ALIGNED, at)))
        columns = answers.setdefault(alpha, {fact: [None] * len(kept) for fact in facts})
        for fact, value in facts.items():
            columns[fact][at] = value
    alphas = sorted(answers, key=float)
    return {
        "role": role,
        "alphas": alphas,
        "names": {alpha: _name(alpha, best.alpha, sft) for alpha in alphas},
        "rewarded": any(value is not None for columns in answers.values() for value in columns["reward"]),
        "prompts": {
            "id": [prompt for prompt, _ in kept],
            "sample": [sample for _, sample in kept],
            "text": [items[item] for item in kept],
        },
        "answers": answers,
    }


def _within(items: Mapping[tuple[str, int], str], rows: Sequence[Row]) -> list[tuple[str, int]]:
    """The first items, at least one, with at most MOST characters of text in all."""
    sizes = {item: len(prompt) for item, prompt in items.items()}
    for row in rows:
        sizes[row["prompt_id"], row["sample"]] += len(row["response"])
    kept, total = [], 0
    for item, size in sizes.items():
        total += size
        if kept and total > MOST:
            break
        kept.append(item)
    return kept


def _name(alpha: str, chosen: str, sft: str) -> str:
    """The name of an alpha in words."""
    if alpha == chosen:
        return "aligned, chosen" if alpha == ALIGNED else "expo, chosen"
    if alpha in (SFT, ALIGNED):
        return "aligned" if alpha == ALIGNED else sft
    return "between SFT and aligned" if -1 < float(alpha) < 0 else "extrapolated"


def _facts(row: Row, aligned: Row | None) -> dict[str, Any]:
    """The facts that the page shows about a response.

    `aligned` is the response of alpha 0 to the same item. `signs` are the letters of the filters:
    w, less reward than aligned; u, unfinished; r, looks like a refusal; p, has the prompt in it; d,
    empty or ends in a loop.
    """
    reward, before = (_finite(each["reward"]) if each else None for each in (row, aligned))
    signs = {
        "w": reward is not None and before is not None and reward < before,
        "u": row["finish_reason"] == "length",
        "r": row["refusal"],
        "p": row["repeats_prompt"],
        "d": row["degenerate"] in FAULTS,
    }
    quality = _finite(row["quality"])
    notes = [
        f"true quality {quality:.2f}" if quality is not None else None,
        f"{row['response_tokens']:,} tokens",
        ENDS.get(row["finish_reason"], row["finish_reason"]),
        FAULTS.get(row["degenerate"]),
        "looks like a refusal" if row["refusal"] else None,
        "has the prompt in it" if row["repeats_prompt"] else None,
        row.get("verdict"),
    ]
    return {
        "response": row["response"],
        "reward": None if reward is None else float(f"{reward:.{DIGITS}g}"),
        "tokens": row["response_tokens"],
        "notes": [*filter(None, notes)],
        "signs": "".join(sign for sign, holds in signs.items() if holds),
        "judgment": row.get("judgment"),
    }


def _finite(value: float | None) -> float | None:
    """A number that JSON can hold: None if it is not finite."""
    return None if value is None or not math.isfinite(value) else value


def _votes(sets: Sequence[dict[str, Any]], best: Best, chose: set[str]) -> dict[str, Any]:
    """The ballots: aligned against expo, on the held-out set if there is one; or why none exist.

    `chose` has the prompts that are left out, if a part of the sweep's prompts judges the choice;
    else it is empty. A ballot names both responses by their digests. There is no ballot for equal
    responses.
    """
    if best.alpha == ALIGNED:
        return {"why": "The aligned model was kept (alpha 0), so there is nothing to vote on."}
    place = next((at for at, each in enumerate(sets) if at and each["name"] == HELD_OUT), 0)
    asked = sets[place]
    if lacking := [alpha for alpha in (ALIGNED, best.alpha) if alpha not in asked["answers"]]:
        return {"why": f"There are no responses of alpha {lacking[0]}, so there is nothing to vote on."}
    pairs = [*zip(*(asked["answers"][alpha]["response"] for alpha in (ALIGNED, best.alpha)), strict=True)]
    left_out = set() if place else chose
    role = "the part of them that judged the choice" if left_out else asked["role"]
    named = [
        (item, prompt, sample, *both)
        for item, (prompt, sample, both) in enumerate(
            zip(asked["prompts"]["id"], asked["prompts"]["sample"], pairs, strict=True)
        )
        if None not in both and prompt not in left_out
    ]
    ballots = [
        {
            "item": item,
            "prompt_id": prompt,
            "sample": sample,
            "aligned": answer_digest(aligned),
            "expo": answer_digest(expo),
        }
        for item, prompt, sample, aligned, expo in named
        if aligned != expo
    ]
    if not ballots:
        return {"why": "Aligned and ExPO gave the same responses, so there is nothing to vote on."}
    words = (
        f"The aligned model against ExPO, on {asked['title']} ({role}). Prompts and sides come in random order. "
        f"Identical responses are skipped: {len(named) - len(ballots):,} of {len(named):,}."
    )
    key = json_digest(ballots)
    return {"set": place, "prompts": asked["prompts_of"], "ballots": ballots, "words": words, "key": key}
