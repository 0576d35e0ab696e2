"""What a word without quotes stands for: a number, true or false, nothing, or itself.

The rules are those of YAML 1.2's core schema (`1e-4` is a number, `010` is ten, `0x10` sixteen),
plus `yes`, `no`, `on` and `off`, and single underscores between the digits of any number.
"""

from __future__ import annotations

import re

__all__ = ["resolve"]

_DIGITS = r"[0-9]+(?:_[0-9]+)*"
_INT = re.compile(rf"[-+]?{_DIGITS}")
_HEX = re.compile(r"0x[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*")
_OCTAL = re.compile(r"0o[0-7]+(?:_[0-7]+)*")
_FLOAT = re.compile(rf"[-+]?(?:\.{_DIGITS}|{_DIGITS}(?:\.(?:{_DIGITS})?)?)(?:[eE][-+]?{_DIGITS})?")
_WORDS: dict[str, object] = {
    **dict.fromkeys(("", "~", "null"), None),
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
    **dict.fromkeys((".inf", "+.inf"), float("inf")),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
}


def resolve(word: str) -> object:
    """The value of a word: None, a bool, an int, a float, or the word itself."""
    low = word.lower()
    if low in _WORDS:
        return _WORDS[low]
    if _INT.fullmatch(word):
        return int(word)
    if _HEX.fullmatch(word):
        return int(word, 16)
    if _OCTAL.fullmatch(word):
        return int(word, 8)
    if _FLOAT.fullmatch(word):
        return float(word)
    return word
