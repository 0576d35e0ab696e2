from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpo import studies
from hpo.definition import StudyDefinition, load_definition

from .conftest import STUDY, Run


@pytest.fixture
def own() -> Path:
    """A study of the working folder."""
    file = Path("studies/own.yaml")
    file.parent.mkdir()
    text = STUDY.read_text().replace("studies/digits.yaml: small", "studies/own.yaml: my own")
    file.write_text(text)
    return file


def test_list_tells_where_from_and_what_is_stored(run: Run, own: Path, database: str) -> None:
    done = run("studies", "list", "--storage", database, "--format", "json")
    found = {row["name"]: row for row in json.loads(done.out)}
    shipped = {study.name for study in studies.available()}
    assert {"digits", "fashion_mnist", "mnist"} <= shipped
    assert set(found) == {*shipped, "own", "fresh", "loss", "stock"}
    assert found["own"] == {
        "name": "own",
        "from": str(own),
        "stored": False,
        "summary": found["own"]["summary"],
    }
    assert found["own"]["summary"].startswith("my own")
    assert found["digits"]["stored"]
    assert found["fresh"]["from"] is None


def test_list_works_without_a_database(run: Run) -> None:
    for shape in ("table", "json", "csv"):
        done = run("studies", "list", "--format", shape)
        assert (done.code, done.err) == (0, "")
        assert "fashion_mnist" in done.out
    assert list(Path.cwd().iterdir()) == []


def test_list_does_not_pass_over_a_database_that_was_named(run: Run) -> None:
    done = run("studies", "list", "--storage", "sqlite:///typo.db")
    assert (done.code, done.out) == (69, "")


def test_show_gives_the_file_as_it_is(run: Run) -> None:
    assert run("studies", "show", str(STUDY)).out == STUDY.read_text()
    assert run("studies", "show", "digits").out == STUDY.read_text()


def test_show_as_json_is_the_checked_definition(run: Run) -> None:
    out = run("studies", "show", "digits", "--format", "json").out
    assert StudyDefinition.from_json(out) == load_definition(STUDY)


def test_show_as_json_says_how_many_cells_a_grid_has(run: Run) -> None:
    out = run("studies", "show", "mlp_comparison", "--format", "json").out
    assert json.loads(out)["search"]["trials"] == 36


def test_a_study_that_may_be_in_a_database_out_of_reach_is_not_called_missing(run: Run) -> None:
    away = ("--storage", "postgresql://ann:pw@127.0.0.1:1/db")
    commands: list[tuple[str, ...]] = [("optimize", "--study"), ("submit", "--study")]
    for command in (*commands, ("studies", "show")):
        done = run(*command, "team", *away)
        assert done.code == 69, done
        assert "no server answers" in done.err
        assert "there is no study `team`" in run(*command, "team").err
        assert not Path("hpo.db").exists()
    assert run("optimize", "--study", "gone/team.yaml", *away).code == 2


def test_a_mistyped_study_is_one_also_where_no_database_could_be_made(
    run: Run, tmp_path: Path
) -> None:
    for nowhere in ("sqlite:////proc/hpo.db", f"sqlite:///{tmp_path}/no/hpo.db"):
        done = run("studies", "show", "mnits", "--storage", nowhere)
        assert done.code == 2
        assert "did you mean `mnist`" in done.err


def test_a_database_of_which_the_disk_does_not_tell_is_an_error(run: Run) -> None:
    long = f"sqlite:///{'x' * 300}.db"
    for command in (["optimize", "--study"], ["submit", "--study"], ["studies", "show"]):
        done = run(*command, "team", "--storage", long)
        assert (done.code, done.out) == (74, "")
        assert "File name too long" in done.err
        assert done.err.endswith("; name another database with --storage\n")


def test_show_reads_what_only_the_database_holds(run: Run, database: str, tmp_path: Path) -> None:
    text = run("studies", "show", "loss", "--storage", database).out
    assert yaml.safe_load(text)["search"]["metric"] == "loss"
    whole = run("studies", "show", "loss", "--storage", database, "--format", "json").out
    file = tmp_path / "loss.yaml"
    file.write_text(text)
    assert load_definition(file) == StudyDefinition.from_json(whole)


def test_a_link_out_of_the_folder_is_not_passed_over_for_the_stored_study(
    run: Run, database: str
) -> None:
    Path("studies").mkdir()
    Path("studies/loss.yaml").symlink_to(STUDY)
    commands: list[tuple[str, ...]] = [("studies", "show"), ("optimize", "--dry-run", "--study")]
    for command in commands:
        done = run(*command, "loss", "--storage", database)
        assert (done.code, done.out) == (2, "")
        assert done.err == "hpo: studies/loss.yaml is a link out of its folder; give its path\n"


@pytest.mark.parametrize("name", ["mnits", "../x", "", "-rf", "no/such.yaml"])
def test_show_refuses_what_is_not_there(run: Run, name: str) -> None:
    done = run("studies", "show", "--", name)
    assert (done.code, done.out) == (2, "")
    assert done.err.count("\n") == 1
    if name == "mnits":
        assert "did you mean `mnist`?" in done.err


def test_validate_says_how_large_the_space_is(run: Run, own: Path) -> None:
    done = run("studies", "validate", str(own), "digits")
    assert (done.code, done.err) == (0, "")
    first, second = done.out.splitlines()
    assert first == f"{own}: valid, 18 parameters, a continuous space"
    assert second.endswith("digits.yaml: valid, 18 parameters, a continuous space")


def test_validate_counts_a_finite_space(run: Run) -> None:
    file = Path("small.yaml")
    file.write_text(
        "dataset: {name: digits}\n"
        "model: {mlp: {layers: 1, width: {choice: [8, 16]}}}\n"
        "optimizer: {adam: {lr: {choice: [0.1, 0.01, 0.001]}}}\n"
        "training: {batch_size: 64, epochs: 1}\n"
    )
    assert run("studies", "validate", "small.yaml").out == (
        "small.yaml: valid, 2 parameters, 6 combinations\n"
    )


def test_validate_looks_at_the_size_of_the_images(run: Run) -> None:
    text = (
        "dataset: {name: digits}\n"
        "model: {numpy_cnn: {stages: {int: [1, 4]}, channels: 8}}\n"
        "optimizer: {adam: {lr: 0.01}}\n"
        "training: {batch_size: 64, epochs: 1}\n"
    )
    Path("deep.yaml").write_text(text)
    done = run("studies", "validate", "deep.yaml")
    assert (done.code, done.out) == (2, "")
    assert done.err == (
        "hpo: deep.yaml:2: model.numpy_cnn: stage 3 reads images of 2x2, smaller than its "
        "kernel of 3x3, as digits has images of 8x8; take fewer stages, smaller kernels or "
        "smaller windows of pooling\n"
    )
    for command in (("optimize", "--dry-run"), ("submit",)):
        done = run(command[0], "--study", "deep.yaml", *command[1:])
        assert done.code == 2
        assert "stage 3 reads images of 2x2" in done.err
    Path("deep.yaml").write_text(text.replace("[1, 4]", "[1, 2]"))
    assert run("studies", "validate", "deep.yaml").out == (
        "deep.yaml: valid, 1 parameters, 2 combinations\n"
    )


def test_validate_names_every_problem_of_every_file(run: Run, own: Path) -> None:
    bad = Path("bad.yaml")
    bad.write_text(own.read_text().replace("[0.0, 0.5]", "[0.0, 1.2]").replace("epochs", "epoch"))
    done = run("studies", "validate", str(own), str(bad), "nope")
    assert done.code == 2
    assert done.out.startswith(f"{own}: valid")
    lines = done.err.splitlines()
    assert len(lines) >= 4
    assert all(line.startswith("hpo: ") for line in lines)
    assert any(line.startswith("hpo: bad.yaml:") and "1.2 is above 1" in line for line in lines)
    assert "there is no study `nope`" in lines[-1]


def test_validate_heeds_set(run: Run, own: Path) -> None:
    good = run("studies", "validate", str(own), "--set", "optimizer={adam: {lr: 0.1}}")
    assert "parameters" in good.out
    assert "18 parameters" not in good.out
    bad = run("studies", "validate", str(own), "--set", "training.epochs=0")
    assert bad.code == 2
    assert "training.epochs" in bad.err


def test_validate_knows_which_datasets_there_are(run: Run, own: Path) -> None:
    done = run("studies", "validate", str(own), "--set", "dataset.name=mnits")
    assert done.code == 2
    assert done.err.startswith("hpo: --set dataset.name: there is no dataset 'mnits'; there are")
    assert done.err.endswith("did you mean mnist?\n")
    assert done.err.count("there is no dataset") == 1
    own.write_text(own.read_text().replace("name: digits", "name: digitz"))
    line = own.read_text().split("name: digitz")[0].count("\n") + 1
    done = run("studies", "validate", str(own))
    assert done.err.startswith(f"hpo: {own}:{line}: dataset.name: there is no dataset 'digitz'")


def test_schema_is_json(run: Run) -> None:
    assert set(json.loads(run("studies", "schema").out)["required"]) >= {"dataset", "model"}


def test_a_file_whose_name_would_be_that_of_a_file_needs_another(run: Run) -> None:
    """`--study x.yaml` means the file `x.yaml`, so no study may have this name."""
    Path("studies").mkdir()
    for file in ("x.yaml.yaml", "x.YML.yaml"):
        Path("studies", file).write_text(STUDY.read_text())
        refused = run("submit", "--study", f"studies/{file}")
        assert refused.code == 2
        assert "do not end in `.`, `.yaml` or `.yml`" in refused.err
        assert "rename the file, or give a name with `--name`" in refused.err
        assert run("status", "--study", f"studies/{file}").code == 2
    assert "x." not in run("studies", "list").out
    assert run("submit", "--study", "studies/x.yaml.yaml", "--name", "x").code == 0
    assert run("status", "--study", "x").code == 0
