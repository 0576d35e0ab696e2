"""A dataset's own archive, a `tar.gz`, in the data folder or under the address it is published at.

It is read as a stream: nothing but the wanted files is written, and what follows the last of them
is neither downloaded nor unpacked.
"""

from __future__ import annotations

import gzip
import hashlib
import http.client
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hpo.data.files import Readable, how_to_replace, open_regular, write_summed
from hpo.data.sources import Keep, SourceError, Timed, take_members
from hpo.errors import DataError

__all__ = ["ArchiveDownload", "Published", "torchvision_archive", "unpack"]

_MOST_UNPACKED = 4 << 30  # bytes read out of an archive, whatever it claims


@dataclass(frozen=True)
class Published:
    """Where an archive is published, and what is known of the files in it.

    Attributes:
        address: of the archive.
        md5: the sums that its authors give, 32 hexadecimal digits, by the files' names.
    """

    address: str
    md5: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ArchiveDownload:
    """An archive under a web address.

    Attributes:
        label: names the source for a person.
        published: returns what to fetch; called only when it is wanted.
        silence: seconds without an answer, or without a byte, until it is given up.
        total: seconds for everything together.
    """

    label: str
    published: Callable[[], Published]
    silence: float = 15.0
    total: float = 3600.0

    def deliver(self, wanted: Sequence[str], inside: str, work: Path) -> None:
        """Write the wanted files, which lie in the archive's folder `inside`, into `work`.

        Raises:
            SourceError: the archive cannot be had, is cut, or holds other files than published.
            FileError: the disk refuses.
        """
        end = time.monotonic() + self.total
        published = self.published()
        if not published.address.startswith(("http://", "https://")):
            raise SourceError("not a web address")
        try:
            # Only http and https come this far.
            with urllib.request.urlopen(published.address, timeout=self.silence) as answer:  # noqa: S310
                _take(Timed(answer, end), wanted, inside, work, published.md5)
        except (OSError, http.client.HTTPException) as error:
            raise SourceError(str(error) or type(error).__name__) from error


def torchvision_archive(dataset: str) -> Callable[[], Published]:
    """Return a function that asks torchvision where a dataset's archive is published.

    Args:
        dataset: a class in `torchvision.datasets` with `url`, `train_list` and `test_list`.
    """

    def published() -> Published:
        try:
            from torchvision import datasets  # slow to import: only when it is needed
        except Exception as error:  # a build that does not fit torch raises anything
            raise SourceError(
                f"torchvision cannot be imported ({type(error).__name__})"
            ) from error
        known = getattr(datasets, dataset, None)
        files = [*getattr(known, "train_list", []), *getattr(known, "test_list", [])]
        if known is None or not files:
            raise SourceError(f"this torchvision knows no {dataset}")
        return Published(str(known.url), dict(files))

    return published


def unpack(archive: Path, wanted: Sequence[str], inside: str, work: Path) -> dict[str, str]:
    """Write the wanted files of an archive in a dataset's folder into `work`.

    Args:
        wanted: names of files in the archive's folder `inside`.

    Returns:
        The MD5 sum of each file, 32 hexadecimal digits.

    Raises:
        DataError: it is cut, damaged, or lacks a file.
        FileError: the disk refuses.
    """
    with open_regular(archive) as file:
        try:
            return _take(file, wanted, inside, work, {})
        except SourceError as error:
            raise DataError(
                f"{archive}: cut or foreign: {error}; {how_to_replace(archive)}"
            ) from error


def _take(
    packed: Readable, wanted: Sequence[str], inside: str, work: Path, md5: Mapping[str, str]
) -> dict[str, str]:
    sums: dict[str, str] = {}
    members = {f"{inside}/{name}": _keep(work / name, md5.get(name), sums) for name in wanted}
    content = gzip.GzipFile(fileobj=packed)  # type: ignore[call-overload]
    take_members(content, members, _MOST_UNPACKED)
    return sums


def _keep(target: Path, expected: str | None, sums: dict[str, str]) -> Keep:
    """Write a member to `target`, if it is whole and has the sum, which is noted."""

    def keep(member: Readable, size: int) -> None:
        digest = hashlib.md5(usedforsecurity=False)  # authors publish no better one
        found = write_summed(member, target, size, digest)
        if found == size and expected in (None, digest.hexdigest()):
            sums[target.name] = digest.hexdigest()
            return
        target.unlink()
        if found != size:
            raise SourceError(f"it ends inside {target.name}")
        raise SourceError(
            f"its {target.name} has the MD5 sum {digest.hexdigest()}, not {expected}"
        )

    return keep
