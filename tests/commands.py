"""Running `hpo` as a person does: as a process, in a folder of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HPO = [sys.executable, "-m", "hpo"]


def environment(**extra: str) -> dict[str, str]:
    """This process's environment, without what would change where hpo looks."""
    kept = {key: value for key, value in os.environ.items() if key != "HPO_STORAGE"}
    return {**kept, "PYTHONWARNINGS": "error", **extra}


def hpo(
    folder: Path, *arguments: str, expect: int = 0, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and hold its exit code to `expect`."""
    result = subprocess.run(
        [*HPO, *arguments],
        cwd=folder,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    shown = f"hpo {' '.join(arguments)}\n{result.stdout}\n{result.stderr}"
    assert result.returncode == expect, shown
    assert "Traceback" not in result.stderr, shown
    return result


def start(folder: Path, *arguments: str, **extra: str) -> subprocess.Popen[str]:
    """Start a command, for tests that stop or kill it."""
    return subprocess.Popen(
        [*HPO, *arguments],
        cwd=folder,
        env=environment(**extra),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def read(folder: Path, *arguments: str) -> Any:
    """What a command prints as JSON."""
    return json.loads(hpo(folder, *arguments, "--format", "json").stdout)
