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
}
MARKS = "Hollow marks are the paper's."
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
<tr><th>pair</th><th>alpha</th><th>reward, aligned</th><th>reward, ExPO</th><th>gain</th><th>certified</th></tr>
{% for row in summary %}<tr><td>{{ row.pair }}</td><td>{{ row.best_alpha }}</td><td>{{ row.reward_aligned }}</td>
<td>{{ row.reward_expo }}</td><td>{{ row.gain }} [{{ row.gain_low }}, {{ row.gain_high }}]</td>
<td>{{ "yes" if row.certified == "1" else "no" }}</td></tr>
{% endfor %}</table>
<ul>{% for best in choices %}<li><b>{{ best.pair }}</b>: alpha {{ best.alpha }}: {{ best.reason }}.</li>
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


def caption(figure: FigureConfig, marked: bool) -> str:
    """The text below a figure; `marked` says that it shows the paper's numbers too."""
    text = CAPTIONS[figure.kind] if figure.caption is None else figure.caption
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


def best_line(best: Best, reward_aligned: float) -> str:
    """One line a pair: `mini20: best alpha 8, reward 0.41 -> 1.04, gain 0.63 [0.52, 0.74]`."""
    line = (
        f"{best.pair}: best alpha {best.alpha}, reward {reward_aligned:.2f} -> {best.reward:.2f}, "
        f"gain {best.gain:.2f} [{best.gain_low:.2f}, {best.gain_high:.2f}]"
    )
    return line if best.certified else f"{line} (not certified: {best.reason})"


def closing_words(results: Path = Path("results")) -> str:
    """What a finished run says last: each pair's choice, and where the results lie."""
    try:
        rows = list(read([results / "summary.csv"]))
    except DataError:
        return ""
    lines = [
        best_line(
            read_json(results / "pairs" / row["pair"] / "best.json", Best), float(row["reward_aligned"])
        )
        for row in rows
    ]
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
    result_tables.write_benchmarks(table, benchmarks)
    if any(path.stem in published.BENCHMARKS for path in benchmarks):
        published.write(table, partial / "tables")
    if (results / "summary.csv").exists():
        write(partial / "report.html", figures, results=results)
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
