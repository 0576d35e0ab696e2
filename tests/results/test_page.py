"""The page: all in one file, figures that plotly takes, and nothing in a text that could run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import plotly.graph_objects
import pytest

from hpo.results.page import Plot, Section, Series, figure, page

HOSTILE = '</script><script>alert("x")</script>'
SECTION = Section(
    "Trial 3",
    [
        Plot(
            "loss",
            [Series("training", [1, 2], [0.9, 0.5]), Series("held out", [1, 2], [0.8, 0.6])],
        ),
        Plot(
            "squared gradient", [Series("layer 1", [1, 2, 3], [3.0, float("nan"), None])], log=True
        ),
    ],
    notes=["a sentence"],
    marks={2: "best"},
)


class Reader(HTMLParser):
    """What a browser would be asked to load, and the text of what it is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.tags: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href", "data")]


@pytest.fixture(scope="module")
def whole() -> str:
    return page("study: curves", [SECTION, SECTION])


def figures(text: str) -> list[dict[str, Any]]:
    (found,) = re.findall(r'<script id="figures" type="application/json">(.*?)</script>', text)
    read: list[dict[str, Any]] = json.loads(found)
    return read


def test_the_page_loads_nothing_and_has_plotly_once(whole: str) -> None:
    read = Reader(whole)
    assert read.loads == []
    assert "link" not in read.tags
    assert whole.count("* plotly.js v") == 1
    assert whole.startswith("<!doctype html>")
    assert "a sentence" in whole


def test_every_figure_has_its_place(whole: str) -> None:
    places = re.findall(r'<div id="(plot-\d)">', whole)
    assert places == ["plot-0", "plot-1"]
    assert figures(whole) == [figure(SECTION)] * 2


def test_plotly_takes_the_figure_as_it_is() -> None:
    drawn = plotly.graph_objects.Figure(figure(SECTION), skip_invalid=False)
    assert [line.name for line in drawn.data] == ["training", "held out", "layer 1"]
    assert [line.yaxis for line in drawn.data] == ["y", "y", "y2"]
    assert list(drawn.data[2].y) == [3.0, None, None]
    layout = drawn.layout
    assert (layout.yaxis.type, layout.yaxis2.type) == ("linear", "log")
    assert (layout.yaxis.title.text, layout.xaxis.title.text) == ("loss", "epoch")
    assert layout.shapes[0].x0 == layout.annotations[0].x == 2


def test_a_text_is_never_markup() -> None:
    section = Section(
        HOSTILE,
        [Plot(HOSTILE, [Series(HOSTILE, [1], [1.0])])],
        notes=[HOSTILE],
        marks={1: HOSTILE},
    )
    text = page(HOSTILE, [section])
    assert HOSTILE not in text
    assert text.count("<script") == page("x", [SECTION]).count("<script")
    assert figures(text)[0]["data"][0]["x"] == [1]
