"""The words and the page that say what was found: results/report.html and the run's last lines."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from expoflow.config.figures import KINDS, FigureConfig
from expoflow.files.atomic import write_text
from expoflow.files.records import read_json
from expoflow.paths import Results
from expoflow.reporting.tables import BENCHMARKED, COMPARED, read
from expoflow.reporting.words import certificate_words, optimism_words, rehearsal_words
from expoflow.results import Best, read_certificate
from expoflow.selection.criteria import CRITERIA, Criterion

MARKS = "Hollow marks are the paper's."
# What the table of chosen alphas shows of the aligned and the extrapolated model, where it is known.
SHOWN = {name: each.short for name, each in CRITERIA.items() if name in COMPARED}
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
{% if rehearsal %}<p><b>{{ rehearsal }}.</b></p>
{% endif %}<p>theta2 = theta1 + alpha * (theta1 - theta0); every choice of alpha stands below with its reason. Tables lie beside this page.</p>
<h2>Chosen alphas</h2>
<table>
<tr><th>pair</th><th>alpha</th>{% for words in shown.values() %}<th>{{ words }}, aligned</th><th>{{ words }}, ExPO</th>
{% endfor %}{% if "reward" in shown %}<th>gain</th>{% endif %}<th>certified</th><th>certificate</th></tr>
{% for row in summary %}<tr><td>{{ row.pair }}</td><td>{{ row.best_alpha }}</td>
{% for name in shown %}<td>{{ row[name + "_aligned"] }}</td><td>{{ row[name + "_expo"] }}</td>{% endfor %}
{% if "reward" in shown %}<td>{{ row.gain }}{% if row.gain_low %} [{{ row.gain_low }}, {{ row.gain_high }}]{% endif %}</td>{% endif %}
<td>{{ "yes" if row.certified == "1" else "no" }}</td>
<td>{{ certificates[row.pair] }}</td></tr>
{% endfor %}</table>
<p>The last column is measured on prompts that took no part in the choice. Quote that number. All other columns are measured on the prompts
that chose alpha, where the best of several alphas looks better than it is. Their intervals hold for all alphas at once.</p>
<ul>{% for best in choices %}<li><b>{{ best.pair }}</b>: alpha {{ best.alpha }}: {{ best.reason }}.{{ beside(best) }}{{ compared(best) }}</li>
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


def caption(figure: FigureConfig, marked: bool, shown: Criterion) -> str:
    """The text below a figure; `marked`: it shows the paper's numbers too; `shown`: what it shows of all alphas first."""
    kind = KINDS[figure.kind]
    text = kind.caption if figure.caption is None else figure.caption
    if figure.caption is None and kind.without_rewards and not shown.rewarded:
        text = kind.without_rewards.format(shown=shown.shown)
    return f"{text} {MARKS}" if marked else text


def write_page(
    page: Path,
    figures: Mapping[str, str],
    tables: Sequence[Path] = (),
    note: str = "",
    results: Results | None = None,
) -> None:
    """Write the page from summary.csv and benchmarks.csv beside it, and from what else lies in `results`, by default there too.

    It shows `figures` (captions by name) from the folder figures/ of `results`. `tables` are those in the
    paper's form; of reproduction.csv the page shows the rows, and `note` below them.
    """
    from jinja2 import Environment

    results = results or Results(page.parent)
    own = Results(page.parent)
    summary = [_rounded(row) for row in read([own.table("summary")], ("pair", "best_alpha", "certified"))]
    choices = [read_json(results.best(row["pair"]), Best) for row in summary]
    metrics: dict[tuple[str, str, str], dict[str, str]] = {}
    gaps = []
    for row in map(_rounded, read([own.table("benchmarks")], BENCHMARKED)):
        if not row["metric"]:
            gaps.append(f"{row['pair']}: {row['benchmark']} of {row['variant']}")
            continue
        interval = f" [{row['low']}, {row['high']}]" if row["low"] else ""
        cells = metrics.setdefault((row["pair"], row["benchmark"], row["metric"]), {})
        cells[row["variant"]] = row["value"] + interval
    template = Environment(autoescape=True, trim_blocks=False).from_string(PAGE)
    text = template.render(
        summary=summary,
        shown={
            name: words for name, words in SHOWN.items() if any(row.get(f"{name}_expo") for row in summary)
        },
        compared=compared,
        beside=beside,
        certificates={best.pair: certified(best, results) for best in choices},
        choices=choices,
        rehearsal=next(filter(None, (rehearsed(best, results) for best in choices)), ""),
        metrics=metrics,
        gaps=gaps,
        variants=["sft", "aligned", "expo", "expo-aligned"],
        reproduction=[
            row for path in tables if path.stem == "reproduction" for row in map(_rounded, read([path]))
        ],
        note=note,
        tables=[path.relative_to(results.folder).as_posix() for path in tables],
        figures=figures,
        folder=os.path.relpath(results.figures, page.parent),
    )
    write_text(page, text)


def _rounded(row: dict[str, str]) -> dict[str, str]:
    """Numbers with a fraction in three decimals, everything else as it stands."""
    return {key: f"{float(value):.3f}" if _is_fraction(key, value) else value for key, value in row.items()}


def _is_fraction(key: str, value: str) -> bool:
    try:
        return key != "best_alpha" and not float(value).is_integer()
    except ValueError:
        return False


def compared(best: Best) -> str:
    """What else would have been chosen: ` On the same responses: by nll alpha 8, by implicit alpha 2.`"""
    said = ", ".join(f"by {by} alpha {alpha}" for by, alpha in best.others.items())
    return f" On the same responses: {said}." if said else ""


def certified(best: Best, results: Results) -> str:
    """What the certificate of a choice says, and whether it holds."""
    certificate = read_certificate(results.certificate(best.pair), best)
    if certificate is None:
        return (
            "none: this choice is of an earlier version"
            if best.prompts is None
            else "none yet; run snakemake"
        )
    words = certificate_words(certificate)
    return f"{words}: certified" if certificate.certified else words


def rehearsed(best: Best, results: Results) -> str:
    """That these are the results of a rehearsal, if they are."""
    return rehearsal_words(read_certificate(results.certificate(best.pair), best))


def beside(best: Best) -> str:
    """What is to be known of the gain beside the reason."""
    if best.prompts is None:
        return " The interval is of an earlier version: as if no other alpha had been tried."
    words = optimism_words(best)
    return f" {words[0].upper()}{words[1:]}." if words else ""
