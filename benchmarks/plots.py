"""A plotly figure as a page, and as a picture where Chromium can take one of it."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["COLOURS", "save", "ticks"]

# Okabe and Ito (2008): told apart also by those who see few colours.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#000000")
_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_DRAWING_MILLISECONDS = 8_000


def save(figure: Any, folder: Path, name: str) -> list[Path]:
    """Write `name.html`, which needs no network, and `name.png` if there is a browser.

    Returns:
        What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    page = (folder / f"{name}.html").resolve()
    figure.write_html(page, include_plotlyjs=True, config={"displayModeBar": False})
    browser = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if browser is None:
        return [page]
    picture = page.with_suffix(".png")
    width, height = figure.layout.width, figure.layout.height
    subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
            f"--virtual-time-budget={_DRAWING_MILLISECONDS}",
            *(f"--window-size={width + 16},{height + 16}", f"--screenshot={picture}"),
            page.as_uri(),
        ],
        check=False,
        timeout=120,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return [page, picture] if picture.exists() else [page]


def ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten around a range, for a logarithmic axis."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [float(f"{digit}e{power}") for power in powers for digit in (1, 2, 5)]
