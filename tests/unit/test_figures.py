"""What the figures show, read back from matplotlib's own objects."""

from typing import get_args

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from expoflow.config.figures import KINDS, FigureConfig, FigureKind
from expoflow.dag.figures import inputs
from expoflow.errors import DataError
from expoflow.files.records import read_csv, write_json
from expoflow.reporting import figures
from expoflow.reporting.figures.style import STYLE, WIDTH, Drawing
from expoflow.results import Certificate
from matplotlib.colors import to_hex
from pair_results import write_alphas, write_benchmark, write_generations

SMALL = {"-1": 2.0, "0": 3.0, "0.2": 3.4, "0.5": 3.1}
LARGE = {"-1": 2.0, "0": 3.0, "5": 3.2, "25": 4.0}


def plan(inputs, paper=None, same=False, **config):
    figure = FigureConfig(**config)
    return Drawing(figure.model_copy(update={"pairs": figure.named()}), inputs, paper or {}, same)


@pytest.fixture
def drawn():
    """Draws a plan with the project's style and closes the figure afterwards."""
    with plt.rc_context(STYLE):
        yield lambda what: figures.drawer(what.config.kind)(what)
    plt.close("all")


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def panel(figure, label):
    """The axes whose y axis has this name."""
    (found,) = [axis for axis in figure.get_axes() if axis.get_ylabel() == label]
    return found


def curve(axis, points):
    """The line of an axis with this many points or more, markers alone left out."""
    (found,) = [line for line in axis.lines if len(line.get_xdata()) >= points and line.get_ls() != "None"]
    return found


def stars(axis):
    found = [line for line in axis.lines if line.get_marker() == "*"]
    return sorted((float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in found)


def hollow(axis):
    return [line for line in axis.lines if line.get_markerfacecolor() == "none" and len(line.get_xdata())]


def test_every_kind_has_its_entry_and_a_function_that_draws_it():
    assert get_args(FigureKind) == tuple(KINDS)
    assert [figures.drawer(kind).__name__ for kind in KINDS] == [*KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_that_a_kind_reads_has_a_path(kind):
    settings = {"plane": "here", "metrics": ["reward.length", "mt_bench.score"]}
    own = {key: value for key, value in settings.items() if key in KINDS[kind].keys}
    found = [path.as_posix() for path in inputs(FigureConfig(kind=kind, pairs=["a", "b"], **own))]
    of_pairs = {"alphas": "alphas.csv", "certificates": "certificate.json", "theory": "theory.json"}
    of_benchmarks = {
        "generations": ["reward.generations.jsonl"],
        "benchmarks": ["reward.json", "mt_bench.json"],
    }
    paths = {"plane": ["results/planes/here.csv"], "cosines": ["results/cosines.csv"]}
    paths |= {name: [f"results/pairs/{pair}/{file}" for pair in "ab"] for name, file in of_pairs.items()}
    paths |= {
        name: [
            f"results/pairs/{pair}/benchmarks/{variant}/{file}"
            for pair in "ab"
            for file in files
            for variant in ("sft", "aligned", "expo")
        ]
        for name, files in of_benchmarks.items()
    }
    assert found == [path for name in KINDS[kind].reads for path in paths[name]]


@pytest.mark.parametrize(
    ("about", "below"),
    [
        ({}, "gain 0.45 [0.30, 0.61]"),
        ({"certified": False}, "gain 0.45 [0.30, 0.61]\nnot certified"),
        ({"held_out": False}, "judged on the prompts\nthat chose alpha"),
        ({"alpha": "0.4"}, None),  # of an earlier choice
        ({"alpha": "0"}, None),
    ],
)
def test_sweep_quotes_the_certificate(tmp_path, drawn, about, below):
    file = write_alphas(tmp_path, "one", SMALL)
    (chosen,) = (row["alpha"] for row in read_csv(file) if row["chosen"] == "1")
    known = {"pair": "one", "alpha": chosen, "choice": "c", "held_out": True, "certified": True}
    known |= {
        "measure": "reward",
        "gain": 0.45,
        "low": 0.3,
        "high": 0.61,
        "confidence": 0.95,
        "chosen_on": "dev",
    }
    write_json(file.with_name("certificate.json"), Certificate(**known | about))
    figure = drawn(plan([file, file.with_name("certificate.json")], kind="sweep", pairs=["one"]))
    assert panel(figure, "reward (logit)").get_title() == "\n".join(filter(None, ["one", below]))


def test_sweep_shows_reward_length_choice_and_the_papers_alpha(tmp_path, drawn):
    file = write_alphas(tmp_path, "one", SMALL)
    paper = {"one": {"expo": {"alpha": 0.3}}}
    figure = drawn(plan([file], paper, kind="sweep", pairs=["one"], labels={"one": "20% data"}))
    reward, length = panel(figure, "reward (logit)"), panel(figure, "length (tokens)")
    assert reward.get_title() == "20% data"
    line = curve(reward, 3)
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0, 0.2, 0.5], [3.0, 3.4, 3.1])
    assert stars(reward) == [(0.2, 3.4)]
    assert stars(length) == [(0.2, 304.0)]
    (band,) = reward.collections
    low, high = band.get_paths()[0].vertices[:, 1].min(), band.get_paths()[0].vertices[:, 1].max()
    assert (low, high) == pytest.approx((2.95, 3.45))
    (mark,) = hollow(reward)
    assert mark.get_xdata()[0] == 0.3
    assert texts(figure.legends[0]) == [
        "chosen alpha",
        "aligned (alpha 0)",
        "interval of the gain",
        "alpha in the paper",
    ]


def test_true_quality_is_shown_where_it_is_known(tmp_path, drawn):
    known = write_alphas(tmp_path, "one", SMALL, quality=True)
    figure = drawn(plan([known], kind="sweep", pairs=["one"]))
    assert list(curve(panel(figure, "true quality\n(points)"), 3).get_ydata()) == pytest.approx([4, 4.4, 4.1])


def test_curves_tell_pairs_apart_without_colour(tmp_path, drawn):
    files = [write_alphas(tmp_path, pair, SMALL) for pair in ("a", "b", "c")]
    figure = drawn(plan(files, kind="curves", pairs=["a", "b", "c"], labels={"b": "twice"}))
    assert len(figure.get_axes()) == 2
    lines = [line for line in panel(figure, "reward (logit)").lines if len(line.get_xdata()) == 3]
    lines = [line for line in lines if line.get_ls() != "None"]
    assert len({line.get_marker() for line in lines}) == 3
    assert len({line.get_ls() for line in lines}) == 3
    assert len({to_hex(line.get_color()) for line in lines}) == 3
    (legend,) = figure.subfigs[0].legends
    assert texts(legend)[:3] == ["a", "twice", "c"]


def test_curves_have_the_interval_of_the_mean(tmp_path, drawn):
    file = write_alphas(tmp_path, "a", SMALL)
    axis = panel(drawn(plan([file], kind="curves", pairs=["a"])), "reward (logit)")
    (bars,) = [c for c in axis.containers if c.has_yerr]
    (segments,) = bars[2]
    spans = [sorted(segment[:, 1]) for segment in segments.get_segments()]
    assert np.array(spans) == pytest.approx(np.array([[2.9, 3.2], [3.3, 3.6], [3.0, 3.3]]))


def test_grids_that_differ_much_are_on_a_logarithmic_axis_and_others_are_not(tmp_path, drawn):
    files = [write_alphas(tmp_path, "a", SMALL), write_alphas(tmp_path, "b", LARGE)]
    both = panel(drawn(plan(files, kind="curves", pairs=["a", "b"])), "reward (logit)")
    assert both.get_xscale() == "symlog"
    assert both.get_xlabel() == "alpha (logarithmic from 0.2 on)"
    assert list(both.get_xticks()) == [0, 0.2, 0.5, 1, 2, 5, 10, 20]
    alone = panel(drawn(plan(files[:1], kind="curves", pairs=["a"])), "reward (logit)")
    assert (alone.get_xscale(), alone.get_xlabel()) == ("linear", "alpha")


def test_groups_have_panels_and_a_legend_of_their_own(tmp_path, drawn):
    files = [write_alphas(tmp_path, pair, SMALL) for pair in ("a", "b", "c")]
    groups = {"Learning rates": ["a", "b"], "Epochs": ["a", "c"]}
    figure = drawn(plan(files, kind="curves", groups=groups))
    legends = {part.legends[0].get_title().get_text(): texts(part.legends[0])[:2] for part in figure.subfigs}
    assert legends == groups
    assert [len(part.get_axes()) for part in figure.subfigs] == [2, 2]


PAPER = {"b": {"aligned": {"reward": 3.13}, "expo": {"reward": 4.79, "alpha": 25.0}}}


def test_the_papers_rewards_stand_beside_where_another_reward_model_gave_them(tmp_path, drawn):
    file = write_alphas(tmp_path, "b", LARGE)
    figure = drawn(plan([file], PAPER, kind="curves", pairs=["b"]))
    (marks,) = hollow(panel(figure, "paper's reward (logit)"))
    assert list(marks.get_xydata().flatten()) == [0, 3.13, 25, 4.79]


def test_the_papers_rewards_stand_in_the_same_panel_where_the_reward_model_is_the_papers(tmp_path, drawn):
    file = write_alphas(tmp_path, "b", LARGE)
    figure = drawn(plan([file], PAPER, True, kind="curves", pairs=["b"]))
    marks = [line for line in hollow(panel(figure, "reward (logit)")) if len(line.get_xdata()) == 2]
    assert list(marks[0].get_xydata().flatten()) == [0, 3.13, 25, 4.79]
    assert len(figure.get_axes()) == 2


def unrewarded(folder, pair, rewards):
    """alphas.csv of a pair without a reward model, with an NLL of 4 less what would be the reward."""
    file = write_alphas(folder, pair, rewards)
    table = pd.read_csv(file, dtype={"pair": str})
    table["nll"] = 4 - table["reward"]
    table["nll_change_low"], table["nll_change_high"] = -table["gain_high"], -table["gain_low"]
    table[["reward", "reward_low", "reward_high", "gain", "gain_low", "gain_high", "p_value"]] = np.nan
    table.to_csv(file, index=False)
    return file


def test_without_rewards_the_sweep_shows_the_nll_with_the_interval_of_its_change(tmp_path, drawn):
    file = unrewarded(tmp_path, "one", SMALL)
    figure = drawn(plan([file], {"one": {"expo": {"alpha": 0.3}}}, kind="sweep", pairs=["one"]))
    nll = panel(figure, "NLL, aligned\n(nats per token)")
    assert len(figure.get_axes()) == 2
    assert list(curve(nll, 3).get_ydata()) == pytest.approx([1.0, 0.6, 0.9])
    assert stars(nll) == [(0.2, pytest.approx(0.6))]
    (band,) = nll.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.55, 1.05))
    assert hollow(nll)[0].get_xdata()[0] == 0.3
    assert "interval of the change" in texts(figure.legends[0])


def test_without_rewards_curves_show_the_nll_and_the_papers_rewards_apart(tmp_path, drawn):
    files = [unrewarded(tmp_path, pair, LARGE) for pair in ("a", "b")]
    figure = drawn(plan(files, PAPER, kind="curves", pairs=["a", "b"]))
    assert stars(panel(figure, "NLL, aligned\n(nats per token)")) == [(25, 0), (25, 0)]
    (marks,) = hollow(panel(figure, "paper's reward (logit)"))
    assert list(marks.get_xydata().flatten()) == [0, 3.13, 25, 4.79]
    assert "interval of the mean" not in texts(figure.subfigs[0].legends[0])


def test_path_goes_from_sft_through_aligned_to_the_grids_end(tmp_path, drawn):
    file = write_alphas(tmp_path, "one", SMALL)
    axis = panel(drawn(plan([file], kind="path", pairs=["one"])), "reward (logit)")
    points = {
        line.get_marker(): tuple(line.get_xydata()[0]) for line in axis.lines if line.get_ls() == "None"
    }
    assert points == {"s": (-1, 2.0), "D": (0, 3.0), "*": (0.2, 3.4)}


def test_histograms_show_shares_of_the_variants_that_are_asked_for(tmp_path, drawn):
    files = [
        write_generations(tmp_path, "one", variant, "alpaca_eval", rewards)
        for variant, rewards in (("aligned", [0.0, 1, 1, 2]), ("expo", [2.0, 3, 3, 4]))
    ]
    config = {"kind": "histograms", "pairs": ["one"], "benchmark": "alpaca_eval"}
    figure = drawn(plan(files, **config, variants=["aligned", "expo"]))
    axis = panel(figure, "share of responses")
    assert texts(figure.legends[0]) == ["aligned", "ExPO"]
    assert [line.get_xdata()[0] for line in axis.lines] == [1.0, 3.0]
    for steps, top in zip(axis.patches, (0.5, 0.5), strict=True):
        assert steps.get_path().vertices[:, 1].max() == pytest.approx(top)
    assert len({steps.get_linestyle() for steps in axis.patches}) == 2


def test_bars_stand_with_intervals_and_the_papers_marks(tmp_path, drawn):
    value = {("a", "aligned"): 10.0, ("a", "expo"): 14.0, ("b", "aligned"): 20.0, ("b", "expo"): 22.0}
    files = [
        write_benchmark(tmp_path, pair, variant, "alpaca_eval", {"win_rate": number}, error=1.0)
        for (pair, variant), number in value.items()
    ]
    config = {"kind": "bars", "metrics": ["alpaca_eval.win_rate"], "variants": ["aligned", "expo"]}
    paper = {"a": {"expo": {"alpaca_eval.win_rate": 10.6}}}
    figure = drawn(plan(files, paper, **config, pairs=["a", "b"], labels={"b": "other"}))
    (axis,) = figure.get_axes()
    assert [bar.get_width() for bar in axis.patches] == [10, 20, 14, 22]
    assert axis.get_xlabel() == "AlpacaEval 2.0\nwin rate (%)"
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "other"]
    (mark,) = hollow(axis)
    assert mark.get_xdata()[0] == 10.6
    expo = axis.patches[2]
    assert mark.get_ydata()[0] == pytest.approx(expo.get_y() + expo.get_height() / 2)
    spans = [
        s[:, 0].tolist() for c in axis.containers if hasattr(c, "has_xerr") for s in c[2][0].get_segments()
    ]
    assert [10 - 1.96, 10 + 1.96] in spans
    assert texts(figure.legends[0]) == ["aligned", "ExPO", "95 % interval", "in the paper"]


def test_a_metric_that_is_not_there_is_told_with_those_that_are(tmp_path, drawn):
    file = write_benchmark(tmp_path, "a", "expo", "reward", {"reward": 1.0, "length": 9.0})
    config = {"kind": "bars", "pairs": ["a"], "variants": ["expo"], "metrics": ["reward.qualty"]}
    with pytest.raises(
        DataError, match=r"no metric reward.qualty; .* there are reward.reward, reward.length"
    ):
        drawn(plan([file], **config))


@pytest.mark.parametrize("kind", ["sweep", "path", "curves"])
def test_twelve_pairs_fit_a_column_with_eight_point_type_and_no_panel_touches_another(tmp_path, drawn, kind):
    pairs = [f"tulu-2-dpo-{number}b" for number in range(12)]
    files = [write_alphas(tmp_path, pair, SMALL) for pair in pairs]
    figure = drawn(plan(files, kind=kind, pairs=pairs))
    figure.canvas.draw()
    assert figure.get_size_inches()[0] == WIDTH
    axes = [axis for axis in figure.get_axes() if axis.axison]
    boxes = [axis.get_tightbbox() for axis in axes]
    for index, box in enumerate(boxes):
        assert box.width > 0.15 * figure.bbox.width
        for other in boxes[index + 1 :]:
            over = (
                min(box.x1, other.x1) - max(box.x0, other.x0),
                min(box.y1, other.y1) - max(box.y0, other.y0),
            )
            assert min(over) <= 1
    written = [text for axis in axes for text in (axis.title, axis.xaxis.label, *axis.get_xticklabels())]
    assert min(text.get_fontsize() for text in written) >= 8


def test_the_same_results_give_the_same_svg(tmp_path):
    file = write_alphas(tmp_path, "one", SMALL)
    outputs = [tmp_path / name for name in ("a.svg", "b.svg", "c.png")]
    for output in outputs:
        figures.draw(plan([file], kind="sweep", pairs=["one"]), [output])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert plt.imread(outputs[2]).shape[1] == WIDTH * 300
