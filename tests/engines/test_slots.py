"""What each worker finds in its environment, on machines that are not here."""

from __future__ import annotations

import subprocess
import sys

import pytest

from hpo.engines.slots import Slot, auto_workers, choose_gpus, sharers, slots
from hpo.errors import UsageError

GIB = 2**30


def test_workers_on_the_cpu_share_the_cores_and_see_no_gpu() -> None:
    chosen = slots(3, [], None, cores=8)
    assert [(slot.name, slot.gpu, slot.threads) for slot in chosen] == [
        ("1", None, 2),
        ("2", None, 2),
        ("3", None, 2),
    ]
    for slot in chosen:
        found = slot.environment({"CUDA_VISIBLE_DEVICES": "0,1", "HOME": "/home/x"})
        assert found["CUDA_VISIBLE_DEVICES"] == ""
        assert found["OMP_NUM_THREADS"] == "2"
        assert found["HPO_WORKER_NAME"] == slot.name
        assert found["HOME"] == "/home/x"


def test_every_worker_has_a_thread() -> None:
    assert {slot.threads for slot in slots(16, [], None, cores=2)} == {1}


@pytest.mark.parametrize(
    ("inherited", "threads"), [("1", "1"), ("64", "4"), ("", "4"), ("x", "4")]
)
def test_a_smaller_number_of_threads_that_was_asked_for_stays(
    inherited: str, threads: str
) -> None:
    [slot] = slots(1, [], None, cores=4)
    assert slot.environment({"OMP_NUM_THREADS": inherited})["OMP_NUM_THREADS"] == threads


def test_workers_are_spread_over_the_gpus() -> None:
    chosen = slots(4, ["2", "GPU-8f6a"], 2, cores=16)
    seen = [slot.environment({})["CUDA_VISIBLE_DEVICES"] for slot in chosen]
    assert seen == ["2", "GPU-8f6a", "2", "GPU-8f6a"]
    assert {slot.threads for slot in chosen} == {4}
    assert [slot.gpu for slot in slots(3, ["0", "1"], None, cores=1)] == ["0", "1", "0"]


def test_a_worker_knows_how_many_share_its_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(slot: Slot) -> int:
        for name, value in slot.environment({}).items():
            monkeypatch.setenv(name, value)
        return sharers()

    assert sharers() == 1
    assert [known(slot) for slot in slots(5, ["0", "1"], None, cores=8)] == [3, 2, 3, 2, 3]
    assert [known(slot) for slot in slots(3, [], None, cores=8)] == [1, 1, 1]


def test_more_workers_than_the_gpus_have_room_for_are_refused() -> None:
    with pytest.raises(UsageError, match="--workers-per-gpu"):
        slots(5, ["0", "1"], 2, cores=8)


def test_a_worker_sees_its_gpu_alone() -> None:
    """Down to the variable that torch reads, in a process of the slot's environment."""
    code = "import os; print(os.environ['CUDA_VISIBLE_DEVICES'], os.environ['OMP_NUM_THREADS'])"
    for slot in slots(2, ["MIG-3f1e", "5"], 1, cores=6):
        said = subprocess.run(
            [sys.executable, "-c", code], env=slot.environment({}), capture_output=True, check=True
        ).stdout.decode()
        assert said == f"{slot.gpu} 3\n"


def test_auto_fills_the_gpus() -> None:
    few = {"cores": 2, "memory": GIB, "trials": 100}
    assert auto_workers(["0", "1"], None, **few) == 2
    assert auto_workers(["0", "1"], 3, **few) == 6
    assert auto_workers(["0", "1"], 3, cores=2, memory=GIB, trials=4) == 4


@pytest.mark.parametrize(
    ("cores", "memory", "trials", "workers"),
    [
        (8, 64 * GIB, 100, 8),
        (8, 5 * GIB, 100, 4),
        (8, 64 * GIB, 3, 3),
        (8, GIB // 2, 100, 1),
        (8, 64 * GIB, 0, 1),
    ],
)
def test_auto_on_the_cpu_has_cores_memory_and_trials_in_mind(
    cores: int, memory: int, trials: int, workers: int
) -> None:
    assert auto_workers([], None, cores=cores, memory=memory, trials=trials) == workers


def test_gpus_by_index_mean_those_that_this_process_sees() -> None:
    assert choose_gpus("all", ["4", "6"]) == ["4", "6"]
    assert choose_gpus("1", ["4", "6"]) == ["6"]
    assert choose_gpus("1, 0", ["4", "6"]) == ["6", "4"]
    assert choose_gpus("none", ["4", "6"]) == []


def test_gpus_by_name() -> None:
    uuid = "GPU-8f6a1b2c-0000-1111-2222-333344445555"
    mig = "MIG-c6d4f1ef-42e4-5de3-91c7-45d71c87eb3f"
    old = "MIG-GPU-8f6a1b2c-0000-1111-2222-333344445555/1/0"
    assert choose_gpus(f"{uuid},{mig},{old}", ["0", "1"]) == [uuid, mig, old]
    assert choose_gpus("GPU-8f6a", [uuid]) == ["GPU-8f6a"]
    assert choose_gpus("0", [mig]) == [mig]


@pytest.mark.parametrize(
    ("asked", "visible", "words"),
    [
        ("7", [], "there is no GPU '7'; torch finds no GPU here"),
        ("7", ["0"], "there is no GPU '7'; there is 0"),
        ("2", ["4", "6"], "there are 0 (4), 1 (6)"),
        ("-1", ["0"], "there is no GPU '-1'"),
        ("0,,1", ["0", "1"], "there is no GPU ''"),
        ("GPU-8f6a", [], "there is no GPU 'GPU-8f6a'"),
        ("GPU-8f6a", ["GPU-1234"], "there is no GPU 'GPU-8f6a'"),
        ("GPU-8f6a b", ["0"], "there is no GPU"),
        ("0,0", ["0"], "0 is named twice"),
        ("all", [], "use --gpus none"),
        ("\u0660", ["0"], "there is no GPU"),
    ],
)
def test_a_gpu_that_is_not_there_is_one_sentence(
    asked: str, visible: list[str], words: str
) -> None:
    with pytest.raises(UsageError) as raised:
        choose_gpus(asked, visible)
    assert words in str(raised.value)
