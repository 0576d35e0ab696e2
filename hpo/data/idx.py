"""The IDX format, as MNIST and its relatives use it: a short header, then the bytes."""

from __future__ import annotations

import math
import os
import struct
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from hpo.errors import DataError

_UINT8 = 0x08
_MOST_DIMENSIONS = 8


def map_idx(file: BinaryIO, path: Path) -> NDArray[np.uint8]:
    """Map an open IDX file of unsigned bytes, without reading or copying what it holds.

    The format: two zero bytes, the type (8 is unsigned byte), the number of dimensions, then each
    dimension as a big-endian 32-bit integer, then the values, last dimension fastest (the format
    as given with the MNIST database by LeCun, Cortes and Burges).

    Args:
        file: open for binary reading; may be closed afterwards.
        path: names the file in a message.

    Returns:
        uint8, in the shape that the header gives, copy on write: whoever writes into it changes
        neither the file nor what other processes see.

    Raises:
        DataError: the header is not IDX, or does not fit the file's size.
    """
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    head = file.read(4)
    if len(head) < 4 or head[:3] != bytes((0, 0, _UINT8)):
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes: it starts with "
            f"{head.hex() or 'nothing'}, not with 000008"
        )
    n_dimensions = head[3]
    if not 1 <= n_dimensions <= _MOST_DIMENSIONS:
        raise DataError(
            f"{path}: its IDX header claims {n_dimensions} dimensions, not 1 to {_MOST_DIMENSIONS}"
        )
    packed = file.read(4 * n_dimensions)
    if len(packed) < 4 * n_dimensions:
        raise DataError(f"{path}: ends inside its IDX header, after {size} bytes")
    shape = struct.unpack(f">{n_dimensions}I", packed)
    offset = 4 + 4 * n_dimensions
    claimed = offset + math.prod(shape)  # of Python's integers, which cannot overflow
    if claimed != size:
        raise DataError(
            f"{path}: its IDX header claims {claimed} bytes {shape}, but it has {size}"
        )
    return np.memmap(file, dtype=np.uint8, mode="c", offset=offset, shape=shape)
