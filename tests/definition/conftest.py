from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from hpo.definition import StudyDefinition, load_definition
from hpo.errors import DefinitionError

MINIMAL = """\
dataset: {name: digits}
model: {mlp: {layers: 1, width: 32}}
optimizer: {sgd: {lr: 0.1}}
training: {batch_size: 32, epochs: 3}
"""


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., StudyDefinition]:
    """Load a text (the minimal study if None) with overrides, as `study.yaml`."""

    def loader(text: str | bytes | None = None, *overrides: str) -> StudyDefinition:
        path = tmp_path / "study.yaml"
        text = MINIMAL if text is None else text
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_definition(path, overrides)

    return loader


@pytest.fixture
def problems(load: Callable[..., StudyDefinition], tmp_path: Path) -> Callable[..., list[str]]:
    """What loading reports, without the folder."""

    def find(text: str | bytes | None = None, *overrides: str) -> list[str]:
        with pytest.raises(DefinitionError) as caught:
            load(text, *overrides)
        assert caught.value.exit_code == 2
        assert str(caught.value) == "\n".join(caught.value.problems)
        return [line.removeprefix(f"{tmp_path}/") for line in caught.value.problems]

    return find
