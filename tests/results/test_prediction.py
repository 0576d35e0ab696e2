"""The page with a network's prediction over the test rows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hpo.results.prediction import Prediction, draw

INPUTS = np.array([3.0, -1.0, 0.5])


def figure_of(page: str) -> dict[str, Any]:
    found = json.loads(page.split('type="application/json">')[1].split("</script>")[0])
    assert len(found) == 1
    return dict(found[0])


def test_rows_are_points_and_the_prediction_a_line_from_left_to_right() -> None:
    found = Prediction(INPUTS, INPUTS**2, INPUTS[None] * 2)
    page = draw("own", found, ["mean over <1> seed"])
    points, line = figure_of(page)["data"]
    assert (points["mode"], line["mode"]) == ("markers", "lines")
    assert points["x"] == line["x"] == [-1.0, 0.5, 3.0]
    assert points["y"] == [1.0, 0.25, 9.0]
    assert line["y"] == [-2.0, 1.0, 6.0]
    assert line["name"] == "prediction"
    layout = figure_of(page)["layout"]
    assert layout["xaxis"] == {"title": {"text": "input"}, "rangemode": "normal"}
    assert "<p>mean over &lt;1&gt; seed</p>" in page
    assert "<title>own: prediction</title>" in page


def test_several_seeds_give_their_mean_and_spread() -> None:
    found = Prediction(INPUTS, INPUTS, np.stack([INPUTS, INPUTS + 2, INPUTS + 4]))
    _, mean, above, below = figure_of(draw("own", found))["data"]
    assert mean["name"] == "mean prediction of 3 seeds"
    order = np.sort(INPUTS)
    for line, away in ((mean, 2), (above, 4), (below, 0)):
        assert line["y"] == pytest.approx((order + away).tolist())  # the deviation is 2
