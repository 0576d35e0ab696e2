"""Run every benchmark: `make bench`, or `python -m benchmarks [rate|products]`."""

from __future__ import annotations

import sys

from benchmarks import machine, products, rate

_BENCHMARKS = {"products": products.main, "rate": rate.main}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in _BENCHMARKS]
    if unknown:
        sys.exit(f"there is no benchmark {unknown[0]}; there are {', '.join(_BENCHMARKS)}")
    print(machine.describe())
    for name in names or _BENCHMARKS:
        print(f"\n## {name}\n")
        _BENCHMARKS[name]()


if __name__ == "__main__":
    main(sys.argv[1:])
