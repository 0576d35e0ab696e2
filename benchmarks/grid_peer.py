"""A process that runs scikit-learn's GridSearchCV over skorch on some cells of the grid.

It prints a line of JSON: the seconds of the search, and the mean accuracy of each cell.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import Tensor, nn

from benchmarks.grid_cells import WIDTH, Cell, all_cells, folds_of
from benchmarks.grid_train import add_options
from hpo.data import describe, load_train

__all__ = ["Network"]

_ACTIVATIONS = {"relu": nn.ReLU, "selu": nn.SELU, "silu": nn.SiLU}
_OPTIMIZERS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
_WARM_UP_ROWS = 10 * WIDTH


class Network(nn.Module):
    """One hidden layer, written as one writes it for skorch."""

    def __init__(
        self,
        features: int,
        classes: int,
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(features, WIDTH),
            nn.BatchNorm1d(WIDTH) if batch_norm else nn.Identity(),
            _ACTIVATIONS[activation](),
            nn.Dropout(dropout),
            nn.Linear(WIDTH, classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to logits `[batch, classes]`."""
        logits: Tensor = self.layers(features)
        return logits


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.grid_peer")
    add_options(parser)
    parser.add_argument("--cells", required=True, help="their places in the grid")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args(arguments)
    cells = all_cells([int(size) for size in options.batch_sizes.split(",")])
    chosen = [cells[int(place)] for place in options.cells.split(",")]
    rows = load_train(options.dataset)
    features = rows.images.reshape(len(rows), -1).astype(np.float32)
    features = (features - features.mean()) / features.std()
    classes = describe(options.dataset).classes
    # The jobs' processes start, import torch and train a little before the clock does.
    some = slice(0, _WARM_UP_ROWS)
    _search(chosen[:1] * options.jobs, features[some], rows.labels[some], classes, 1, options.jobs)
    start = time.perf_counter()
    search = _search(chosen, features, rows.labels, classes, options.epochs, options.jobs)
    seconds = time.perf_counter() - start
    means = search.cv_results_["mean_test_score"].tolist()
    print(json.dumps({"seconds": seconds, "means": means}))


def _search(
    cells: list[Cell],
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    classes: int,
    epochs: int,
    jobs: int,
) -> Any:
    network = NeuralNetClassifier(
        Network,
        module__features=features.shape[1],
        module__classes=classes,
        criterion=nn.CrossEntropyLoss,
        max_epochs=epochs,
        iterator_train__shuffle=True,
        train_split=None,  # GridSearchCV holds rows out
        verbose=0,
    )
    search = GridSearchCV(
        network,
        [{key: [value] for key, value in _parameters(cell).items()} for cell in cells],
        cv=folds_of(labels),
        scoring="accuracy",
        n_jobs=jobs,
        refit=False,
    )
    return search.fit(features, labels)


def _parameters(cell: Cell) -> dict[str, Any]:
    return {
        "module__activation": cell.activation,
        "module__batch_norm": cell.batch_norm,
        "module__dropout": cell.dropout,
        "optimizer": _OPTIMIZERS[cell.optimizer],
        "lr": cell.lr,
        "batch_size": cell.batch_size,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
