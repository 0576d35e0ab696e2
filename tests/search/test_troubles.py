"""How much a trial may go through before it fails, and what the reason says then."""

from __future__ import annotations

from functools import reduce

import optuna
import pytest

from hpo.search.troubles import TROUBLES, Troubles
from hpo.training.mishaps import Mishap

ERROR = Mishap("ValueError: no", memory=False)
MEMORY = Mishap("out of memory", memory=True)


def after(mishaps: list[tuple[Mishap, bool]], retries: int = 2) -> Troubles:
    """What a trial has been through: mishaps, each alone or in company."""
    return reduce(
        lambda troubles, one: troubles.after(one[0], alone=one[1], retries=retries),
        mishaps,
        Troubles(),
    )


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_an_exception_is_tried_again_so_often_and_then_fails(retries: int) -> None:
    assert after([(ERROR, True)] * retries, retries).verdict is None
    verdict = after([(ERROR, True)] * (retries + 1), retries).verdict
    assert verdict is not None
    assert verdict.startswith("ValueError: no")
    assert (f"tried {retries + 1} times" in verdict) == (retries > 0)


def test_in_company_an_exception_is_nobodys() -> None:
    assert after([(ERROR, False)] * 50) == Troubles()


def test_memory_is_tried_once_more() -> None:
    assert after([(MEMORY, True)]).verdict is None
    assert after([(MEMORY, True), (MEMORY, True)]).verdict == "out of memory, also on its own"
    # In company it was tried before.
    assert after([(MEMORY, False), (MEMORY, False)]).verdict is None
    assert after([(MEMORY, False), (MEMORY, True)]).verdict is not None


def test_deaths_count_while_the_trial_does_not_get_on() -> None:
    troubles = Troubles()
    for epoch in (3, 4, 5, 6, 7, 8, 9):
        troubles = troubles.after_death(epoch)
        assert not troubles.suspect
        assert troubles.verdict is None
    seen = []
    for _ in range(5):
        troubles = troubles.after_death(9)
        seen.append((troubles.deaths, troubles.suspect, troubles.verdict is not None))
    assert seen == [(2, False, False), *((n, True, False) for n in (3, 4, 5)), (6, True, True)]
    assert "6 workers in a row died while it trained epoch 10" in str(troubles.verdict)


def test_they_are_kept_with_the_trial() -> None:
    study = optuna.create_study()
    trial = study.ask()
    assert Troubles.of(study.trials[0]) == Troubles()
    troubles = after([(ERROR, True), (MEMORY, False)]).after_death(4)
    trial.set_user_attr(TROUBLES, troubles.to_dict())
    assert Troubles.of(study.trials[0]) == troubles
