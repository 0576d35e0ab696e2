"""A search that was stopped for good, until somebody asks for it again: too much of it fails."""

from __future__ import annotations

import optuna

__all__ = ["halt", "halted", "lift"]

_HALTED = "hpo:halted"


def halt(study: optuna.Study, reason: str) -> None:
    """Let no worker go on with the study."""
    study.set_user_attr(_HALTED, reason)


def halted(study: optuna.Study) -> str | None:
    """Why no worker is to go on; None if they may."""
    return study.user_attrs.get(_HALTED) or None


def lift(study: optuna.Study) -> None:
    """Let workers go on: whoever asks for the search again has mended what failed."""
    if halted(study):
        study.set_user_attr(_HALTED, "")
