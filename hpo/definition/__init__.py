"""A study's YAML, read, checked and turned into a `StudyDefinition`.

problems.py   a sentence about a place in the file
words.py      what a word without quotes stands for: 1e-4, 0x10, yes
source.py     text -> plain data with lines; nothing in it can run or grow
overrides.py  --set key.path=value
ranges.py     ranges: {int: [1, 4]}, {float: ...}, {choice: ...}
leaves.py     what a field may hold: a constant, or a range of such
sections.py   what all sections share: strict keys, plain sentences
kinds.py      kinds of leaves, words that the families share
families.py   the convolutional families
networks.py   the sections that a search draws from: families, optimizers, schedules
variations.py runs of a study that searches nothing
schema.py     all other sections, and the whole
loading.py    all of it in order
"""

from __future__ import annotations

from hpo.definition.kinds import ACTIVATIONS, INITIALIZATIONS
from hpo.definition.loading import change_definition, json_schema, load_definition
from hpo.definition.ranges import Choice, FloatRange, IntRange, Range, largest
from hpo.definition.schema import StudyDefinition
from hpo.definition.variations import describe_variation
from hpo.studies import valid_name

__all__ = [
    "ACTIVATIONS",
    "INITIALIZATIONS",
    "Choice",
    "FloatRange",
    "IntRange",
    "Range",
    "StudyDefinition",
    "change_definition",
    "describe_variation",
    "json_schema",
    "largest",
    "load_definition",
    "valid_name",
]
