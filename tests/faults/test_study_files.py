"""F16: a study file is an attack, or wrong in every way at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.definition.source import MAX_BYTES
from tests.commands import Used, here, measured

_BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

HOSTILE = {
    "deep_flow": ("a: " + "[" * 10_000 + "]" * 10_000, "nested more than 32 levels"),
    "deep_flow_lines": ("[\n" * 10_000, "nested more than 32 levels"),
    "deep_mappings": ("{a: " * 10_000, "nested more than 32 levels"),
    "deep_block": ("- " * 10_000 + "x", "nested more than 32 levels"),
    "alias_bomb": (_BOMB, "the alias '*a' is refused"),
    "large": ("# " + "x" * 50_000_000, "larger than 1 MiB"),
    "long_word": ("a: " + "x" * (MAX_BYTES - 10), "more than 1000 characters"),
    "long_key": ("x" * (MAX_BYTES - 10) + ": 1", "this is not YAML"),
    "long_number": ("training: {epochs: " + "9" * 900 + "}", "above 100000"),
    "many_values": ("\n".join(f"k{i}: 1" for i in range(80_000)), "more than 5000 values"),
    "many_entries": ("a: [" + "1," * 400_000 + "]", "more than 5000 values"),
    "comments": ("#\n" * 500_000, "the file is empty"),
    "python": ("a: !!python/object/apply:os.system [touch canary]", "is refused"),
    "python_name": ("a: !!python/name:os.system ''", "is refused"),
}


@pytest.fixture(scope="module")
def least(tmp_path_factory: pytest.TempPathFactory) -> Used:
    """What the same command uses for a file of a few bytes."""
    folder = tmp_path_factory.mktemp("least")
    (folder / "study.yaml").write_text("a: 1\n")
    return measured(folder, "studies", "validate", "study.yaml", expect=2)


@pytest.mark.parametrize("case", HOSTILE)
def test_f16_a_hostile_file_ends_quickly_and_small(tmp_path: Path, least: Used, case: str) -> None:
    text, sentence = HOSTILE[case]
    (tmp_path / "study.yaml").write_text(text)
    used = measured(tmp_path, "studies", "validate", "study.yaml", expect=2)
    assert used.stdout == ""
    lines = used.stderr.splitlines()
    assert all(line.startswith("hpo: study.yaml:") for line in lines)
    assert any(sentence in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["study.yaml"]  # and no canary
    assert used.mebibytes < 100
    assert used.cpu_seconds < 3 * least.cpu_seconds


WRONG = """\
dataset: {name: digits, validation: .nan}
model: {mlp: {layers: {int: [3, 1]}, width: {int: [.nan, 64]}, dropout: 1.2, widht: 5}}
optimizer: {adam: {lr: {float: [0.1, 0.01], log: true}}}
optimizer: {sgd: {lr: 0.1}}
training: {batch_size: 64, epochs: !!python/object/apply:os.system [touch canary]}
search: {trials: 1.0e+9, n_trials: 5, sampler: cmaes}
"""


def test_f16_all_that_is_wrong_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(WRONG)
    for command in (["studies", "validate", "wrong.yaml"], ["optimize", "--study", "wrong.yaml"]):
        done = here(tmp_path, *command, expect=2)
        assert done.stdout == ""
        for place in (
            *("1: dataset.validation", "2: model.mlp.layers", "2: model.mlp.width"),
            *("2: model.mlp.dropout", "2: model.mlp.widht", "3: optimizer.adam.lr"),
            *("4: optimizer", "5: training.epochs", "6: search.trials", "6: search.n_trials"),
            "6: search.sampler",
        ):
            assert f"hpo: wrong.yaml:{place}" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.yaml"]
