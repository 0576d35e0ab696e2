"""Files in STL-10's format, with ten classes that can be learnt."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

IMAGE = 3 * 96 * 96


def pictures(n: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Upright images `[n, 3, 96, 96]` and classes 0 to 9: each class has its bright patch.

    Those of the first five lie along the top, those of the others down the left side, in one
    channel each; a reader that swaps the axes or the channels takes one class for another. A
    mirrored patch, or one a little aside, is still no other class's.
    """
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(n) % 10)
    images = rng.integers(0, 60, (n, 3, 96, 96), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        channel, place = label % 3, 18 * (label % 5)
        if label < 5:
            image[channel, :24, place : place + 24] += 150
        else:
            image[channel, place : place + 24, :24] += 150
    return images, labels.astype(np.int64)


def content(train: int = 40, test: int = 20) -> dict[str, bytes]:
    """The four files, byte for byte as the format has them."""
    files = {}
    for part, n, seed in (("train", train, 0), ("test", test, 1)):
        images, labels = pictures(n, seed)
        # Written out one channel after the other, each column by column.
        files[f"{part}_X.bin"] = b"".join(
            channel.T.tobytes() for image in images for channel in image
        )
        files[f"{part}_y.bin"] = bytes(int(label) + 1 for label in labels)
    return files


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def archive(files: dict[str, bytes]) -> bytes:
    """The archive as it is published: in a folder, with files beside them that nobody asks for."""
    members = {**files, "unlabeled_X.bin": bytes(IMAGE), "class_names.txt": b"airplane\n"}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as made:
        for name, data in members.items():
            info = tarfile.TarInfo(f"stl10_binary/{name}")
            info.size = len(data)
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()
