"""Run every benchmark: `make bench`, or `python -m benchmarks [rate|products|control_plane]`.

What follows the name of one benchmark is for that one: `control_plane --sizes 100,1000`.
"""

from __future__ import annotations

import sys

from benchmarks import control_plane, machine, products, rate

_BENCHMARKS = {
    "control_plane": control_plane.main,
    "products": lambda _: products.main(),
    "rate": lambda _: rate.main(),
}


def main(words: list[str]) -> None:
    names = [word for word in words if word in _BENCHMARKS]
    options = [word for word in words if word not in _BENCHMARKS]
    if options and (len(names) != 1 or words[0] != names[0]):
        sys.exit(f"there is no benchmark {options[0]}; there are {', '.join(_BENCHMARKS)}")
    print(machine.describe())
    for name in names or _BENCHMARKS:
        print(f"\n## {name}\n")
        _BENCHMARKS[name](options)


if __name__ == "__main__":
    main(sys.argv[1:])
