"""The interactive curves of the page: one Vega-Lite chart per measure, in the page's colours.

Vega draws SVG, and its colours can be CSS variables. Light, dark and printed pages therefore use
the same chart. Vega's expressions are interpreted, because the page's policy forbids the evaluation
of text as code.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from expoflow.reporting.pages.measures import Measure, Point, shown
from expoflow.selection.criteria import CRITERIA

SERIES = 6  # number of colours: the variables --series-0 and so on of report.css
# Vega's names of shapes. Each comes with the same shape as an SVG path around the middle of a key
# (22, 8).
SHAPES = {
    "circle": "M17,8a5,5 0 1,0 10,0a5,5 0 1,0 -10,0",
    "square": "M17,3h10v10h-10z",
    "triangle-up": "M22,2l6,11h-12z",
    "diamond": "M22,1l7,7l-7,7l-7,-7z",
    "cross": "M20,2h4v4h4v4h-4v4h-4v-4h-4v-4h4z",
    "triangle-down": "M22,14l6,-11h-12z",
    "triangle-right": "M28,8l-11,6v-12z",
}
DASHES = ((), (6, 3), (2, 2), (8, 3, 2, 3), (12, 4))
STAR = "M0,-1L.235,-.324L.951,-.309L.38,.124L.588,.809L0,.4L-.588,.809L-.38,.124L-.951,-.309L-.235,-.324Z"
WIDE = 20  # largest minus smallest alpha; beyond it the axis is logarithmic
HEIGHT = 220
EXACT = ".6~g"  # of axes: by default Vega rounds the labels if all values of an axis are similar
# The scripts of Vega, Vega-Lite and Vega-Embed, as the page's own code expects them.
SNIPPET = "window.vegaEmbed = vegaEmbed;"
CONFIG = {
    "background": None,
    "font": "system-ui, sans-serif",
    "axis": {
        "labelColor": "var(--text)",
        "titleColor": "var(--text)",
        "gridColor": "var(--line)",
        "domainColor": "var(--quiet)",
        "tickColor": "var(--quiet)",
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "view": {"stroke": "var(--line)"},
    "text": {"color": "var(--text)", "fontSize": 12},
}


@cache
def library() -> str:
    """The JavaScript that draws the charts, in its own scope. It takes seconds to make."""
    import vl_convert

    return f"(() => {{\n{vl_convert.javascript_bundle(SNIPPET)}\n}})();"


def charts(found: Sequence[Point], others: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """What the page's script draws: the chart of every known measure, and the rows of all charts.

    A chart has a title and a specification. `others` has, by pair, the alphas that other criteria
    would have chosen, by the name of the criterion.
    """
    measures = shown(found)
    pairs = list(dict.fromkeys(point.pair for point in found))
    alphas = sorted({float(point.alpha) for point in found})
    return {
        "pairs": pairs,
        "rows": [_row(point, others.get(point.pair, {})) for point in found],
        "charts": [
            {"name": each.name, "title": each.title, "spec": _chart(each, measures, pairs, alphas)}
            for each in measures
        ],
    }


def keys(pairs: Sequence[str]) -> list[dict[str, Any]]:
    """The entries of the list of pairs.

    Each has the pair's name, the number of its colour, the dashes of its line and the path of its
    shape.
    """
    paths = [*SHAPES.values()]
    return [
        {
            "pair": pair,
            "colour": at % SERIES,
            "dashes": " ".join(map(str, DASHES[at % len(DASHES)])),
            "shape": paths[at % len(paths)],
        }
        for at, pair in enumerate(pairs)
    ]


def _row(point: Point, others: Mapping[str, str]) -> dict[str, Any]:
    by = [
        CRITERIA[name].short if name in CRITERIA else name for name in others if others[name] == point.alpha
    ]
    row: dict[str, Any] = {"pair": point.pair, "alpha": float(point.alpha), "chosen": point.chosen}
    row |= {"shown_alpha": _alpha_words(point), "by": ", ".join(by)}
    for name, value in point.values.items():
        low, high = value.band()
        row |= {name: value.value, f"{name}_low": low, f"{name}_high": high, f"{name}_words": value.words()}
    return row


def _alpha_words(point: Point) -> str:
    said = {"0": "0 (aligned)", "-1": "-1 (SFT)"}.get(point.alpha, point.alpha)
    return f"{said}, chosen" if point.chosen else said


def _chart(
    measure: Measure, measures: Sequence[Measure], pairs: list[str], alphas: list[float]
) -> dict[str, Any]:
    name = measure.name
    chosen, other = "datum.chosen", "datum.by != ''"
    layers = [
        _layer(
            {"type": "area", "opacity": 0.16}, name, y=f"{name}_low", y2=f"{name}_high", known=f"{name}_low"
        ),
        _layer({"type": "rule", "strokeDash": [1, 3]}, name, where="datum.alpha == 0", across=True),
        _layer({"type": "line", "strokeWidth": 2}, name, dashed=True),
        _layer({"type": "point", "filled": True, "size": 55, "opacity": 1}, name, shaped=True),
        _layer({"type": "point", "size": 300, "strokeWidth": 2, "opacity": 1}, name, where=other),
        _layer({"type": "text", "dy": -16}, name, where=other, text="by"),
        _layer(
            {
                "type": "point",
                "filled": True,
                "shape": STAR,
                "size": 320,
                "opacity": 1,
                "stroke": "var(--back)",
            },
            name,
            where=chosen,
        ),
        _layer(
            {"type": "point", "filled": True, "size": 700, "opacity": 0}, name, tooltip=_tooltip(measures)
        ),
    ]
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "description": f"{measure.title} against alpha, one line per pair; the table of all alphas has the numbers.",
        "width": "container",
        "height": HEIGHT,
        "autosize": {"type": "fit", "contains": "padding"},
        "config": CONFIG,
        "params": [{"name": "shown", "value": pairs}],
        "transform": [{"filter": "indexof(shown, datum.pair) >= 0"}, {"filter": f"isValid(datum.{name})"}],
        "encoding": {
            "x": {
                "field": "alpha",
                "type": "quantitative",
                "title": "alpha",
                "axis": {"values": alphas, "labelOverlap": True, "format": EXACT},
                "scale": _alpha_scale(alphas),
            },
            "color": _scale(pairs, [f"var(--series-{at % SERIES})" for at, _ in enumerate(pairs)]),
        },
        "layer": [_named(layer, measure, pairs) for layer in layers],
    }


def _layer(
    mark: dict[str, Any],
    name: str,
    *,
    y: str = "",
    y2: str = "",
    where: str = "",
    known: str = "",
    text: str = "",
    across: bool = False,
    dashed: bool = False,
    shaped: bool = False,
    tooltip: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """One layer of marks at the values of a measure, for the rows that satisfy `where`."""
    encoding: dict[str, Any] = {"y": {"field": y or name, "type": "quantitative"}}
    if y2:
        encoding["y2"] = {"field": y2}
    if across:
        encoding["x"] = None
    if text:
        encoding |= {"text": {"field": text}, "color": {"value": "var(--text)"}}
    if dashed:
        encoding["strokeDash"] = True
    if shaped:
        encoding["shape"] = True
    if tooltip:
        encoding["tooltip"] = tooltip
    filters = [{"filter": each} for each in (where, known and f"isValid(datum.{known})") if each]
    return {"mark": {**mark, "aria": bool(tooltip)}, "encoding": encoding, "transform": filters}


def _named(layer: dict[str, Any], measure: Measure, pairs: list[str]) -> dict[str, Any]:
    """A layer with the scales that distinguish pairs without colour, and the title of its axis."""
    encoding = layer["encoding"]
    encoding["y"] |= {"title": measure.unit, "scale": {"zero": False}, "axis": {"format": EXACT}}
    if "strokeDash" in encoding:
        encoding["strokeDash"] = _scale(pairs, [list(DASHES[at % len(DASHES)]) for at, _ in enumerate(pairs)])
    if "shape" in encoding:
        encoding["shape"] = _scale(pairs, [[*SHAPES][at % len(SHAPES)] for at, _ in enumerate(pairs)])
    return layer


def _scale(pairs: list[str], values: list[Any]) -> dict[str, Any]:
    return {"field": "pair", "type": "nominal", "scale": {"domain": pairs, "range": values}, "legend": None}


def _alpha_scale(alphas: list[float]) -> dict[str, Any]:
    positive = [alpha for alpha in alphas if alpha > 0]
    scale = {"domain": [alphas[0], alphas[-1]], "nice": False, "padding": 14}
    if positive and alphas[-1] - alphas[0] > WIDE:
        return {"type": "symlog", "constant": positive[0], **scale}
    return scale


def _tooltip(measures: Sequence[Measure]) -> list[dict[str, str]]:
    return [
        {"field": "pair", "type": "nominal", "title": "pair"},
        {"field": "shown_alpha", "type": "nominal", "title": "alpha"},
        *({"field": f"{each.name}_words", "type": "nominal", "title": each.title} for each in measures),
    ]
