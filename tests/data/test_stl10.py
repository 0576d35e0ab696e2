"""STL-10 from files of its format: upright, mapped, and what is wrong with broken ones."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import hpo.data
from hpo.data.archive import ArchiveDownload, Published, torchvision_archive
from hpo.data.sources import SourceError
from hpo.data.stl10 import STL10, Stl10
from hpo.data.tensors import ImageTensors
from hpo.errors import DataError, FileError

from . import stl10_files
from .conftest import Web

CPU = torch.device("cpu")
ARCHIVE = "stl10_binary.tar.gz"
NAMES = ["train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin"]


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return stl10_files.content()


@pytest.fixture
def folder(data_home: Path) -> Path:
    """Where the dataset looks for its files; nothing lies there."""
    return data_home / "stl10"


@pytest.fixture
def filled(folder: Path, files: dict[str, bytes]) -> Path:
    stl10_files.write(folder, files)
    return folder


@pytest.mark.usefixtures("filled")
def test_images_are_upright_and_labels_count_from_zero() -> None:
    for part, load, n, seed in (
        ("train", hpo.data.load_train, 40, 0),
        ("test", hpo.data.load_test, 20, 1),
    ):
        images, labels = stl10_files.pictures(n, seed)
        rows = load("stl10", fetch=False)
        assert rows.images.shape == (n, 3, 96, 96), part
        assert np.array_equal(rows.images, images), part
        assert np.array_equal(rows.labels, labels), part


def test_a_pixel_lies_where_the_format_says(folder: Path) -> None:
    """Byte 96 * x + y of the second channel is row y of column x of the green image."""
    content = bytearray(stl10_files.IMAGE)
    content[9216 + 96 * 70 + 5] = 201
    names = {"train_X.bin": bytes(content), "train_y.bin": b"\x0a"}
    stl10_files.write(folder, names)
    rows = hpo.data.load_train("stl10", fetch=False)
    assert np.argwhere(rows.images).tolist() == [[0, 1, 5, 70]]
    assert rows.labels.tolist() == [9]


def test_the_images_stay_mapped_and_no_batch_writes_to_them(
    filled: Path, files: dict[str, bytes]
) -> None:
    rows = hpo.data.load_train("stl10")
    examples = ImageTensors(rows, CPU)
    assert isinstance(rows.images, np.memmap)
    assert examples.images.data_ptr() == rows.images.ctypes.data
    assert examples.images.shape == (40, 3, 96, 96)
    normalization = examples.normalization(torch.arange(40))
    index = torch.tensor([3, 0, 39])
    features, labels = examples.batch(index, normalization, torch.float32)
    upright = stl10_files.pictures(40)[0]
    mean = upright.astype(np.float64).mean((0, 2, 3))[:, None, None]
    std = upright.astype(np.float64).std((0, 2, 3))[:, None, None]
    expected = (upright[[3, 0, 39]] - mean) / std
    np.testing.assert_allclose(features.numpy(), expected.reshape(3, -1), rtol=1e-4, atol=1e-5)
    assert labels.tolist() == rows.labels[[3, 0, 39]].tolist()
    features.zero_()
    assert (filled / "train_X.bin").read_bytes() == files["train_X.bin"]
    assert np.array_equal(rows.images, upright)


def test_images_by_columns_are_read_as_those_by_rows() -> None:
    images, labels = stl10_files.pictures(8)
    by_columns = np.ascontiguousarray(images.swapaxes(2, 3)).swapaxes(2, 3)
    for first, second in ((images, by_columns), (images[:, 0], by_columns[:, 0].copy("K"))):
        one, other = (
            ImageTensors(hpo.data.LabelledRows(some, labels), CPU) for some in (first, second)
        )
        assert torch.equal(one.images, other.images)
        everything = torch.arange(8)
        normalization = one.normalization(everything)
        assert torch.equal(normalization.mean, other.normalization(everything).mean)
        batches = [some.batch(everything, normalization, torch.float32) for some in (one, other)]
        assert torch.equal(batches[0][0], batches[1][0])


def test_the_description_counts_the_rows_that_are_here(
    folder: Path, files: dict[str, bytes]
) -> None:
    published = hpo.data.describe("stl10")
    assert (published.n_train, published.n_test) == (5000, 8000)
    assert (published.shape, published.classes) == ((3, 96, 96), 10)
    assert not folder.exists()
    assert hpo.data.status("stl10").missing == tuple(NAMES)
    stl10_files.write(folder, files)
    found = hpo.data.describe("stl10")
    assert (found.n_train, found.n_test) == (40, 20)
    assert hpo.data.status("stl10").present
    assert hpo.data.fetch("stl10") == folder


def _other_label(value: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:7] + bytes([value]) + content[8:]


@pytest.mark.parametrize(
    ("name", "damage", "told"),
    [
        ("train_X.bin", lambda content: content[:-1], "1105919 bytes, where the 40 labels in"),
        ("train_X.bin", lambda content: content + b"x", "need 1105920, 27648 an image; one of"),
        ("train_X.bin", lambda _content: b"", "0 bytes, where the 40 labels in train_y.bin need"),
        ("train_X.bin", lambda content: content[27648:], "remove both and run `hpo data fetch"),
        ("train_y.bin", _other_label(0), "from 1 to 10, but that of row 7 is 0; remove it"),
        ("train_y.bin", _other_label(11), "from 1 to 10, but that of row 7 is 11; remove it"),
        ("train_y.bin", lambda _content: b"", "damaged or foreign: empty; remove it and run"),
        ("test_y.bin", _other_label(255), "from 1 to 10, but that of row 7 is 255; remove it"),
        ("test_X.bin", lambda content: content[:27648], "27648 bytes, where the 20 labels in"),
    ],
)
def test_a_damaged_file_is_told_in_one_sentence_and_kept(
    filled: Path, files: dict[str, bytes], name: str, damage: Callable[[bytes], bytes], told: str
) -> None:
    (filled / name).write_bytes(damage(files[name]))
    load = hpo.data.load_test if name.startswith("test") else hpo.data.load_train
    for ask in (load, hpo.data.fetch):
        with pytest.raises(DataError) as caught:
            ask("stl10")
        message = str(caught.value)
        assert message.startswith(f"{filled / name}: ")
        assert told in message
        assert message.endswith("run `hpo data fetch stl10`")
        assert "\n" not in message
    assert (filled / name).read_bytes() == damage(files[name])


@pytest.mark.parametrize("name", NAMES[:2])
def test_a_missing_file_is_named(filled: Path, name: str) -> None:
    (filled / name).unlink()
    assert hpo.data.status("stl10").missing == (name,)
    with pytest.raises(DataError, match=f"{name}: missing; run `hpo data fetch stl10`"):
        hpo.data.load_train("stl10", fetch=False)


@pytest.mark.parametrize("name", NAMES[:2])
@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_what_is_no_file_is_refused_without_waiting(filled: Path, name: str, kind: str) -> None:
    path = filled / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(filled / "nowhere")
    with pytest.raises((DataError, FileError), match="remove it") as caught:
        hpo.data.load_train("stl10")
    assert str(caught.value).startswith(str(path))


def test_labels_far_too_many_are_not_read(filled: Path) -> None:
    os.truncate(filled / "train_y.bin", 1 << 40)  # sparse
    with pytest.raises(DataError, match="damaged or foreign: more than 1000000 labels"):
        hpo.data.load_train("stl10")
    assert hpo.data.describe("stl10").n_train == 5000


_WATCHED = """
import sys
import hpo.data
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
hpo.data.load_train("stl10")
ours = {path.rsplit("/", 1)[1] for path in opened if path.endswith(".bin")}
assert ours == {"train_X.bin", "train_y.bin"}, opened
assert not {"torch", "torchvision"} & set(sys.modules)
"""


def test_loading_training_rows_opens_no_file_with_test_rows(filled: Path) -> None:
    environment = {**os.environ, "HPO_DATA": str(filled.parent)}
    subprocess.run([sys.executable, "-c", _WATCHED], check=True, env=environment)
    for name in NAMES[2:]:
        (filled / name).unlink()
    assert len(hpo.data.load_train("stl10")) == 40


# --- the archive


def test_an_archive_in_the_folder_is_unpacked(folder: Path, files: dict[str, bytes]) -> None:
    packed = stl10_files.archive(files)
    stl10_files.write(folder, {ARCHIVE: packed})
    assert len(hpo.data.load_train("stl10")) == 40
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, ARCHIVE])
    for name, content in files.items():
        assert (folder / name).read_bytes() == content


@pytest.mark.parametrize("others", [[], ["train_X.bin"], ["train_X.bin", "test_y.bin"]])
def test_files_in_it_that_are_not_the_published_ones_are_named(
    folder: Path, files: dict[str, bytes], others: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    stl10_files.write(folder, {ARCHIVE: stl10_files.archive(files)})
    sums = {name: hashlib.md5(files[name], usedforsecurity=False).hexdigest() for name in NAMES}
    published = Published("http://127.0.0.1:1/", {**sums, **dict.fromkeys(others, "0" * 32)})
    Stl10(ArchiveDownload("none", lambda: published)).fetch(folder)
    said = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert len(said) == bool(others)
    assert all(", ".join(others) in sentence and ARCHIVE in sentence for sentence in said)


def test_only_what_is_missing_is_taken_out(folder: Path, files: dict[str, bytes]) -> None:
    own = {name: files[name] for name in NAMES[:2]}
    stl10_files.write(folder, {**own, ARCHIVE: stl10_files.archive(stl10_files.content(10, 10))})
    hpo.data.fetch("stl10")
    found = hpo.data.describe("stl10")
    assert (found.n_train, found.n_test) == (40, 10)


def _claims_more(name: str) -> bytes:
    """An archive that ends, whole as a gzip file, before what it says of its member."""
    info = tarfile.TarInfo(f"stl10_binary/{name}")
    info.size = 5000
    return gzip.compress(info.tobuf() + bytes(1024))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:200],
        lambda _packed: b"",
        lambda _packed: b"<html>not here</html>",
        lambda packed: packed[:5000] + bytes(64) + packed[5064:],
        lambda _packed: stl10_files.archive({}),
        lambda _packed: _claims_more("train_X.bin"),
    ],
    ids=["half", "beginning", "empty", "foreign", "overwritten", "other", "claims more"],
)
def test_a_bad_archive_is_named_and_nothing_is_left(
    folder: Path, files: dict[str, bytes], spoil: Callable[[bytes], bytes]
) -> None:
    spoilt = spoil(stl10_files.archive(files))
    stl10_files.write(folder, {ARCHIVE: spoilt})
    with pytest.raises(DataError) as caught:
        hpo.data.load_train("stl10")
    message = str(caught.value)
    assert message.startswith(f"{folder / ARCHIVE}: cut or foreign: ")
    assert message.endswith("; remove it and run `hpo data fetch stl10`")
    assert "\n" not in message
    assert [path.name for path in folder.iterdir()] == [ARCHIVE]
    assert (folder / ARCHIVE).read_bytes() == spoilt


# --- the download


def _published(web: Web, files: dict[str, bytes], **other: str) -> Callable[[], Published]:
    sums = {n: hashlib.md5(c, usedforsecurity=False).hexdigest() for n, c in files.items()}
    return lambda: Published(f"{web.address}{ARCHIVE}", {**sums, **other})


def test_what_is_missing_is_downloaded_and_summed(
    web: Web, folder: Path, files: dict[str, bytes]
) -> None:
    web.answers[f"/{ARCHIVE}"] = stl10_files.archive(files)
    dataset = Stl10(ArchiveDownload("web server of this test", _published(web, files)))
    dataset.fetch(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files
    assert len(dataset.load_train(folder)) == 40
    dataset.fetch(folder)
    assert web.asked == [f"/{ARCHIVE}"]


def test_a_download_that_fails_says_why_and_what_to_do(
    web: Web, folder: Path, files: dict[str, bytes]
) -> None:
    whole = stl10_files.archive(files)
    web.answers["/cut.tar.gz"] = whole[: len(whole) // 2]
    web.answers[f"/{ARCHIVE}"] = whole
    for published, told in (
        (lambda: Published(f"{web.address}none"), "404"),
        (lambda: Published(f"{web.address}cut.tar.gz"), "the archive cannot be read: Compressed"),
        (lambda: Published("file:///etc/passwd"), "not a web address"),
        (lambda: Published("http://127.0.0.1:1/x"), "refused"),
        (_published(web, files, **{"test_y.bin": "0" * 32}), "its test_y.bin has the MD5 sum"),
    ):
        dataset = Stl10(ArchiveDownload("web server of this test", published))
        with pytest.raises(DataError) as caught:
            dataset.fetch(folder)
        message = str(caught.value)
        assert message.startswith("stl10: no source has it; tried the data folder (no train_X.bin")
        assert told in message
        assert f"into {folder} and run the command again" in message
        assert list(folder.iterdir()) == []


def test_a_download_that_stalls_is_given_up(
    web: Web, folder: Path, files: dict[str, bytes]
) -> None:
    web.answers[f"/{ARCHIVE}"] = stl10_files.archive(files)
    web.stalls_after = 10_000
    source = ArchiveDownload("web server of this test", _published(web, files), silence=0.3)
    with pytest.raises(DataError, match="timed out"):
        Stl10(source).fetch(folder)
    assert list(folder.iterdir()) == []


def test_torchvision_knows_the_archive_and_the_sums() -> None:
    published = torchvision_archive("STL10")()
    assert published.address.endswith(f"/{ARCHIVE}")
    assert set(NAMES) <= set(published.md5)
    assert all(len(md5) == 32 for md5 in published.md5.values())
    with pytest.raises(SourceError, match="knows no STL11"):
        torchvision_archive("STL11")()


def test_the_same_files_read_by_torchvision(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another reader of the format sees the same images and labels."""
    from torchvision import datasets

    monkeypatch.setattr(datasets.STL10, "_check_integrity", lambda _self: True)
    (filled.parent / "stl10_binary").symlink_to(filled)
    theirs = datasets.STL10(str(filled.parent), split="train")
    rows = STL10.load_train(filled)
    assert np.array_equal(theirs.data, rows.images)
    assert np.array_equal(theirs.labels, rows.labels)
