"""Runs of searches over seeds, as tables and as a plot: best value so far, mean and spread."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, median, stdev

from plotly import graph_objects
from plotly.subplots import make_subplots

from benchmarks import plots
from benchmarks.search_runs import Run

__all__ = ["CONTESTANTS", "Runs", "at_seconds", "at_trials", "ended_at_seconds", "plot", "show"]

CONTESTANTS = ("random", "optuna", "hpo, one", "hpo, auto")
_AUTO = CONTESTANTS[-1]

Runs = dict[str, list[Run]]
"""By contestant, one run a seed, in the order of the seeds."""

_BestAt = Callable[[Run, float], float | None]

_COUNTS = (10, 20, 40, 80)
_SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)
_DRAWN = 80
_FIRST = 4


def at_trials(run: Run, count: float) -> float | None:
    """The best value of the first so many trials, in percent; None if they have not ended."""
    first = run[: round(count)]
    if len(first) < count or any(trial.ended is None for trial in first):
        return None
    return _best(value for trial in first for _, value in trial.reports)


def at_seconds(run: Run, seconds: float) -> float | None:
    """The best value that was reported by a moment, in percent; None if none was."""
    return _best(value for trial in run for at, value in trial.reports if at <= seconds)


def ended_at_seconds(run: Run, seconds: float) -> float | None:
    """The best value of the trials that had ended by a moment, in percent; None if none had."""
    ended = [trial for trial in run if trial.ended is not None and trial.ended <= seconds]
    return _best(value for trial in ended for _, value in trial.reports)


def show(runs: Runs, trials: int) -> None:
    """Print the best value by trials and by seconds, and how far `hpo, auto` is ahead."""
    counts = [count for count in _COUNTS if count < trials] + [trials]
    moments = _moments(runs)
    by_trials = [f"{count} trials" for count in counts]
    by_seconds = [f"{moment:g} s" for moment in moments]
    _table(runs, at_trials, counts, by_trials)
    _table(runs, at_seconds, moments, by_seconds)
    print("\nThe same, of those trials only that had ended:")
    _table(runs, ended_at_seconds, moments, by_seconds)
    print("\n| | trials | seconds of the whole |\n|---|---|---|")
    for name, of_seeds in runs.items():
        ended = [sum(trial.ended is not None for trial in run) for run in of_seeds]
        lasted = [_lasted(run) for run in of_seeds]
        print(f"| {name} | {fmean(ended):.0f} | {_shown(lasted)} |")
    seeds = len(next(iter(runs.values())))
    print(
        f"\nBest validation accuracy so far, %, mean of n = {seeds} seeds +- standard error; "
        "below, how far hpo, auto is ahead of each, seed by seed. - : not every seed got so far. "
        "Who ended early stays at what was reached. One process and one thread a search."
    )


def plot(runs: Runs, dataset: str, folder: Path) -> list[Path]:
    """Draw both; returns the files that were written."""
    figure = make_subplots(cols=2, subplot_titles=("by trials", "by seconds"), shared_yaxes=True)
    longest = max(_lasted(run) for of_seeds in runs.values() for run in of_seeds)
    soonest = min(_first(run) for of_seeds in runs.values() for run in of_seeds)
    soonest = max(soonest, longest / 1000)
    step = (longest / soonest) ** (1 / _DRAWN)
    most = max(len(run) for of_seeds in runs.values() for run in of_seeds)
    counts: list[float] = [float(count) for count in range(1, most + 1)]
    moments = [soonest * step**place for place in range(_DRAWN + 1)]
    for place, (name, of_seeds) in enumerate(runs.items()):
        colour = plots.COLOURS[place % len(plots.COLOURS)]
        _draw(figure, 1, name, colour, of_seeds, at_trials, counts)
        _draw(figure, 2, name, colour, of_seeds, at_seconds, moments)
    figure.update_xaxes(title_text="trials", row=1, col=1)
    ticks = plots.ticks(soonest, longest)
    seconds = {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}
    figure.update_xaxes(title_text="seconds", type="log", **seconds, row=1, col=2)
    figure.update_yaxes(title_text="best validation accuracy, %", row=1, col=1)
    figure.update_yaxes(range=_seen(runs, most))
    seeds = len(next(iter(runs.values())))
    title = f"{dataset}: mean of {seeds} seeds, with its standard error"
    figure.update_layout(title=title, template="plotly_white", width=1080, height=480)
    return plots.save(figure, folder, f"quality_{dataset}")


def _seen(runs: Runs, most: int) -> list[float]:
    """The accuracies to show: the first few trials would press all else together."""
    first = [
        fmean(values)
        for of_seeds in runs.values()
        if (values := _values(of_seeds, at_trials, min(_FIRST, most)))
    ]
    last = [
        value
        for of_seeds in runs.values()
        for run in of_seeds
        if (value := at_seconds(run, math.inf)) is not None
    ]
    low, high = min(first, default=min(last)), max(last)
    margin = 0.1 * (high - low) + 0.1
    return [low - margin, high + margin]


def _draw(
    figure: graph_objects.Figure,
    column: int,
    name: str,
    colour: str,
    runs: list[Run],
    best_at: _BestAt,
    places: Sequence[float],
) -> None:
    """A line with its band, as far as every seed got."""
    known = [(at, values) for at in places if (values := _values(runs, best_at, at))]
    if not known:
        return
    xs = [at for at, _ in known]
    means = [fmean(values) for _, values in known]
    errors = [_error(values) for _, values in known]
    upper = [mean + error for mean, error in zip(means, errors, strict=True)]
    lower = [mean - error for mean, error in zip(means, errors, strict=True)]
    shape = {"shape": "hv"}
    band = graph_objects.Scatter(
        x=xs + xs[::-1],
        y=upper + lower[::-1],
        fill="toself",
        line={"width": 0},
        fillcolor=colour,
        opacity=0.15,
        legendgroup=name,
        showlegend=False,
        hoverinfo="skip",
    )
    line = graph_objects.Scatter(
        x=xs,
        y=means,
        name=name,
        legendgroup=name,
        showlegend=column == 1,
        mode="lines",
        line={"color": colour, **shape},
    )
    figure.add_trace(band, row=1, col=column)
    figure.add_trace(line, row=1, col=column)


def _table(runs: Runs, best_at: _BestAt, places: Sequence[float], heads: Sequence[str]) -> None:
    print(f"\n| | {' | '.join(heads)} |")
    print("|---" * (len(heads) + 1) + "|")
    for name, of_seeds in runs.items():
        cells = [_shown(_values(of_seeds, best_at, at)) for at in places]
        print(f"| {name} | {' | '.join(cells)} |")
    for name, of_seeds in runs.items():
        if name == _AUTO or _AUTO not in runs:
            continue
        cells = [
            _shown(_gaps(_values(runs[_AUTO], best_at, at), _values(of_seeds, best_at, at)), "+")
            for at in places
        ]
        print(f"| {_AUTO}, less {name} | {' | '.join(cells)} |")


def _moments(runs: Runs) -> list[float]:
    """Around the time that `hpo, auto` takes: a quarter of it to four times as long."""
    whole = median(_lasted(run) for run in runs.get(_AUTO, next(iter(runs.values()))))
    return [float(f"{share * whole:.2g}") for share in _SHARES]


def _values(runs: list[Run], best_at: _BestAt, at: float) -> list[float]:
    """The best of each seed; empty unless every seed has one."""
    values = [value for run in runs if (value := best_at(run, at)) is not None]
    return values if len(values) == len(runs) else []


def _gaps(own: list[float], other: list[float]) -> list[float]:
    return [a - b for a, b in zip(own, other, strict=True)] if own and other else []


def _best(values: Iterable[float]) -> float | None:
    best = max(values, default=None)
    return None if best is None else 100 * best


def _lasted(run: Run) -> float:
    """Seconds until the last trial ended."""
    return max((trial.ended for trial in run if trial.ended is not None), default=0.0)


def _first(run: Run) -> float:
    """Seconds until anything was known."""
    return min((at for trial in run for at, _ in trial.reports), default=_lasted(run))


def _error(values: Sequence[float]) -> float:
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else 0.0


def _shown(values: Sequence[float], sign: str = "") -> str:
    return f"{fmean(values):{sign}.2f} +- {_error(values):.2f}" if values else "-"
