"""Files that are not what they should be: one sentence, at once, and they are left as they are."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import hpo.data
from hpo.errors import DataError, FileError

from .conftest import Offer, Tiny

NAME = "train-images"


def _flip(content: bytes) -> bytes:
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


def _claim_a_gibibyte(content: bytes) -> bytes:
    return content[:4] + struct.pack(">I", 1 << 26) + content[8:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "one bit": _flip,
    "truncated": lambda content: content[:-1],
    "empty": lambda _content: b"",
    "wrong magic": lambda content: b"\x1f\x8b" + content[2:],
    "foreign": lambda _content: b"<html>not here</html>",
    "claims 1 GiB": _claim_a_gibibyte,
}


@pytest.fixture
def folder(offer: Offer, tiny: Tiny, data_home: Path) -> Path:
    offer("tiny", tiny.dataset())
    tiny.write(data_home / "tiny")
    return data_home / "tiny"


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damaged_file_is_named_with_both_sums_and_kept(
    folder: Path, tiny: Tiny, damage: Callable[[bytes], bytes]
) -> None:
    damaged = damage(tiny.content[NAME])
    (folder / NAME).write_bytes(damaged)
    for ask in (hpo.data.load_train, hpo.data.fetch):
        with pytest.raises(DataError) as caught:
            ask("tiny")
        message = str(caught.value)
        assert message.startswith(f"{folder / NAME}: damaged or foreign")
        assert hashlib.sha256(tiny.content[NAME]).hexdigest() in message
        assert hashlib.sha256(damaged).hexdigest() in message
        assert message.endswith("remove it and run `hpo data fetch tiny`")
    assert (folder / NAME).read_bytes() == damaged


def test_a_file_far_too_large_is_refused_by_its_size(folder: Path) -> None:
    os.truncate(folder / NAME, 1 << 40)  # sparse; hashing it would take an hour
    with pytest.raises(DataError, match=f"expected 496 bytes .* found {1 << 40} bytes"):
        hpo.data.load_train("tiny")


@pytest.mark.parametrize("kind", ["folder", "pipe", "dangling link"])
def test_what_is_no_file_is_refused_without_waiting(folder: Path, kind: str) -> None:
    path = folder / NAME
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(folder / "nowhere")
    with pytest.raises((DataError, FileError)) as caught:
        hpo.data.load_train("tiny")
    assert str(caught.value).startswith(str(path))
    assert "remove it" in str(caught.value)


def test_swapped_files_of_the_right_size_are_refused(folder: Path, tiny: Tiny) -> None:
    (folder / "test-images").write_bytes(tiny.content["test-images"][::-1])
    hpo.data.load_train("tiny")
    with pytest.raises(DataError, match="test-images: damaged"):
        hpo.data.load_test("tiny")


def test_a_missing_file_without_fetching_is_an_error(folder: Path) -> None:
    (folder / NAME).unlink()
    with pytest.raises(DataError, match=r"train-images: missing; run `hpo data fetch tiny`"):
        hpo.data.load_train("tiny", fetch=False)


def test_packed_files_are_unpacked_on_first_use(offer: Offer, tiny: Tiny, data_home: Path) -> None:
    offer("tiny", tiny.dataset())
    folder = data_home / "tiny"
    tiny.write(folder, packed=True)
    assert hpo.data.status("tiny").present
    assert hpo.data.load_train("tiny").images.tobytes() == tiny.content[NAME][16:]
    assert (folder / NAME).read_bytes() == tiny.content[NAME]
    assert not (folder / "test-images").exists()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"not gzip at all",
        gzip.compress(b"other content"),
        gzip.compress(bytes(1 << 24)),
        gzip.compress(b"x" * 496)[:-9],
    ],
    ids=["empty", "foreign", "other", "bomb", "truncated"],
)
def test_a_bad_packed_file_is_named_and_nothing_is_left(folder: Path, packed: bytes) -> None:
    (folder / NAME).unlink()
    (folder / f"{NAME}.gz").write_bytes(packed)
    before = sorted(folder.iterdir())
    with pytest.raises(DataError) as caught:
        hpo.data.load_train("tiny")
    assert str(caught.value).startswith(f"{folder / NAME}.gz: ")
    assert str(caught.value).endswith("remove it and run `hpo data fetch tiny`")
    assert sorted(folder.iterdir()) == before


def test_training_needs_and_opens_no_file_with_test_rows(folder: Path) -> None:
    for name in ("test-images", "test-labels"):
        (folder / name).unlink()
    assert len(hpo.data.load_train("tiny")) == 30
    with pytest.raises(DataError, match="no source has it"):
        hpo.data.load_test("tiny")


_MEASURED = """
import time
import hpo.data

def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

before, start = peak(), time.process_time()
hpo.data.load_train("mnist")
print(time.process_time() - start, (peak() - before) / 1024)
"""


def test_checking_mnist_takes_neither_time_nor_memory(real_folder: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", _MEASURED],
        env={**os.environ, "HPO_DATA": str(real_folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    seconds, mebibytes = map(float, result.stdout.split())
    assert seconds < 5
    assert mebibytes < 25
