"""Where files come from: each source alone, and what happens when one after another fails."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import hpo.data
from hpo.data import DatasetInfo, IdxDataset
from hpo.data.files import write_checked
from hpo.data.sources import (
    DebianPackage,
    Download,
    NpmPackage,
    SourceError,
    torchvision_addresses,
)
from hpo.errors import DataError, FileError
from tests.watching import until

from .conftest import Offer, Tiny, Web, raw_file


def download(web: Web, silence: float = 5.0, total: float = 20.0) -> Download:
    return Download("web server of this test", lambda: [web.address], silence, total)


def test_a_download_lands_whole_and_mapped(
    offer: Offer, tiny: Tiny, data_home: Path, full_web: Web
) -> None:
    offer("tiny", tiny.dataset(download(full_web)))
    rows = hpo.data.load_train("tiny")
    assert rows.images.tobytes() == tiny.content["train-images"][16:]
    assert sorted(path.name for path in (data_home / "tiny").iterdir()) == sorted(tiny.content)
    asked = len(full_web.asked)
    hpo.data.load_test("tiny")
    hpo.data.fetch("tiny")
    assert len(full_web.asked) == asked == 4


def test_files_that_lie_there_are_not_fetched_again(
    offer: Offer, tiny: Tiny, data_home: Path, full_web: Web
) -> None:
    offer("tiny", tiny.dataset(download(full_web)))
    tiny.write(data_home / "tiny")
    (data_home / "tiny" / "test-labels").unlink()
    hpo.data.fetch("tiny")
    assert full_web.asked == ["/test-labels.gz"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (404, "404"),
        (500, "500"),
        (b"<html>sign in here</html>", "Not a gzipped file"),
        (gzip.compress(b"other"), "expected 38 bytes with sha256"),
        (gzip.compress(bytes(1000)), "expected 38 bytes, found more"),
        (gzip.compress(bytes(30))[:-8], "end-of-stream"),
        (b"", "expected 38 bytes"),
    ],
    ids=["404", "500", "foreign", "other", "larger", "truncated", "empty"],
)
def test_a_bad_answer_is_told_and_the_next_source_delivers(
    tiny: Tiny, tmp_path: Path, full_web: Web, answer: bytes | int, reason: str
) -> None:
    full_web.answers["/bad/train-labels.gz"] = answer
    full_web.answers["/bad/train-images.gz"] = gzip.compress(tiny.content["train-images"])
    bad = Download("bad server", lambda: [f"{full_web.address}bad/"], 5.0)
    with pytest.raises(DataError) as caught:
        tiny.dataset(bad).fetch(tmp_path / "alone")
    assert "the bad server (" in str(caught.value)
    assert reason in str(caught.value)
    assert list((tmp_path / "alone").iterdir()) == []
    tiny.dataset(bad, download(full_web)).fetch(tmp_path / "tiny")
    assert len(tiny.dataset().load_train(tmp_path / "tiny")) == 30
    # What the bad server gave and was right is kept.
    assert "/train-images.gz" not in full_web.asked


def test_a_second_address_completes_what_the_first_began(
    tiny: Tiny, tmp_path: Path, full_web: Web
) -> None:
    full_web.answers["/half/train-images.gz"] = full_web.answers["/train-images.gz"]
    both = Download("both", lambda: [f"{full_web.address}half/", full_web.address])
    tiny.dataset(both).fetch(tmp_path / "tiny")
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == sorted(tiny.content)
    assert "/train-images.gz" not in full_web.asked


def test_a_source_without_end_is_cut_off(tiny: Tiny, tmp_path: Path) -> None:
    class Endless:
        def read(self, size: int = 1, /) -> bytes:
            return bytes(size)

    raw = raw_file("train-images", tiny.content["train-images"])
    with pytest.raises(DataError, match="expected 496 bytes, found more"):
        write_checked(Endless(), raw, tmp_path / "train-images")
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_falls_silent_is_given_up(tiny: Tiny, tmp_path: Path, full_web: Web) -> None:
    full_web.stalls_after = 20
    start = time.monotonic()
    with pytest.raises(DataError, match="timed out"):
        tiny.dataset(download(full_web, silence=0.3)).fetch(tmp_path)
    assert time.monotonic() - start < 15  # the server is silent for twenty seconds


def test_all_downloads_together_have_a_limit(tiny: Tiny, tmp_path: Path, full_web: Web) -> None:
    with pytest.raises(DataError, match="too slow"):
        tiny.dataset(download(full_web, total=0.0)).fetch(tmp_path)


def test_only_web_addresses_are_opened(tiny: Tiny, tmp_path: Path) -> None:
    tiny.write(tmp_path / "secret", packed=True)
    local = Download("local", lambda: [f"file://{tmp_path}/secret/"])
    with pytest.raises(DataError, match="not a web address"):
        tiny.dataset(local).fetch(tmp_path / "tiny")


def test_torchvision_knows_the_addresses() -> None:
    for name in ("MNIST", "FashionMNIST"):
        addresses = torchvision_addresses(name)()
        assert addresses
        assert all(a.startswith("http") and a.endswith("/") for a in addresses)


def test_no_torchvision_is_one_more_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(SourceError, match="torchvision cannot be imported"):
        torchvision_addresses("MNIST")()


def test_no_source_left_is_one_message(
    offer: Offer, tiny: Tiny, data_home: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(data_home / "no clients"))
    sources = (
        download(web),
        NpmPackage("tiny-rows", "1.0.0", "package/"),
        DebianPackage("tiny-rows", "usr/share/"),
    )
    offer("tiny", tiny.dataset(*sources))
    with pytest.raises(DataError) as caught:
        hpo.data.load_train("tiny")
    message = str(caught.value)
    assert message.startswith("tiny: no source has it; tried the data folder (no train-images, ")
    assert "the web server of this test (HTTP Error 404" in message
    assert "the npm package tiny-rows 1.0.0 (npm is not installed)" in message
    assert "the Debian package tiny-rows (apt-get is not installed)" in message
    assert f"put {', '.join(tiny.content)}" in message
    assert f"into {data_home / 'tiny'} and run" in message
    assert "\n" not in message
    assert list((data_home / "tiny").iterdir()) == []


_FETCH = """
import resource, sys
from pathlib import Path
from hpo.data import DatasetInfo, IdxDataset, RawFile
from hpo.data.sources import Download
from hpo.errors import HpoError

address, folder, limit, *files = sys.argv[1:]
if int(limit):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(limit), int(limit)))
raw = [RawFile(n, int(s), h) for n, s, h in (file.split(":") for file in files)]
info = DatasetInfo("tiny", 3, (4, 4), 30, 10, "", "")
dataset = IdxDataset(info, (raw[0], raw[1]), (raw[2], raw[3]),
                     (Download("web", lambda: [address]),))
try:
    dataset.fetch(Path(folder))
except HpoError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def start_fetch(web: Web, tiny: Tiny, folder: Path, limit: int = 0) -> subprocess.Popen[str]:
    raws = [raw_file(name, tiny.content[name]) for name in sorted(tiny.content, reverse=True)]
    order = sorted(raws, key=lambda raw: (not raw.name.startswith("train"), raw.name))
    files = [f"{raw.name}:{raw.size}:{raw.sha256}" for raw in order]
    command = [sys.executable, "-c", _FETCH, web.address, str(folder), str(limit), *files]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def start_fetch_that_stalls(web: Web, tiny: Tiny, folder: Path) -> subprocess.Popen[str]:
    """One that has asked for a file, and gets no more than its beginning."""
    web.stalls_after = 30
    fetch = start_fetch(web, tiny, folder)
    until(lambda: bool(web.asked), seconds=60)
    return fetch


def test_two_processes_may_fetch_at_once(tiny: Tiny, tmp_path: Path, full_web: Web) -> None:
    folder = tmp_path / "tiny"
    fetches = [start_fetch(full_web, tiny, folder) for _ in range(3)]
    assert [fetch.communicate(timeout=60)[0] for fetch in fetches] == ["", "", ""]
    assert [fetch.returncode for fetch in fetches] == [0, 0, 0]
    assert sorted(path.name for path in folder.iterdir()) == sorted(tiny.content)
    assert len(tiny.dataset().load_train(folder)) == 30


def test_a_killed_fetch_leaves_nothing_half_written(
    tiny: Tiny, tmp_path: Path, full_web: Web
) -> None:
    folder = tmp_path / "tiny"
    fetch = start_fetch_that_stalls(full_web, tiny, folder)
    fetch.send_signal(signal.SIGKILL)
    fetch.communicate(timeout=30)
    assert [path.name for path in folder.iterdir() if not path.name.startswith(".")] == []
    assert len(list(folder.glob(".fetch-*"))) == 1
    full_web.stall.set()
    full_web.stalls_after = None
    tiny.dataset(download(full_web)).fetch(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted(tiny.content)


def test_the_work_of_a_process_that_lives_is_left_alone_however_old(
    tiny: Tiny, tmp_path: Path, full_web: Web
) -> None:
    folder = tmp_path / "tiny"
    slow = start_fetch_that_stalls(full_web, tiny, folder)
    (work,) = folder.glob(".fetch-*")
    make_old(work)
    with pytest.raises(DataError, match="no source has it"):
        tiny.dataset().fetch(folder)
    assert list(folder.iterdir()) == [work]
    slow.kill()
    slow.communicate(timeout=30)


def test_the_work_of_another_machine_or_of_nobody_is_removed_when_it_is_old(
    tiny: Tiny, tmp_path: Path, full_web: Web
) -> None:
    folder = tmp_path / "tiny"
    old, new = folder / ".fetch-old", folder / ".fetch-new"
    for work in (old, new):
        work.mkdir(parents=True)
    (new / "owner").write_text("elsewhere:1:1-0a-1-1")
    make_old(old)
    tiny.dataset(download(full_web)).fetch(folder)
    assert sorted(path.name for path in folder.iterdir()) == sorted([new.name, *tiny.content])


def make_old(folder: Path) -> None:
    long_ago = time.time() - 86_400
    os.utime(folder, (long_ago, long_ago))


def test_a_full_disk_is_a_file_error_and_leaves_nothing(
    tiny: Tiny, tmp_path: Path, full_web: Web
) -> None:
    fetch = start_fetch(full_web, tiny, tmp_path / "tiny", limit=100)  # bytes in any one file
    message = fetch.communicate(timeout=60)[0]
    assert fetch.returncode == 74
    assert message.startswith(str(tmp_path / "tiny"))
    assert "File too large" in message
    assert "bytes free" in message
    assert list((tmp_path / "tiny").iterdir()) == []


def test_too_little_room_is_refused_before_anything_is_asked(
    tmp_path: Path, full_web: Web
) -> None:
    raw = hpo.data.RawFile("huge", 1 << 60, "")
    info = DatasetInfo("huge", 3, (4, 4), 1, 1, "", "")
    huge = IdxDataset(info, (raw, raw), (raw, raw), (download(full_web),))
    with pytest.raises(FileError, match=r"needs about \d+ bytes .*, \d+ bytes are free"):
        huge.fetch(tmp_path / "huge")
    assert full_web.asked == []


def test_a_data_folder_that_cannot_be_made_is_a_file_error(
    offer: Offer, tiny: Tiny, tmp_path: Path, full_web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HPO_DATA", str(tmp_path / "file" / "data"))
    offer("tiny", tiny.dataset(download(full_web)))
    with pytest.raises(FileError) as caught:
        hpo.data.fetch("tiny")
    assert str(caught.value).startswith(f"{tmp_path / 'file' / 'data' / 'tiny'}: Not a directory")
    assert "bytes free" in str(caught.value)
    assert full_web.asked == []


def test_many_threads_may_load_at_once(
    offer: Offer, tiny: Tiny, data_home: Path, full_web: Web
) -> None:
    offer("tiny", tiny.dataset(download(full_web)))
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda: counts.append(len(hpo.data.load_train("tiny"))))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [30] * 6
