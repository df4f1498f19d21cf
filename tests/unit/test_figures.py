"""Figures, as far as a program can see them."""

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from expoflow import figures


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("draw", [figures.sweep, figures.path])
def test_the_legend_has_room_whatever_the_number_of_pairs(draw, count):
    row = {"reward": 1.0, "reward_low": 0.9, "reward_high": 1.1, "gain_low": 0, "gain_high": 0.2, "length": 9}
    rows = [
        {"pair": f"pair{number}", "alpha": alpha, "chosen": int(alpha == 1), "quality": None, **row}
        for number in range(count)
        for alpha in (-1, 0, 1)
    ]
    with plt.rc_context(figures.STYLE):
        figure = draw(pd.DataFrame(rows), [])
        figure.canvas.draw()
        legend, page = figure.legends[0].get_window_extent(), figure.bbox
        plt.close(figure)
    assert page.x0 <= legend.x0 <= legend.x1 <= page.x1
    assert page.y0 <= legend.y0 <= legend.y1 <= page.y1
