"""Datasets, from wherever they lie to checked arrays.

    names, describe, status      what there is
    fetch                        bring a dataset's files into the data folder
    load_train, load_test        the rows; `load_test` is the one door to the test rows
    split, folds                 training rows -> training and validation indices
    Dataset, IdxDataset, ...     to offer a dataset of one's own (entry point `hpo.datasets`)

Importing this costs NumPy and nothing heavier; torch, torchvision and scikit-learn are imported
only by the call that needs them.
"""

from __future__ import annotations

from hpo.data.catalog import describe, fetch, load_test, load_train, names, status
from hpo.data.dataset import Dataset, DatasetInfo, DatasetStatus, Part
from hpo.data.files import RawFile
from hpo.data.folder import data_folder
from hpo.data.idx_dataset import IdxDataset
from hpo.data.rows import LabelledRows
from hpo.data.splits import folds, split

__all__ = [
    "Dataset",
    "DatasetInfo",
    "DatasetStatus",
    "IdxDataset",
    "LabelledRows",
    "Part",
    "RawFile",
    "data_folder",
    "describe",
    "fetch",
    "folds",
    "load_test",
    "load_train",
    "names",
    "split",
    "status",
]
