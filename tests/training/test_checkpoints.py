"""Checkpoints on disk: whole or not at all, whatever dies, fills up, or was tampered with."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.errors import FileError
from hpo.training.checkpoints import Checkpoints
from hpo.training.population import Member, Population, Stopped
from hpo.training.snapshot import Snapshot

from .conftest import Bench
from .test_snapshot import (
    AMIDST,
    BETWEEN,
    after,
    config,
    crowd,
    facts_and_bits,
    go_on,
    restart,
    rough,
)

ROOT = Path(__file__).parents[2]
WHO = {"study": "digits", "trial": 3, "lr": 0.1, "versions": ["2.14", None]}


def process(function: Callable[..., Any], *arguments: object) -> subprocess.Popen[str]:
    """Start a function of this module in a process of its own."""
    code = f"from {__name__} import {function.__name__} as run; run(*{arguments!r})"
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(child: subprocess.Popen[str], expect: int = 0) -> str:
    with child:
        try:
            out, errors = child.communicate(timeout=300)
        finally:
            child.kill()
    assert child.returncode == expect, errors
    return out


def trained(bench: Bench, key: int = 1) -> Population:
    population = bench.population()
    population.add([Member(key, config(), seed=key)])
    population.run_epoch(bench.validation)
    return population


def at(population: Population, epoch: int, batch: int = 0) -> Snapshot:
    """A snapshot that says it was taken there; its tensors differ from place to place."""
    snapshot = population.snapshot(population.members[0])
    snapshot.facts.update(epoch=epoch, batch=batch)
    snapshot.facts["history"][0]["seconds"] = 0.5
    snapshot.tensors["0.model.output.bias"][0] = 1000 * epoch + batch
    return snapshot


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def places(folder: Path) -> list[str]:
    """Epoch and batch of each checkpoint there; nothing else may lie beside them."""
    found = names(folder)
    pairs = [name.removesuffix(".json") for name in found if name.endswith(".json")]
    assert found == sorted(f"{name}{end}" for name in pairs for end in (".json", ".safetensors"))
    return [name.rpartition("-")[0] for name in pairs]


def assert_equal(found: Snapshot | None, expected: Snapshot) -> None:
    assert found is not None
    assert found.facts == expected.facts
    assert found.tensors.keys() == expected.tensors.keys()
    for name, tensor in expected.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message for record in caplog.records if record.levelno >= logging.WARNING]


# Saving, loading, removing


def test_what_is_saved_is_loaded(bench: Bench, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "not" / "yet")
    population = trained(bench)
    assert checkpoints.load(3, WHO) is None
    snapshot = at(population, 1)
    checkpoints.save(3, snapshot, WHO)
    checkpoints.save(4, at(population, 2), WHO)
    assert_equal(checkpoints.load(3, WHO), snapshot)
    assert_equal(Checkpoints(checkpoints.folder).load(4, WHO), at(population, 2))
    assert checkpoints.load(5, WHO) is None


def test_the_newest_two_stay(bench: Bench, tmp_path: Path) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    for place in ((1, 0), (1, 5), (2, 0), (10, 0), (1_000_000, 0)):
        checkpoints.save(3, at(population, *place), WHO)
        assert len(places(tmp_path / "3")) == (1 if place == (1, 0) else 2)
        assert_equal(checkpoints.load(3, WHO), at(population, *place))
    assert places(tmp_path / "3") == ["000010-000000", "1000000-000000"]


def test_one_of_the_same_place_is_replaced(bench: Bench, tmp_path: Path) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    checkpoints.save(3, at(population, 1), WHO)
    checkpoints.save(3, at(population, 2), WHO)
    other = at(trained(bench, key=8), 2)
    checkpoints.save(3, other, {"other": 1})
    assert places(tmp_path / "3") == ["000001-000000", "000002-000000"]
    assert_equal(checkpoints.load(3, {"other": 1}), other)
    assert_equal(checkpoints.load(3, WHO), at(population, 1))
    again = at(population, 1)
    again.facts["seconds"] = 7.0
    checkpoints.save(3, again, WHO)
    assert_equal(checkpoints.load(3, WHO), again)


def test_one_beyond_is_left_to_whoever_saved_it(bench: Bench, tmp_path: Path) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    for epoch in (8, 9, 3, 4, 5):
        checkpoints.save(3, at(population, epoch), WHO)
    assert [place[5] for place in places(tmp_path / "3")] == ["4", "5", "8", "9"]
    assert_equal(checkpoints.load(3, WHO), at(population, 9))
    checkpoints.save(3, at(population, 10), WHO)
    assert places(tmp_path / "3") == ["000009-000000", "000010-000000"]


def test_losses_that_are_no_numbers_come_back(bench: Bench, tmp_path: Path) -> None:
    snapshot = at(trained(bench), 1)
    snapshot.facts["networks"][0]["loss"] = float("inf")
    snapshot.facts["seconds"] = 0.1 + 0.2
    snapshot.facts["history"][0]["train_loss"] = float("-inf")
    snapshot.tensors["0.model.output.bias"][0] = float("nan")
    Checkpoints(tmp_path).save(3, snapshot, WHO)
    found = Checkpoints(tmp_path).load(3, WHO)
    assert found is not None
    assert found.facts == snapshot.facts
    assert found.tensors["0.model.output.bias"].isnan().tolist() == [True] + 9 * [False]


def test_only_that_of_the_same_identity_counts(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    checkpoints.save(3, at(population, 1), WHO)
    checkpoints.save(3, at(population, 2), {**WHO, "trial": 4})
    assert_equal(checkpoints.load(3, WHO), at(population, 1))
    assert_equal(checkpoints.load(3, dict(reversed(WHO.items()))), at(population, 1))
    for other in ({}, {**WHO, "lr": 0.2}, {**WHO, "trial": True}, {**WHO, "more": None}):
        assert checkpoints.load(3, other) is None
    assert not warnings(caplog)


def test_one_of_another_format_does_not_count(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, at(trained(bench), 1), WHO)
    (path,) = (tmp_path / "3").glob("*.json")
    path.write_text(json.dumps({"format": 2, "something": "else"}))
    assert checkpoints.load(3, WHO) is None
    assert not warnings(caplog)


def test_removed_is_removed(bench: Bench, tmp_path: Path) -> None:
    checkpoints, population = Checkpoints(tmp_path / "c"), trained(bench)
    checkpoints.remove(3)
    for key in (3, 33):
        checkpoints.save(key, at(population, 1), WHO)
    checkpoints.remove(3)
    checkpoints.remove(3)
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["33"]
    assert checkpoints.load(3, WHO) is None
    assert checkpoints.load(33, WHO) is not None


# The same bits in another process


def new_run(precision: str) -> tuple[Bench, Population]:
    bench = rough(getattr(torch, precision), augmented=True)
    population = bench.population()
    population.add(crowd())
    return bench, population


def to_the_end(folder: str, precision: str, keys: list[int]) -> None:
    """What the second process does: load, go on, and tell what it came to."""
    bench, _ = new_run(precision)
    found = [(key, Checkpoints(Path(folder)).load(key, WHO)) for key in keys]
    population = restart(bench, [(key, one) for key, one in found if one is not None])
    go_on(bench, population)
    print(digest(population))


def digest(population: Population) -> str:
    return hashlib.sha256(repr(facts_and_bits(population)).encode()).hexdigest()


@pytest.mark.parametrize(("precision", "batches"), [("float32", AMIDST), ("bfloat16", BETWEEN)])
def test_another_process_comes_to_the_same_bits(
    tmp_path: Path, precision: str, batches: int
) -> None:
    bench, never_stopped = new_run(precision)
    go_on(bench, never_stopped)
    _, population = new_run(precision)
    with pytest.raises(Stopped):
        go_on(bench, population, after(batches))
    keys = sorted(member.key for member in population.members)
    for member in population.members:
        Checkpoints(tmp_path).save(member.key, population.snapshot(member), WHO)
    second = process(to_the_end, str(tmp_path), precision, keys)
    assert finish(second).strip() == digest(never_stopped)
    assert digest(population) != digest(never_stopped)


# Damage


def cut(path: Path, count: int = 1) -> None:
    path.write_bytes(path.read_bytes()[:-count])


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def claim(path: Path, **changes: Any) -> None:
    """Change what a JSON says, and its sum with it."""
    about = json.loads(path.read_text())
    del about["sha256"]
    about |= changes
    text = json.dumps(about, sort_keys=True).encode()
    path.write_text(json.dumps({**about, "sha256": hashlib.sha256(text).hexdigest()}))


def claim_facts(path: Path, **changes: Any) -> None:
    claim(path, facts={**json.loads(path.read_text())["facts"], **changes})


def exchange(path: Path, tensors: bytes) -> None:
    """Put other tensors there, with a JSON that vouches for them."""
    path.with_suffix(".safetensors").write_bytes(tensors)
    claim(path, tensors={"size": len(tensors), "sha256": hashlib.sha256(tensors).hexdigest()})


def tensors_of(path: Path) -> Path:
    return path.with_suffix(".safetensors")


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


class Canary:
    """Leaves a file behind where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def pickled(path: Path) -> bytes:
    return pickle.dumps(Canary(path.parent.parent / "canary"))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "tensors cut by one byte": lambda path: cut(tensors_of(path)),
    "tensors with one wrong bit": lambda path: flip(tensors_of(path), -100),
    "header with one wrong bit": lambda path: flip(tensors_of(path), 20),
    "tensors empty": lambda path: tensors_of(path).write_bytes(b""),
    "tensors missing": lambda path: tensors_of(path).unlink(),
    "tensors a folder": lambda path: make_folder(tensors_of(path)),
    "tensors a pickle": lambda path: tensors_of(path).write_bytes(pickled(path)),
    "tensors a pickle that is vouched for": lambda path: exchange(path, pickled(path)),
    "tensors without a header": lambda path: exchange(path, b"\xff" * 64),
    "facts cut by one byte": cut,
    "facts cut in half": lambda path: cut(path, path.stat().st_size // 2),
    "facts empty": lambda path: path.write_text(""),
    "facts no text": lambda path: path.write_bytes(b"\xff\xfe\x00"),
    "facts a list": lambda path: path.write_text("[]"),
    "facts an empty object": lambda path: path.write_text("{}"),
    "facts nested without end": lambda path: path.write_text("[" * 200_000),
    "facts a number without end": lambda path: path.write_text("1" * 10_000),
    "one digit changed": lambda path: path.write_text(
        path.read_text().replace('"steps": 6', '"steps": 7')
    ),
    "no facts": lambda path: claim(path, facts=None),
    "foreign facts": lambda path: claim(path, facts={"config": {}}),
    "no tensors": lambda path: claim(path, tensors=None),
    "more than is known": lambda path: claim(path, more=1),
    "another place": lambda path: claim_facts(path, epoch=7),
    "another kind of fact": lambda path: claim_facts(path, seed="11"),
    "a network that does not fit": lambda path: claim_facts(
        path, config={**json.loads(path.read_text())["facts"]["config"], "model": {}}
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_named_and_the_one_before_it_counts(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    for epoch in (1, 2):
        checkpoints.save(3, at(population, epoch), WHO)
    (newest,) = (tmp_path / "3").glob("000002-*.json")
    before = newest.read_bytes(), tensors_of(newest).read_bytes()
    DAMAGE[damage](newest)
    if tensors_of(newest).is_file():
        assert before != (newest.read_bytes(), tensors_of(newest).read_bytes())

    assert_equal(checkpoints.load(3, WHO), at(population, 1))
    (warning,) = warnings(caplog)
    assert str(newest) in warning
    assert "damaged" in warning
    assert len(warning) < 500
    assert not (tmp_path / "canary").exists()


def test_no_whole_one_is_none(
    bench: Bench, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    for epoch in (1, 2):
        checkpoints.save(3, at(population, epoch), WHO)
    for path in (tmp_path / "3").glob("*.safetensors"):
        cut(path)
    assert checkpoints.load(3, WHO) is None
    assert len(warnings(caplog)) == 2


def test_a_damaged_one_is_not_among_the_two_that_stay(bench: Bench, tmp_path: Path) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    for epoch in (1, 2):
        checkpoints.save(3, at(population, epoch), WHO)
    (second,) = (tmp_path / "3").glob("000002-*.safetensors")
    cut(second)
    checkpoints.save(3, at(population, 3), WHO)
    assert places(tmp_path / "3") == ["000001-000000", "000003-000000"]
    # And one that was damaged is whole again once that place is saved again.
    (third,) = (tmp_path / "3").glob("000003-*.safetensors")
    cut(third)
    assert_equal(checkpoints.load(3, WHO), at(population, 1))
    checkpoints.save(3, at(population, 3), WHO)
    assert_equal(checkpoints.load(3, WHO), at(population, 3))


def test_files_of_others_are_left_alone(bench: Bench, tmp_path: Path) -> None:
    checkpoints, population = Checkpoints(tmp_path), trained(bench)
    (tmp_path / "3").mkdir()
    others = ["notes.txt", "9-9-x.json", "000001-000000.json", ".hidden.json"]
    for name in others:
        (tmp_path / "3" / name).write_text("{}")
    for epoch in (1, 2, 3):
        checkpoints.save(3, at(population, epoch), WHO)
    checkpoints.sweep()
    assert_equal(checkpoints.load(3, WHO), at(population, 3))
    assert set(others) < set(names(tmp_path))
    assert len(names(tmp_path)) == len(others) + 4


# A disk that refuses


def save_on_a_full_disk(folder: str) -> None:
    """Files may have 64 KiB here, as on a disk with no more room than that."""
    import resource

    bench = rough(torch.float32)
    population = bench.population()
    large = config(model={"widths": (200, 200)})
    population.add([Member(1, large, 1)])
    population.run_epoch(bench.validation)
    checkpoints = Checkpoints(Path(folder))
    checkpoints.save(3, at(population, 1), WHO)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, resource.RLIM_INFINITY))
    try:
        checkpoints.save(3, at(population, 2), WHO)
    except FileError as error:
        print(error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert_equal(checkpoints.load(3, WHO), at(population, 1))
        sys.exit(error.exit_code)


def test_a_full_disk_is_told_of_and_harms_nothing(tmp_path: Path) -> None:
    message = finish(process(save_on_a_full_disk, str(tmp_path)), expect=74)
    assert re.fullmatch(
        rf"{tmp_path}/3/000002-000000-\w+\.json: File too large, [\d,]+ bytes free; "
        r"make room, then run the same command again\n",
        message,
    )
    assert places(tmp_path) == ["000001-000000"]
    found = Checkpoints(tmp_path).load(3, WHO)
    assert found is not None
    assert found.epoch == 1


def test_a_folder_that_is_none_is_told_of(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "c").write_text("in the way")
    checkpoints = Checkpoints(tmp_path / "c")
    pattern = rf"{tmp_path}/c/3.*: Not a directory, [\d,]+ bytes free; make it writable, then run"
    with pytest.raises(FileError, match=pattern):
        checkpoints.save(3, at(trained(bench), 1), WHO)
    with pytest.raises(FileError, match=pattern):
        checkpoints.load(3, WHO)
    with pytest.raises(FileError, match=pattern):
        checkpoints.remove(3)
    checkpoints.sweep()


# Those who die, and those who work beside


def save_and_die(folder: str, step: int) -> None:
    """Be killed when the disk is asked, for the step-th time, to keep what it was given."""
    population = trained(rough(torch.float32), key=8)
    left, sync = iter(range(1, step)), os.fsync

    def die(descriptor: int) -> None:
        if next(left, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = die  # type: ignore[assignment]
    Checkpoints(Path(folder)).save(3, at(population, 2), WHO)


@pytest.mark.parametrize(
    ("step", "first"), [(1, False), (2, False), (3, False), (3, True)], ids=str
)
def test_whoever_is_killed_while_saving_leaves_a_whole_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: int, first: bool
) -> None:
    checkpoints = Checkpoints(tmp_path)
    old = at(trained(rough(torch.float32)), 1)
    if not first:
        checkpoints.save(3, old, WHO)
    finish(process(save_and_die, str(tmp_path), step), expect=-signal.SIGKILL)
    found = checkpoints.load(3, WHO)
    if first:
        assert found is None
    else:
        assert_equal(found, old if step < 3 else at(trained(rough(torch.float32), key=8), 2))
    checkpoints.sweep()
    assert not [name for name in names(tmp_path) if name.startswith(".")]
    # Tensors without facts go once there are newer ones.
    population = trained(rough(torch.float32))
    for epoch in (3, 4):
        checkpoints.save(3, at(population, epoch), WHO)
    assert places(tmp_path) == ["000003-000000", "000004-000000"]
    assert not warnings(caplog)


def test_a_sweep_spares_who_is_still_writing(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, snapshot = Checkpoints(tmp_path), at(trained(bench), 1)
    writing, swept, sync = threading.Event(), threading.Event(), os.fsync

    def wait(descriptor: int) -> None:
        if any(name.startswith(".draft-") for name in names(tmp_path)):
            writing.set()
            assert swept.wait(60)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", wait)
    writer = threading.Thread(target=checkpoints.save, args=(3, snapshot, WHO))
    writer.start()
    assert writing.wait(60)
    before = names(tmp_path)
    Checkpoints(tmp_path).sweep()
    assert names(tmp_path) == before != []
    swept.set()
    writer.join()
    assert_equal(checkpoints.load(3, WHO), snapshot)
    assert places(tmp_path) == ["000001-000000"]


def test_what_was_half_removed_is_swept(bench: Bench, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.sweep()
    checkpoints.save(3, at(trained(bench), 1), WHO)
    (tmp_path / "3").rename(tmp_path / ".removed-3-0123abcd")
    checkpoints.sweep()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_removed_by_another_is_made_again(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints, snapshot = Checkpoints(tmp_path), at(trained(bench), 1)
    left, sync = iter(range(3)), os.fsync

    def remove(descriptor: int) -> None:
        if next(left, None) is not None:
            Checkpoints(tmp_path).remove(3)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", remove)
    checkpoints.save(3, snapshot, WHO)
    assert next(left, None) is None
    assert_equal(checkpoints.load(3, WHO), snapshot)


def save_many(folder: str, seed: int, count: int) -> None:
    population = trained(rough(torch.float32), key=seed)
    for epoch in range(1, count + 1):
        for batch in (1, 3):
            Checkpoints(Path(folder)).save(3, at(population, epoch, batch), WHO)
        Checkpoints(Path(folder)).sweep()


def test_several_may_save_at_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As a worker does that was taken for dead, and the one that has its trial now."""
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(3, at(trained(rough(torch.float32)), 1), WHO)
    children = [process(save_many, str(tmp_path), seed, 25) for seed in (1, 2, 3)]
    seen: set[tuple[int, int] | None] = set()
    while any(child.poll() is None for child in children):
        found = checkpoints.load(3, WHO)
        seen.add((found.epoch, found.batch) if found else None)
        time.sleep(0.002)
    for child in children:
        finish(child)
    assert None not in seen
    assert len(seen) > 2
    assert places(tmp_path) == ["000025-000001", "000025-000003"]
    assert not warnings(caplog)
