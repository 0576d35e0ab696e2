"""Run every benchmark, or some: `python -m benchmarks [rate|products|workers|control_plane]`.

What follows the name of one benchmark is for that one: `control_plane --sizes 100,1000`.
"""

from __future__ import annotations

import sys

from benchmarks import control_plane, machine, products, rate, workers

_BENCHMARKS = {"products": products.main, "rate": rate.main, "workers": workers.main}
_WITH_OPTIONS = {"control_plane": control_plane.main}


def main(words: list[str]) -> None:
    known = [*_BENCHMARKS, *_WITH_OPTIONS]
    if words and words[0] in _WITH_OPTIONS:
        names, options = words[:1], words[1:]
    else:
        names, options = words or known, []
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}")
    print(machine.describe())
    for name in names:
        print(f"\n## {name}\n")
        if name in _WITH_OPTIONS:
            _WITH_OPTIONS[name](options)
        else:
            _BENCHMARKS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
