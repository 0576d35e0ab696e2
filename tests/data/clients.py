"""Clients of package registries that do as they are told, where no download begins."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.watching import until

NO_WEB: dict[str, Any] = {"http_proxy": "http://127.0.0.1:1", "https_proxy": "http://127.0.0.1:1"}
"""In a process with this environment no download begins; it is refused at once."""


def fake_client(folder: Path, name: str, script: str) -> None:
    """Put a program into `folder`, which is made; it has `os` and `sys`."""
    folder.mkdir(exist_ok=True)
    program = folder / name
    program.write_text(f"#!{sys.executable}\nimport os, sys\n{script}\n")
    program.chmod(0o755)


class HangingClient:
    """A client that starts a process of its own and then hangs, and so does that, for minutes."""

    def __init__(self, folder: Path, name: str) -> None:
        self._file = folder / "pids"
        pids, part = str(self._file), f"{self._file}.part"
        script = (
            "import time\nchild = os.fork()\nif child:\n"
            f"    open({part!r}, 'w').write(f'{{os.getpid()}} {{child}}')\n"
            f"    os.rename({part!r}, {pids!r})\n"
            "time.sleep(300)"
        )
        fake_client(folder, name, script)

    def wait(self) -> None:
        """Until it hangs."""
        until(self._file.exists)

    def wait_for_its_end(self) -> None:
        """Until neither it nor what it started is left; long before they would end themselves."""
        pids = [int(pid) for pid in self._file.read_text().split()]
        assert len(pids) == 2
        until(lambda: not any(map(_lives, pids)), seconds=60)


def _lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
