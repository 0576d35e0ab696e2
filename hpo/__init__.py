"""hpo: hyperparameter search for neural networks, and a retrained winner that can be believed."""

from __future__ import annotations

__all__ = ["__version__"]
__version__ = "0.1.0"
