from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import hpo
from hpo import studies
from hpo.definition import load_definition
from hpo.errors import UsageError
from tests.faults.test_names import BAD_NAMES

SHIPPED = sorted(
    file.stem for file in (Path(hpo.__file__).parent.parent / "studies").glob("*.yaml")
)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", BAD_NAMES)
def test_bad_names_are_refused_in_one_line(name: str, here: Path) -> None:
    with pytest.raises(UsageError, match="cannot be a study's name") as caught:
        studies.valid_name(name)
    assert str(caught.value).isprintable()
    with pytest.raises(UsageError):
        studies.find(name)


@pytest.mark.parametrize("name", ["a", "mnist", "fashion_mnist", "v1.2-x", "7", "x" * 100])
def test_good_names(name: str) -> None:
    assert studies.valid_name(name) == name


def test_shipped_studies_are_found_from_any_folder(here: Path) -> None:
    found = studies.available()
    assert [study.name for study in found] == SHIPPED
    for study in found:
        assert studies.find(study.name) == study.path
        assert study.path.is_absolute()
        definition = load_definition(study.path)
        assert definition.name == study.name
        assert study.summary
        assert not study.summary.startswith(("#", "studies/"))


def test_a_wheel_has_its_studies_inside(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site-packages" / "hpo"
    (package / "_studies").mkdir(parents=True)
    (package / "_studies" / "one.yaml").write_text("# about one\n")
    (tmp_path / "site-packages" / "studies").mkdir()  # somebody else's
    (tmp_path / "site-packages" / "studies" / "two.yaml").write_text("")
    monkeypatch.setattr(studies, "__file__", str(package / "studies.py"))
    assert [study.name for study in studies.available()] == ["one"]
    (package / "_studies" / "one.yaml").unlink()
    (package / "_studies").rmdir()
    assert studies.available() == []
    with pytest.raises(UsageError, match="there are none here"):
        studies.find("one")


def test_the_working_folder_comes_first(here: Path) -> None:
    (here / "studies").mkdir()
    mine = here / "studies" / "mnist.yaml"
    mine.write_text("\n# My own \x1b[31mMNIST\ndataset: {}\n# more\n")
    (here / "studies" / "bad name.yaml").write_text("")
    (here / "studies" / "notes.txt").write_text("")
    (here / "studies" / "folder.yaml").mkdir()
    assert studies.find("mnist") == Path("studies/mnist.yaml")
    found = {study.name: study for study in studies.available()}
    assert list(found) == SHIPPED
    assert found["mnist"].path == Path("studies/mnist.yaml")
    assert found["mnist"].summary == "My own [31mMNIST"


def test_a_name_does_not_follow_a_link_out_of_the_folder(here: Path) -> None:
    (here / "secret.yaml").write_text("# secret\n")
    folder = here / "studies"
    folder.mkdir()
    (folder / "out.yaml").symlink_to("../secret.yaml")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    (folder / "real.yaml").write_text("# real\n")
    (folder / "within.yaml").symlink_to("real.yaml")
    # These two have a shipped study's name, which must not be taken for them.
    (folder / "digits.yaml").symlink_to("gone.yaml")
    (folder / "mnist.yaml").symlink_to(here / "secret.yaml")
    for name, what in (
        ("out", "a link out of its folder; give its path"),
        ("mnist", "a link out of its folder; give its path"),
        ("loop", "a link to no file; mend it, or remove it"),
        ("digits", "a link to no file; mend it, or remove it"),
    ):
        with pytest.raises(UsageError, match=f"^studies/{name}.yaml is {what}$"):
            studies.find(name)
    assert studies.find("within") == Path("studies/within.yaml")
    names = [study.name for study in studies.available()]
    assert names == sorted([*SHIPPED, "real", "within"])
    assert studies.find("studies/out.yaml") == Path("studies/out.yaml")  # a path is one's own


def test_a_study_that_may_not_be_read_is_not_passed_over_for_a_shipped_one() -> None:
    """As another user than root, whom no permission stops, in a folder that is not pytest's."""
    code = (
        "import os\n"
        "from hpo import studies\n"
        "from hpo.definition import load_definition\n"
        "from hpo.errors import FileError\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try:\n"
        "    print(load_definition(studies.find('mnist')))\n"
        "except FileError as error:\n"
        "    print(error)\n"
    )
    here = Path(tempfile.mkdtemp(prefix="hpo-test-"))
    try:
        here.chmod(0o755)
        (here / "studies").mkdir()
        (here / "studies" / "mnist.yaml").write_text("# mine\n")
        (here / "studies").chmod(0o444)
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    finally:
        (here / "studies").chmod(0o755)
        shutil.rmtree(here)
    sentence = "studies/mnist.yaml: the file cannot be read (Permission denied)\n"
    assert done.stdout == sentence, done.stderr


def test_paths(here: Path) -> None:
    (here / "own.yaml").write_text("")
    (here / "own.YML").write_text("")
    (here / "plain").write_text("")
    for path in ("own.yaml", "./own.yaml", str(here / "own.yaml"), "own.YML", "./plain"):
        assert studies.find(path) == Path(path)
    for path in ("none.yaml", "no/such", "x\0/y", "/" + "x" * 5000, "\ud800/x"):
        with pytest.raises(UsageError, match="there is no file"):
            studies.find(path)


def test_an_unknown_name_gets_the_nearest_and_all(here: Path) -> None:
    with pytest.raises(UsageError) as caught:
        studies.find("Mnits")
    assert str(caught.value) == (
        f"there is no study `Mnits`; did you mean `mnist`? there are {', '.join(SHIPPED)}"
    )
    with pytest.raises(UsageError) as caught:
        studies.find("zzz")
    assert str(caught.value) == f"there is no study `zzz`; there are {', '.join(SHIPPED)}"
    assert caught.value.exit_code == 2


def test_every_shipped_study_begins_by_saying_what_it_shows() -> None:
    for file in (Path(hpo.__file__).parent.parent / "studies").glob("*.yaml"):
        assert file.read_text().startswith(f"# studies/{file.name}: ")
