"""`python -m hpo` is `hpo`."""

from __future__ import annotations

import sys

from hpo.cli import main

if __name__ == "__main__":
    sys.exit(main())
