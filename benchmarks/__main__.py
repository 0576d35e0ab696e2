"""Run every benchmark of bounded time, or one: `python -m benchmarks [NAME [OPTIONS]]`.

Several names run one after the other. What follows the name of one that takes options is for
that one: `control_plane --sizes 100,1000`. `mark`, `searches` and `quality` take hours and run by
name only.
"""

from __future__ import annotations

import sys

from benchmarks import (
    accuracy,
    control_plane,
    convolutions,
    fullness,
    grid,
    growth,
    machine,
    mark,
    products,
    quality,
    rate,
    searches,
    workers,
)

_BENCHMARKS = {
    "products": products.main,
    "convolutions": convolutions.main,
    "workers": workers.main,
}
_WITH_OPTIONS = {
    "rate": rate.main,
    "accuracy": accuracy.main,
    "growth": growth.main,
    "fullness": fullness.main,
    "grid": grid.main,
    "control_plane": control_plane.main,
}
_LONG = {"searches": searches.main, "quality": quality.main, "mark": mark.main}


def main(words: list[str]) -> None:
    with_options = {**_WITH_OPTIONS, **_LONG}
    known = [*_BENCHMARKS, *with_options]
    options: list[str] = []
    if not words:
        names = [*_BENCHMARKS, *_WITH_OPTIONS]
    elif words[0] in with_options and words[1:] and words[1].startswith("-"):
        names, options = words[:1], words[1:]
    else:
        names = words
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}")
    print(machine.describe())
    for name in names:
        print(f"\n## {name}\n", flush=True)
        if name in with_options:
            with_options[name](options)
        else:
            _BENCHMARKS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
