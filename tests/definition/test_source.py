from __future__ import annotations

import math

import pytest

from hpo.definition.source import REFUSED, parse


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
        ("0x10", 16),
        ("0xfF", 255),
        ("0o10", 8),
        ("0o8", "0o8"),
        ("0X10", "0X10"),  # the core schema has small letters alone
        ("-0x10", "-0x10"),  # and no sign
        ("1_000", 1000),
        ("0x1_0", 16),
        ("1_0.5", 10.5),
        ("1_0.2_5e-1_0", 10.25e-10),
        ("1__0", "1__0"),
        ("1_.5", "1_.5"),
        ("_1", "_1"),
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


def test_a_section_given_twice_keeps_the_lines_of_the_first() -> None:
    parsed = parse("a: {b: 1,\n  c: [2]}\na:\n  b: 3\n  c: [4,\n    5]\n  d: {e: 6,\n    e: 7}\n")
    assert parsed.data == {"a": {"b": 1, "c": [2]}}
    assert parsed.places == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 1,
        ("a", "c"): 2,
        ("a", "c", 0): 2,
    }
    assert [(problem.path, problem.place) for problem in parsed.problems] == [
        (("a",), 3),
        (("a", "d", "e"), 8),
    ]
    assert parsed.problems[1].sentence.endswith("the first is in line 7")


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
        (f"# {'é' * 50}\na: 1\nb: \x07\nc: 2\nd: 3\ne: \x07\n", 3),
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
