"""What the theory's figures show, read back from matplotlib's own objects."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from expoflow.config.figures import FigureConfig
from expoflow.files.records import write_csv, write_json
from expoflow.reporting import figures
from expoflow.reporting.figures.style import STYLE, Drawing
from expoflow.theory import deltas, plane
from expoflow.theory.result import FirstOrder, Point, Size, Smallness, Theory
from pair_results import write_alphas

SWEEP = {"-1": 2.0, "0": 3.0, "5": 3.2, "10": 4.0}


@pytest.fixture
def drawn():
    """Draws with the project's style and closes the figure afterwards."""

    def draw(inputs, **config):
        plan = Drawing(FigureConfig(**config), inputs, {})
        return figures.drawer(plan.config.kind)(plan)

    with plt.rc_context(STYLE):
        yield draw
    plt.close("all")


def objective(slope: float, changes: dict[float, float], holds_to: float | None) -> FirstOrder:
    curve = [
        Point(
            alpha=alpha,
            value=change,
            change=change,
            change_low=change - 0.2,
            change_high=change + 0.1,
            predicted=alpha * slope,
        )
        for alpha, change in changes.items()
    ]
    around = {"slope_low": slope / 2, "slope_high": slope * 2}
    around |= {"difference": slope, "difference_low": slope, "difference_high": slope, "sign": 1}
    return FirstOrder(
        n=9, samples=1, step=0.1, value=0, slope=slope, holds_to=holds_to, reason="", curve=curve, **around
    )


def write_theory(folder, pair: str, **objectives: FirstOrder):
    path = folder / "pairs" / pair / "theory.json"
    size = Size(elements=1, theta1=1, delta=1, ratio=1)
    small = Smallness(overall=size, kinds={}, alphas={})
    write_json(path, Theory(pair=pair, smallness=small, first_order=objectives, provenance={}))
    return path


def dashed(axis, style):
    return [line for line in axis.lines if line.get_linestyle() == style]


def test_first_order_shows_the_curve_its_tangent_and_where_it_ends(tmp_path, drawn):
    margin = objective(0.5, {1: 0.5, 10: 2.0}, holds_to=1)
    reward = objective(0.1, {5: 0.3, 10: 0.8}, holds_to=None)
    theory = write_theory(tmp_path, "one", margin=margin, reward=reward)
    figure = drawn([theory, write_alphas(tmp_path, "one", SWEEP)], kind="first_order", pairs=["one"])
    above, below = figure.get_axes()
    assert (above.get_ylabel(), below.get_ylabel()) == (
        "change of the\nmargin (nats)",
        "change of the\nreward (logit)",
    )
    curve, tangent, end = above.lines
    assert (list(curve.get_xdata()), list(curve.get_ydata())) == ([0, 1, 10], [0, 0.5, 2.0])
    assert (list(tangent.get_xdata()), list(tangent.get_ydata())) == ([0, 10], [0, 5.0])
    assert end.get_xdata() == [1, 1]
    band, wedge = (each.get_paths()[0].vertices[:, 1] for each in above.collections)
    assert (band.min(), band.max()) == pytest.approx((0, 2.1))
    assert (wedge.min(), wedge.max()) == pytest.approx((0, 10))
    assert above.get_ylim()[1] < 3  # the tangent does not set the scale
    assert not dashed(below, ":")  # nothing to mark where nothing holds
    (sweep,) = dashed(below, "--")
    assert list(sweep.get_ydata()) == pytest.approx([0, 0.2, 1.0])


def test_first_order_without_a_reward_model_has_the_margin_alone(tmp_path, drawn):
    theory = write_theory(tmp_path, "one", margin=objective(0.5, {1: 0.5, 10: 2.0}, holds_to=1))
    figure = drawn([theory, write_alphas(tmp_path, "one", SWEEP)], kind="first_order", pairs=["one"])
    assert len(figure.get_axes()) == 1
    assert "reward in the sweep" not in [text.get_text() for text in figure.legends[0].get_texts()]


def cosine(sft, one, other, value, kind="all"):
    return dict(zip(deltas.COSINE_COLUMNS, (sft, kind, one, other, value, 1.0, 1.0), strict=True))


def test_cosines_have_a_matrix_for_every_sft_model(tmp_path, drawn):
    rows = [cosine("first", "a", "b", 0.7), cosine("first", "a", "b", 0.1, "mlp")]
    rows += [
        cosine("second", "c", "d", -0.2),
        cosine("second", "c", "e", 0.3),
        cosine("second", "d", "e", None),
    ]
    path = tmp_path / "cosines.csv"
    write_csv(path, rows, deltas.COSINE_COLUMNS)
    figure = drawn([path], kind="cosines", pairs=["b", "a", "c", "d"], labels={"a": "A"})
    shown = [axis for axis in figure.get_axes() if axis.images]
    assert [axis.get_title() for axis in shown] == ["from first", "from second"]
    assert [[text.get_text() for text in axis.texts] for axis in shown] == [
        ["1.00", "0.70", "0.70", "1.00"],
        ["1.00", "-0.20", "-0.20", "1.00"],
    ]
    assert [label.get_text() for label in shown[0].get_yticklabels()] == ["b", "A"]


def write_plane(folder, quality: bool):
    axes = plane.Axes(a=2.0, b=1.0, cosine=0.6)
    rows = []
    for a, b in plane.points(axes, (12, 12), 3):
        x, y = axes.place(a, b)
        rows.append({"a": a, "b": b, "x": x, "y": y, "reward": x - y**2, "quality": -x if quality else None})
    path = folder / "planes" / "around.csv"
    write_csv(path, rows, plane.COLUMNS)
    return path


def test_plane_has_both_rays_and_the_chosen_alphas(tmp_path, drawn):
    sweeps = [write_alphas(tmp_path, "a", SWEEP), write_alphas(tmp_path, "b", SWEEP)]
    pairs = {"kind": "plane", "plane": "around", "pairs": ["a", "b"]}
    figure = drawn([write_plane(tmp_path, True), *sweeps], **pairs)
    reward, quality = (axis for axis in figure.get_axes() if axis.get_xlabel().startswith("distance"))
    assert reward.get_aspect() == quality.get_aspect() == 1
    stars = [line.get_xydata()[0] for line in reward.lines if line.get_marker() == "*"]
    assert np.array(stars) == pytest.approx(11 * np.array([[2.0, 0.0], [0.6, 0.8]]))
    low, high = reward.get_xlim()
    rays = [
        line.get_xydata()[-1]
        for line in reward.lines
        if line.get_linewidth() == 1.2 and len(line.get_xdata()) == 2
    ]
    assert rays[0] == pytest.approx([high, 0])
    assert np.cross([*rays[1], 0], [0.6, 0.8, 0])[2] == pytest.approx(0, abs=1e-4)
    assert low < 0
    alone = drawn([write_plane(tmp_path, False), *sweeps], **pairs)
    assert len([axis for axis in alone.get_axes() if axis.get_xlabel().startswith("distance")]) == 1
