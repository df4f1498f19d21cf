"""The words and the page that say what was found: results/report.html and the run's last lines."""

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from expoflow import tables as result_tables
from expoflow.benchmarks import published
from expoflow.config import FigureConfig
from expoflow.errors import DataError
from expoflow.records import Best, read_json, write_text
from expoflow.tables import read

# By kind of figure.
CAPTIONS = {
    "sweep": "Reward, true quality where it is known, and length of the responses against alpha, on the prompts "
    "that choose alpha. The star is the chosen alpha; the band is the interval of the gain over alpha 0, paired by "
    "prompt.",
    "curves": "Reward, length of the responses and true quality where it is known against alpha, on the prompts that "
    "choose alpha; alpha 0 is the aligned model. Stars are the chosen alphas, bars the intervals of the mean reward.",
    "path": "From the SFT checkpoint (alpha -1) by interpolation to the aligned model (0), and on by extrapolation.",
    "histograms": "Rewards of the models' responses to the benchmark's prompts, which took no part in choosing alpha; "
    "marks on the axis are their means.",
    "bars": "The models on benchmarks, with 95 % intervals (1.96 standard errors).",
    "first_order": "Objectives along alpha, as changes from alpha 0 with their intervals, and the tangent that the "
    "gradient times delta gives, with its interval: the mean margin of held-out preferences, exact at every point, and "
    "the expected reward at temperature 1. Dashed: the sweep's mean reward, whose responses are sampled as configured.",
    "cosines": "Cosines between the deltas of pairs that share their SFT model, over all weights.",
    "plane": "Mean reward, and true quality where it is known, in the plane through the SFT model and two aligned ones: "
    "both axes are distances between weights. Lines are the rays of extrapolation, stars the alphas chosen on them, dots "
    "the points that were measured.",
}
WITHOUT_REWARDS = {
    "sweep": "NLL (nats a token) of every alpha's responses under the aligned model, true quality where it is known, "
    "and length of the responses against alpha, on the prompts that choose alpha. The star is the chosen alpha; the "
    "band is the interval of the change from alpha 0, paired by prompt.",
    "curves": "NLL (nats a token) of every alpha's responses under the aligned model, length of the responses and "
    "true quality where it is known against alpha, on the prompts that choose alpha; alpha 0 is the aligned model. "
    "Stars are the chosen alphas.",
}
MARKS = "Hollow marks are the paper's."
# What the table of chosen alphas shows of the aligned and the extrapolated model, where it is known.
SHOWN = {"reward": "reward", "nll": "NLL"}
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>expoflow report</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
table { border-collapse: collapse; margin: 1rem 0; font-size: .9rem; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: right; }
th:first-child, td:first-child { text-align: left; }
figure { margin: 2rem 0; } img { max-width: 100%; } figcaption { font-size: .9rem; color: #555; }
</style>
</head>
<body>
<h1>Extrapolation results</h1>
<p>theta2 = theta1 + alpha * (theta1 - theta0); every choice of alpha stands below with its reason. Tables lie beside this page.</p>
<h2>Chosen alphas</h2>
<table>
<tr><th>pair</th><th>alpha</th>{% for words in shown.values() %}<th>{{ words }}, aligned</th><th>{{ words }}, ExPO</th>
{% endfor %}{% if "reward" in shown %}<th>gain</th>{% endif %}<th>certified</th></tr>
{% for row in summary %}<tr><td>{{ row.pair }}</td><td>{{ row.best_alpha }}</td>
{% for name in shown %}<td>{{ row[name + "_aligned"] }}</td><td>{{ row[name + "_expo"] }}</td>{% endfor %}
{% if "reward" in shown %}<td>{{ row.gain }} [{{ row.gain_low }}, {{ row.gain_high }}]</td>{% endif %}
<td>{{ "yes" if row.certified == "1" else "no" }}</td></tr>
{% endfor %}</table>
<ul>{% for best in choices %}<li><b>{{ best.pair }}</b>: alpha {{ best.alpha }}: {{ best.reason }}.{{ compared(best) }}</li>
{% endfor %}</ul>
{% if metrics %}<h2>Benchmarks</h2>
<table>
<tr><th>pair</th><th>benchmark</th><th>metric</th>{% for variant in variants %}<th>{{ variant }}</th>{% endfor %}</tr>
{% for (pair, benchmark, metric), cells in metrics.items() %}<tr><td>{{ pair }}</td><td>{{ benchmark }}</td><td>{{ metric }}</td>
{% for variant in variants %}<td>{{ cells.get(variant, "") }}</td>{% endfor %}</tr>
{% endfor %}</table>{% endif %}
{% if gaps %}<p>Missing, for the job failed: {{ gaps | join(", ") }}.</p>{% endif %}
{% if reproduction %}<h2>Beside the paper</h2>
<table>
<tr><th>pair</th><th>model in the paper</th><th>from</th><th>variant</th><th>quantity</th><th>paper</th><th>here</th><th>difference</th></tr>
{% for row in reproduction %}<tr>{% for cell in row.values() %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<p>{{ note }}</p>{% endif %}
{% if tables %}<p>In the paper's form:{% for table in tables %} <a href="{{ table }}">{{ table }}</a>{% endfor %}</p>{% endif %}
{% for name, caption in figures.items() %}<figure><img src="{{ folder }}/{{ name }}.svg" alt="{{ name }}">
<figcaption>{{ caption }}</figcaption></figure>
{% endfor %}</body>
</html>
"""


def caption(figure: FigureConfig, marked: bool, rewarded: bool = True) -> str:
    """The text below a figure; `marked`: it shows the paper's numbers too; `rewarded`: there are rewards."""
    captions = CAPTIONS if rewarded else CAPTIONS | WITHOUT_REWARDS
    text = captions[figure.kind] if figure.caption is None else figure.caption
    return f"{text} {MARKS}" if marked else text


def write(
    page: Path,
    figures: Mapping[str, str],
    tables: Sequence[Path] = (),
    note: str = "",
    results: Path | None = None,
) -> None:
    """Write the page from benchmarks.csv beside it, and from what else lies in `results`, by default there too.

    It shows `figures` (captions by name) from the folder figures/ of `results`. `tables` are those in the
    paper's form; of reproduction.csv the page shows the rows, and `note` below them.
    """
    from jinja2 import Environment

    results = results or page.parent
    summary = [_rounded(row) for row in read([results / "summary.csv"])]
    metrics: dict[tuple[str, str, str], dict[str, str]] = {}
    gaps = []
    for row in map(_rounded, read([page.parent / "benchmarks.csv"])):
        if not row["metric"]:
            gaps.append(f"{row['pair']}: {row['benchmark']} of {row['variant']}")
            continue
        interval = f" [{row['low']}, {row['high']}]" if row["low"] else ""
        cells = metrics.setdefault((row["pair"], row["benchmark"], row["metric"]), {})
        cells[row["variant"]] = row["value"] + interval
    template = Environment(autoescape=True, trim_blocks=False).from_string(PAGE)
    text = template.render(
        summary=summary,
        shown={name: words for name, words in SHOWN.items() if any(row[f"{name}_expo"] for row in summary)},
        compared=compared,
        choices=[read_json(results / "pairs" / row["pair"] / "best.json", Best) for row in summary],
        metrics=metrics,
        gaps=gaps,
        variants=["sft", "aligned", "expo", "expo-aligned"],
        reproduction=[
            row for path in tables if path.name == "reproduction.csv" for row in map(_rounded, read([path]))
        ],
        note=note,
        tables=[path.relative_to(results).as_posix() for path in tables],
        figures=figures,
        folder=os.path.relpath(results / "figures", page.parent),
    )
    write_text(page, text)


def compared(best: Best) -> str:
    """What else would have been chosen: ` On the same responses: by nll alpha 8, by implicit alpha 2.`"""
    said = ", ".join(f"by {by} alpha {alpha}" for by, alpha in best.others.items())
    return f" On the same responses: {said}." if said else ""


def best_line(best: Best, reward_aligned: float | str | None) -> str:
    """One line a pair: `mini20: best alpha 8, reward 0.41 -> 1.04, gain 0.63 [0.52, 0.74]`; or alpha and reason."""
    if best.reward is None:
        return f"{best.pair}: best alpha {best.alpha}: {best.reason}"
    line = (
        f"{best.pair}: best alpha {best.alpha}, reward {float(reward_aligned):.2f} -> {best.reward:.2f}, "
        f"gain {best.gain:.2f} [{best.gain_low:.2f}, {best.gain_high:.2f}]"
    )
    return line if best.certified else f"{line} (not certified: {best.reason})"


def closing_words(results: Path = Path("results")) -> str:
    """What a finished run says last: each pair's choice, and where the results lie; nothing where it made a part."""
    if not (results / "report.html").exists():
        return ""
    try:
        lines = [
            best_line(read_json(results / "pairs" / row["pair"] / "best.json", Best), row["reward_aligned"])
            for row in read([results / "summary.csv"])
        ]
    except DataError:
        return ""
    models = "results/pairs/{pair}/expo/"
    return "\n".join([*lines, f"report: {results}/report.html, tables: {results}/*.csv, models: {models}"])


def salvage(benchmarks: list[Path], figures: Mapping[str, str], results: Path = Path("results")) -> str:
    """After a failed run: show in results/partial/ the `benchmarks` that there are, with the gaps; the words on it.

    A benchmark that fails keeps the joint table from being made, and with it the page: with `--keep-going` all
    other jobs go on, and at the end the head process makes benchmarks.csv, the tables in the paper's form and
    the page of what is there. They lie apart, so that Snakemake does not take them for finished ones.
    """
    partial = results / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    missing = [path for path in benchmarks if not path.exists()]
    if not missing or len(missing) == len(benchmarks):
        return ""
    table = partial / "benchmarks.csv"
    try:
        result_tables.write_benchmarks(table, benchmarks)
        if any(path.stem in published.BENCHMARKS for path in benchmarks):
            published.write(table, partial / "tables")
        if (results / "summary.csv").exists():
            write(partial / "report.html", figures, results=results)
    except DataError as error:
        return f"what there is cannot be shown in {partial}: {error}"
    gaps = [f"missing in {table}: {path.parts[-4]}: {path.stem} of {path.parts[-2]}" for path in missing]
    return "\n".join([*gaps, "their logs: results/logs/benchmark/{pair}/{variant}.{benchmark}.log"])


def _rounded(row: dict[str, str]) -> dict[str, str]:
    """Numbers with a fraction in three decimals, everything else as it stands."""
    return {key: f"{float(value):.3f}" if _is_fraction(key, value) else value for key, value in row.items()}


def _is_fraction(key: str, value: str) -> bool:
    try:
        return key != "best_alpha" and not float(value).is_integer()
    except ValueError:
        return False
