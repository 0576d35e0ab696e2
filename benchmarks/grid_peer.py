"""A process that runs scikit-learn's GridSearchCV over skorch on some cells of a grid.

Its argument is JSON, as `grid.py` writes it. It prints a line of JSON: the seconds of the search,
and the mean accuracy of each cell.
"""

from __future__ import annotations

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

from hpo.config import MlpConfig, TrialConfig
from hpo.data import describe, folds, load_train

__all__ = ["Network"]

_ACTIVATIONS = {"relu": nn.ReLU, "selu": nn.SELU, "silu": nn.SiLU}
_OPTIMIZERS = {"adam": torch.optim.Adam, "rmsprop": torch.optim.RMSprop}
_WARM_UP_ROWS = 3000


class Network(nn.Module):
    """One hidden layer, written as one writes it for skorch."""

    def __init__(
        self,
        features: int,
        classes: int,
        width: int = 128,
        activation: str = "relu",
        batch_norm: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(features) if batch_norm else nn.Identity(),
            nn.Dropout(dropout),
            nn.Linear(features, width),
            _ACTIVATIONS[activation](),
            nn.Linear(width, classes),
        )

    def forward(self, features: Tensor) -> Tensor:
        """`[batch, features]` to logits `[batch, classes]`."""
        logits: Tensor = self.layers(features)
        return logits


def main(arguments: list[str]) -> None:
    asked = json.loads(arguments[0])
    cells = [TrialConfig.from_dict(cell) for cell in asked["cells"]]
    rows = load_train(asked["dataset"])
    features = rows.images.reshape(len(rows), -1).astype(np.float32)
    features = (features - features.mean()) / features.std()
    classes, jobs = describe(asked["dataset"]).classes, asked["jobs"]
    # The jobs' processes start, import torch and train a little before the clock does.
    some = min(_WARM_UP_ROWS, len(rows))
    few = folds(some, asked["folds"], asked["seed"])
    _search(cells[:1] * jobs, features[:some], rows.labels[:some], few, classes, 1, jobs)
    parts = folds(len(rows), asked["folds"], asked["seed"])
    start = time.perf_counter()
    search = _search(cells, features, rows.labels, parts, classes, asked["epochs"], jobs)
    seconds = time.perf_counter() - start
    means = search.cv_results_["mean_test_score"].tolist()
    print(json.dumps({"seconds": seconds, "means": means}))


def _search(
    cells: list[TrialConfig],
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    parts: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
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
        cv=parts,
        scoring="accuracy",
        n_jobs=jobs,
        refit=False,
    )
    return search.fit(features, labels)


def _parameters(cell: TrialConfig) -> dict[str, Any]:
    model = cell.model
    assert isinstance(model, MlpConfig)
    (width,) = model.widths
    return {
        "module__width": width,
        "module__activation": model.activation,
        "module__batch_norm": model.input_batch_norm,
        "module__dropout": model.input_dropout,
        "optimizer": _OPTIMIZERS[cell.optimizer.name],
        "lr": cell.optimizer.lr,
        "batch_size": cell.batch_size,
    }


if __name__ == "__main__":
    main(sys.argv[1:])
