from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.definition.source import MAX_BYTES, REFUSED, parse

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n"
    for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)

HOSTILE = {
    "deep_flow": ("a: " + "[" * 10_000 + "]" * 10_000, "nested more than 32 levels"),
    "deep_flow_lines": ("[\n" * 10_000, "nested more than 32 levels"),
    "deep_mappings": ("{a: " * 10_000, "nested more than 32 levels"),
    "deep_block": ("- " * 10_000 + "x", "nested more than 32 levels"),
    "alias_bomb": (BOMB, "the alias '*a' is refused"),
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


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_end_quickly_and_small(case: str, tmp_path: Path) -> None:
    text, sentence = HOSTILE[case]
    (tmp_path / "study.yaml").write_text(text)
    code = (
        "import time; from pathlib import Path\n"
        "from hpo.definition import load_definition; from hpo.errors import DefinitionError\n"
        "start = time.perf_counter()\n"
        "try: load_definition(Path('study.yaml'))\n"
        "except DefinitionError as error: print(error)\n"
        "seconds = time.perf_counter() - start\n"
        "peak = Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]\n"
        "print(seconds, int(peak) // 1024)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.stderr == ""
    *found, last = done.stdout.splitlines()
    seconds, mebibytes = last.split()
    assert any(sentence in line for line in found), found
    assert float(seconds) < 1
    assert float(mebibytes) < 100
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("1e-4", 1e-4),  # YAML 1.1 would have it a string
        ("1.0e-4", 1e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("+3", 3),
        ("010", 10),  # YAML 1.1 would have it eight
        ("1_000", 1000),
        ("1:30", "1:30"),  # YAML 1.1 would have it ninety
        ("2001-01-01", "2001-01-01"),  # and this a date
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("on", True),
        ("No", False),
        ("true", True),
        ("~", None),
        ("null", None),
        ("", None),
        ("none", "none"),
        ("'true'", "true"),
        ('"1"', "1"),
        ("! 1", 1),
    ],
)
def test_words(word: str, value: object) -> None:
    parsed = parse(f"key: {word}")
    assert parsed.problems == []
    assert parsed.data == {"key": value}
    assert isinstance(parsed.data, dict)
    assert type(parsed.data["key"]) is type(value)


def test_keys_are_words_whatever_they_look_like() -> None:
    assert parse("on: 1\n2: 3\nnull: 4").data == {"on": 1, "2": 3, "null": 4}


def test_every_key_and_entry_has_its_line() -> None:
    places = parse("a: 1\nb:\n  c: [5,\n    6]\n").places
    assert places == {
        (): 1,
        ("a",): 1,
        ("b",): 2,
        ("b", "c"): 3,
        ("b", "c", 0): 3,
        ("b", "c", 1): 4,
    }


def test_the_first_of_two_equal_keys_stays() -> None:
    parsed = parse("a: 1\nb: {c: 2, c: [3, {d: 4}]}\na: {x: y}\n")
    assert parsed.data == {"a": 1, "b": {"c": 2}}
    assert [(problem.path, problem.place) for problem in parsed.problems] == [
        (("b", "c"), 2),
        (("a",), 3),
    ]


def test_what_is_refused_leaves_the_rest_to_be_checked() -> None:
    parsed = parse("a: !x 1\nb: &b [!!str c]\nd: *b\ne: !y {f: 2}\ng: 3\n")
    assert parsed.data == {"a": REFUSED, "b": [REFUSED], "d": REFUSED, "e": REFUSED, "g": 3}
    assert len(parsed.problems) == 4
    assert not parsed.broken


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: 1\nb: {c: [1, 2}\n", 2),
        ("a: 1\n---\nb: 2\n", 2),
        ("a: 'x\n", 2),
        ("a: 1\n\tb: 2\n", 2),
        ("a: 1\nb: \x00\n", 2),
        ("a: 1\n? [b]\n: 2\n", 2),
        ("a: b: c\n", 1),
        ("%YAML 9.9\n---\na: 1\n", 1),
    ],
)
def test_what_cannot_be_read_on_has_one_problem_with_its_line(text: str, line: int) -> None:
    parsed = parse(text)
    assert parsed.broken
    assert [problem.place for problem in parsed.problems] == [line]
    assert "\n" not in parsed.problems[0].sentence
