"""What a number was measured on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch


def describe() -> str:
    """Machine and versions, in one line."""
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{_processor()}{gpu}, {len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} "
        f"threads, {platform.system()}, Python {platform.python_version()}, torch "
        f"{torch.__version__}, optuna {version('optuna')}, hpo {version('hpo')}"
    )


def _processor() -> str:
    """The model's name, and the matrix units that its flags tell of."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    flags = facts.get("flags", "").split()
    units = [flag for flag in ("avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{facts.get('model name', platform.machine())} ({', '.join(units) or 'no avx512'})"
