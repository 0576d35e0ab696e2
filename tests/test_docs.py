"""The pages tell what there is: commands, keys, fields, links, snippets; and who imports whom."""

from __future__ import annotations

import ast
import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from pydantic.fields import FieldInfo

from hpo.cli.app import app
from hpo.definition import load_definition
from hpo.definition.leaves import Leaf, Number, Word
from hpo.definition.schema import StudyDefinition
from hpo.definition.sections import ExactlyOne, Section
from tests.commands import environment, here, hpo, read

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
SMALL = ("--trials", "2", "--set", "training.epochs=1")
SHORT = (*SMALL, "--set", "retrain.seeds=1", "--set", "retrain.finalists=1")


def blocks(page: Path, language: str) -> list[str]:
    """The page's fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def parts(page: Path) -> dict[str, str]:
    """The page cut at its `##` headings; what stands before the first is under ''."""
    head, *rest = re.split(r"^## (.*)\n", page.read_text(), flags=re.MULTILINE)
    return {"": head, **dict(zip(rest[::2], rest[1::2], strict=True))}


def rows(text: str) -> Iterator[list[str]]:
    """The rows of the tables in a text, cell by cell."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


# --- commands


def commands() -> dict[str, Any]:
    """Every command by its words after `hpo`; the empty name is `hpo` itself."""
    root: Any = typer.main.get_command(app)
    found = {"": root}
    for name, command in root.commands.items():
        inner = getattr(command, "commands", None)
        found |= {f"{name} {word}": one for word, one in inner.items()} if inner else {}
        found |= {} if inner else {name: command}
    return found


def options(command: Any) -> set[str]:
    found = {option for param in command.params for option in (*param.opts, *param.secondary_opts)}
    return {option for option in found if option.startswith("-")} | {"--help", "-h"}


def told_of(command: str) -> str:
    """What docs/commands.md says of a command."""
    page = parts(DOCS / "commands.md")
    if " " not in command:
        return page[f"hpo {command}".strip() if command else ""]
    told = re.search(
        rf"^\*\*`hpo {command}\b.*?(?=^\*\*`|\Z)",
        page[f"hpo {command.split()[0]}"],
        re.MULTILINE | re.DOTALL,
    )
    assert told, f"docs/commands.md does not tell of hpo {command}"
    return told[0]


@pytest.mark.parametrize("command", commands())
def test_every_option_of_every_command_is_told_of(command: str) -> None:
    told = re.findall(r"(?<![\w-])--?[a-z][a-z-]*", told_of(command))
    common = {"--help", "-h"} if command else set()
    assert options(commands()[command]) - common <= set(told)


@pytest.mark.parametrize("command", commands())
def test_no_option_is_told_of_that_does_not_exist(command: str) -> None:
    cells = [row[0] for row in rows(told_of(command))]
    told = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(cells)))
    assert told <= options(commands()[command])


def command_lines() -> list[str]:
    """The lines of the pages that call hpo, from blocks that are indented."""
    lines = [line for page in PAGES for line in page.read_text().splitlines()]
    return [line.strip() for line in lines if line.startswith("    hpo ")]


@pytest.mark.parametrize("line", [line for line in command_lines() if "hpo:" not in line])
def test_every_command_line_of_the_pages_could_be_typed(line: str) -> None:
    words = shlex.split(line, comments=True)[1:]
    known = commands()
    name = words[0] if words[0] in known else " ".join(words[:2])
    assert {word for word in words if word.startswith("-")} <= options(known[name])
    if words[1:3] == ["--study", "digits"]:
        changes = [words[at + 1] for at, word in enumerate(words) if word == "--set"]
        assert load_definition(ROOT / "studies" / "digits.yaml", changes)


# --- keys of a study file


def keys(section: type[Section], path: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every key below a section, by its path."""
    for name, info in section.model_fields.items():
        if name in section.keys():  # noqa: SIM118 (it is a method of hpo's)
            yield f"{path}{name}", info
            for inner in within(info.annotation):
                if isinstance(inner, type) and issubclass(inner, Section):
                    yield from keys(inner, f"{path}{name}.")


def within(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
        yield from within(part)


SECTIONS = StudyDefinition.keys()
SETTINGS = {path: info for path, info in keys(StudyDefinition) if path not in SECTIONS}


def study_rows() -> dict[str, tuple[str, str]]:
    """What docs/study-file.md says a key takes, and its default, by the key's path."""
    found: dict[str, tuple[str, str]] = {}
    for title, text in parts(DOCS / "study-file.md").items():
        columns = re.search(r"^\| key \| takes \| (.*) \|$", text, re.MULTILINE)
        names = columns[1].split(" | ") if columns else []
        for key, takes, *cells in rows(text):
            if title == "optimizer":
                each = zip(names, cells, strict=True)
                key = key.strip("`")
                found |= {f"optimizer.{o}.{key}": (takes, cell) for o, cell in each if cell != "-"}
            elif title in SECTIONS:
                found[key.strip("`")] = (takes, cells[0])
    return found


def test_every_key_of_a_study_file_is_told_of_and_no_other() -> None:
    told = set(study_rows())
    prose = parts(DOCS / "study-file.md")["optimizer"]
    told |= set(re.findall(r"`(optimizer\.[a-z]+)`", prose))
    assert told == set(SETTINGS)
    assert set(SECTIONS) <= set(parts(DOCS / "study-file.md"))


def plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, ExactlyOne):
        return value.name
    return "[]" if value == () else str(value)


@pytest.mark.parametrize("path", study_rows())
def test_the_limits_and_the_default_of_a_key_are_the_true_ones(path: str) -> None:
    takes, default = study_rows()[path]
    info = SETTINGS[path]
    if info.is_required():
        assert default == "required"
    elif info.default is not None:
        assert default.strip("`") == plain(info.default)
    found = [part for part in (*info.metadata, *within(info.annotation)) if isinstance(part, Leaf)]
    for leaf in found:
        if not path.startswith("optimizer."):  # all of these may be drawn
            assert takes.endswith(", drawn") == leaf.ranged
        if isinstance(leaf, Word):
            words = [*leaf.allowed, *(alias for alias, _ in leaf.aliases)]
            assert set(re.findall(r"`(\w+)`", takes)) == set(words)
        if isinstance(leaf, Number):
            limits = [leaf.low, *([] if leaf.high is None else [leaf.high])]
            told = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", takes)]
            assert set(limits) <= set(told)
            assert ("whole" in takes) == leaf.whole
            assert ("above 0" in takes) == leaf.open_low
            assert bool(re.search(r"not \d itself|below 1", takes)) == leaf.open_high


# --- studies, links


def whole_studies() -> list[tuple[str, str]]:
    found = [(page.name, block) for page in PAGES for block in blocks(page, "yaml")]
    return [(page, block) for page, block in found if block.startswith("# studies/")]


@pytest.mark.parametrize(("page", "text"), whole_studies())
def test_a_whole_study_of_the_pages_loads(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / re.match(r"# studies/(\w+\.yaml)", text)[1]  # type: ignore[index]
    file.write_text(text)
    assert load_definition(file).name == file.stem


@pytest.mark.parametrize("section", [one for one in SECTIONS if one != "variations"])
def test_the_example_of_a_section_loads(section: str, tmp_path: Path) -> None:
    page = DOCS / "study-file.md"
    whole, *examples = blocks(page, "yaml")
    example = next(block for block in examples if block.startswith(f"{section}:"))
    rest = [line for line in whole.splitlines() if not line.startswith(f"{section}:")]
    file = tmp_path / "example.yaml"
    file.write_text("\n".join([*rest, example]))
    told = yaml.safe_load(example)[section]
    stored = json.loads(load_definition(file).to_json())[section]
    assert told.keys() <= stored.keys()


def slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def links() -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
        targets = re.findall(r"\]\(([^)\s]+)\)", text)
        found += [(str(page.relative_to(ROOT)), target) for target in targets]
    return [(page, target) for page, target in found if not re.match("https?:", target)]


@pytest.mark.parametrize(("page", "target"), links())
def test_every_link_leads_somewhere(page: str, target: str) -> None:
    path, _, anchor = target.partition("#")
    file = (ROOT / page).parent / path if path else ROOT / page
    assert file.resolve().is_relative_to(ROOT)
    assert file.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", file.read_text(), re.MULTILINE)
        assert anchor in map(slug, headings)


# --- what the pages say of results, and their Python


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny search of digits and its artifact."""
    folder = tmp_path_factory.mktemp("searched")
    here(folder, "optimize", "--study", "digits", *SHORT)
    here(folder, "retrain-best", "--study", "digits")
    return folder


@pytest.mark.parametrize("command", ["status", "trials", "best", "effects", "retrain-best"])
def test_the_fields_of_the_json_are_told_of(searched: Path, command: str) -> None:
    found = read(searched, command, "--study", "digits")
    row = found[0] if isinstance(found, list) else found
    told = set(re.findall(r"`(\w+)`", told_of(command)))
    inner = [value for key, value in row.items() if key in ("validation", "test")]
    assert set().union(row, *inner) <= told


@pytest.mark.parametrize("command", ["studies list", "data list", "doctor"])
def test_the_fields_of_the_lists_are_told_of(searched: Path, command: str) -> None:
    told = set(re.findall(r"`(\w+)`", told_of(command)))
    assert set(read(searched, *command.split())[0]) <= told


def test_the_artifact_is_as_the_page_says(searched: Path) -> None:
    folder = searched / "results" / "digits"
    page = parts(DOCS / "artifact.md")
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files <= set(re.findall(r"`([\w/]+\.\w+)`", page[""]))
    config = json.loads((folder / "config.json").read_text())
    told = re.findall(r"`(\w+)`", page["config.json"])
    assert {*config, *config["model"], *config["normalization"]} <= set(told)
    metrics = json.loads((folder / "metrics.json").read_text())
    told += re.findall(r"`(\w+)`", told_of("retrain-best") + page["metrics.json"])
    inner = (metrics["test_metrics"], metrics["finalists"][0], metrics["study_state"])
    assert set().union(metrics, *inner) <= set(told)


def python(folder: Path, code: str, **extra: str) -> str:
    """What a snippet prints when it is run there."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment(**extra),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_snippet_that_predicts_gives_the_accuracy_of_the_artifact(searched: Path) -> None:
    (code,) = blocks(DOCS / "artifact.md", "python")
    metrics = json.loads((searched / "results" / "digits" / "metrics.json").read_text())
    expected = metrics["test"]["values"][0]
    assert python(searched, code) == f"accuracy of results/digits: {expected:.4f}\n"


def test_the_snippet_that_reads_curves_prints_every_epoch(searched: Path) -> None:
    (code,) = blocks(DOCS / "populations.md", "python")
    trials = read(searched, "trials", "--study", "digits")
    printed = [line.split() for line in python(searched, code).splitlines()]
    assert [int(number) for number, *_ in printed] == [trial["number"] for trial in trials]
    assert [float(words[-1]) for words in printed] == [trial["value"] for trial in trials]


def test_a_dataset_of_ones_own_is_searched_as_the_page_says(tmp_path: Path) -> None:
    page = DOCS / "data.md"
    for language in ("toml", "python", "yaml"):
        for block in blocks(page, language):
            file = tmp_path / re.match(r"# ([\w/]+\.\w+)", block)[1]  # type: ignore[index]
            file.parent.mkdir(exist_ok=True)
            file.write_text(block)
    project = tomllib.loads((tmp_path / "pyproject.toml").read_text())["project"]
    # As pip would install it, without pip.
    metadata = tmp_path / "leaves_for_hpo-0.1.dist-info"
    metadata.mkdir()
    about = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
    (metadata / "METADATA").write_text(about)
    ((group, offers),) = project["entry-points"].items()
    lines = [f"{name} = {place}" for name, place in offers.items()]
    (metadata / "entry_points.txt").write_text("\n".join([f"[{group}]", *lines, ""]))

    place: dict[str, Any] = {"PYTHONPATH": str(tmp_path), "HPO_DATA": str(tmp_path / "data")}
    search = ("optimize", "--study", "studies/leaves.yaml")
    refused = hpo(tmp_path, *search, expect=1, **place)
    assert "run save_leaves.py" in refused.stderr
    python(tmp_path, (tmp_path / "save_leaves.py").read_text(), **place)
    assert str(tmp_path) in hpo(tmp_path, "data", "fetch", "leaves", **place).stdout
    hpo(tmp_path, *search, *SMALL, **place)
    hpo(tmp_path, "retrain-best", "--study", "leaves", **place)
    assert (tmp_path / "results" / "leaves" / "model.safetensors").exists()


# --- the house

ROOMS = (
    *("cli", "web", "results", "engines", "search", "training", "models", "data"),
    *("grid", "space", "definition", "studies", "config", "files", "folders"),
    *("shuffling", "holder", "errors"),
)
"""From the top down; a room imports from itself and from below."""

HOMES = {
    "typer": {"cli"},
    "rich": {"cli"},
    "optuna": {"cli", "web", "results", "search"},
    "optuna_dashboard": {"web"},
    "waitress": {"web"},
    "sqlalchemy": {"search"},
    "torch": {"cli", "results", "search", "training", "models", "data"},
    "pydantic": {"definition"},
}
MODULES = sorted((ROOT / "hpo").rglob("*.py"))


def room_of(module: Path) -> str | None:
    name = module.relative_to(ROOT / "hpo").with_suffix("").parts[0]
    return {"__init__": None, "__main__": "cli"}.get(name, name)


def imported(module: Path) -> Iterator[str]:
    """What a module imports, wherever in it, as dotted names."""
    for node in ast.walk(ast.parse(module.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_downward(module: Path) -> None:
    room = room_of(module)
    for name in imported(module):
        package, _, rest = name.partition(".")
        below = rest.split(".")[0]
        if package == "hpo" and below and not below.startswith("__"):
            assert room is not None, f"hpo itself imports {name}"
            assert ROOMS.index(room) <= ROOMS.index(below), f"{room} imports {name}"
        assert package not in HOMES or room in HOMES[package], f"{room} imports {name}"
