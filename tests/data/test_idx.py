from __future__ import annotations

import struct
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hpo.data.idx import map_idx
from hpo.errors import DataError


def read(content: bytes) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows-idx"
        path.write_bytes(content)
        with path.open("rb") as file:
            return map_idx(file, path)


@given(
    arrays.arrays(np.uint8, arrays.array_shapes(min_dims=1, max_dims=4, min_side=0, max_side=9))
)
def test_what_is_written_is_read(array: np.ndarray) -> None:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    mapped = read(header + array.tobytes())
    assert mapped.dtype == np.uint8
    assert mapped.shape == array.shape
    assert np.array_equal(mapped, array)


@given(st.binary(max_size=64) | st.binary(max_size=40).map(lambda rest: b"\0\0\x08" + rest))
@example(b"")
@example(b"\0\0\x08\x03" + struct.pack(">3I", 2**32 - 1, 2**32 - 1, 2**32 - 1))
@example(b"\0\0\x08\x01" + struct.pack(">I", 1 << 30))
def test_any_other_bytes_are_one_clear_error(content: bytes) -> None:
    claimed = _claimed(content)
    if claimed is not None and claimed == len(content):
        assert read(content).tobytes() == content[4 + 4 * content[3] :]
    else:
        with pytest.raises(DataError, match="rows-idx: "):
            read(content)


def _claimed(content: bytes) -> int | None:
    """Return how long an IDX file with this header is; None where there is no such header."""
    n_dimensions = content[3] if len(content) > 3 else 0
    header = 4 + 4 * n_dimensions
    if content[:3] != b"\0\0\x08" or not 1 <= n_dimensions <= 8 or len(content) < header:
        return None
    size = 1
    for start in range(4, header, 4):
        size *= int.from_bytes(content[start : start + 4], "big")
    return header + size


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x1f\x8b\x08\x08abc", "starts with 1f8b0808"),
        (b"\0\0\x0d\x01\0\0\0\0", "not with 000008"),
        (b"\0\0\x08\x00", "claims 0 dimensions"),
        (b"\0\0\x08\x09" + bytes(36), "claims 9 dimensions"),
        (b"\0\0\x08\x03\0\0\0\1", "ends inside its IDX header, after 8 bytes"),
        (b"\0\0\x08\x01\x40\0\0\0", "claims 1073741832 bytes (1073741824,), but it has 8"),
        (b"\0\0\x08\x01\0\0\0\2abc", "claims 10 bytes (2,), but it has 11"),
    ],
)
def test_each_fault_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DataError) as caught:
        read(content)
    assert message in str(caught.value)


def test_writing_into_the_array_changes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"\0\0\x08\x01\0\0\0\3abc")
    with path.open("rb") as file:
        mapped = map_idx(file, path)
    assert isinstance(mapped, np.memmap)
    mapped[0] = 0
    assert path.read_bytes().endswith(b"abc")
