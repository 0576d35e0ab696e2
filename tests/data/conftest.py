"""A small dataset with everything that the big ones have, and the big ones themselves."""

from __future__ import annotations

import gzip
import hashlib
import struct
import sys
import threading
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import hpo.data
from hpo.data import DatasetInfo, IdxDataset, RawFile
from hpo.data.sources import Source


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def raw_file(name: str, content: bytes) -> RawFile:
    return RawFile(name, len(content), hashlib.sha256(content).hexdigest())


@dataclass(frozen=True)
class Tiny:
    """30 training and 10 test rows of 4 by 4, as IDX content by file name."""

    content: dict[str, bytes]

    def dataset(self, *sources: Source) -> IdxDataset:
        raw = {name: raw_file(name, content) for name, content in self.content.items()}
        return IdxDataset(
            DatasetInfo("tiny", 3, (4, 4), 30, 10, "this test", "CC0"),
            (raw["train-images"], raw["train-labels"]),
            (raw["test-images"], raw["test-labels"]),
            sources,
        )

    def write(self, folder: Path, *, packed: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.content.items():
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content))
            else:
                (folder / name).write_bytes(content)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    rng = np.random.default_rng(0)
    return Tiny(
        {
            f"{part}-{kind}": idx_bytes(rng.integers(0, high, (n, *shape)))
            for part, n in (("train", 30), ("test", 10))
            for kind, high, shape in (("images", 256, (4, 4)), ("labels", 3, ()))
        }
    )


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Point HPO_DATA at an empty place that does not exist yet."""
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


Offer = Callable[..., None]


@pytest.fixture
def offer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Install a package that offers datasets: real metadata on the path, as pip leaves it."""

    def install(name: str, made: object, package: str = "rows_of_ours") -> None:
        site = tmp_path / f"site-{package}"
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[hpo.datasets]\n{name} = {package}:dataset\n")
        if made is not None:  # None: the entry point names a module that is not there
            module = types.ModuleType(package)
            module.dataset = made if callable(made) else lambda: made  # type: ignore[attr-defined]
            monkeypatch.setitem(sys.modules, package, module)
        monkeypatch.syspath_prepend(str(site))

    return install


@dataclass
class Web:
    """A web server of this test: what each path answers, and what was asked for."""

    address: str = ""
    answers: dict[str, bytes | int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    stall: threading.Event = field(default_factory=threading.Event)
    stalls_after: int | None = None


@pytest.fixture
def web() -> Iterator[Web]:
    state = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            answer = state.answers.get(self.path, 404)
            if isinstance(answer, int):
                self.send_error(answer)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer[: state.stalls_after])
            self.wfile.flush()
            if state.stalls_after is not None:
                state.stall.wait(20)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.address = f"http://127.0.0.1:{server.server_address[1]}/"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        state.stall.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def full_web(web: Web, tiny: Tiny) -> Web:
    """A web server that has all of the small dataset."""
    web.answers.update({f"/{n}.gz": gzip.compress(c) for n, c in tiny.content.items()})
    return web


@pytest.fixture(scope="session")
def real_folder() -> Path:
    """Return the data folder (HPO_DATA or the user's cache), with the big datasets in it."""
    hpo.data.fetch("fashion_mnist")
    return hpo.data.fetch("mnist").parent
