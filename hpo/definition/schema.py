"""The schema of a study file: every section, every key, its limits and its default.

What a search draws from (model, optimizer, schedule) is in `networks.py`. A field of type
`IntLeaf` or `FloatLeaf` is a constant or a range; `int`, `float` and `str` are constants.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self

from pydantic import ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails

from hpo.definition.families import beyond_numpy
from hpo.definition.kinds import FloatLeaf, IntLeaf
from hpo.definition.leaves import Flag, Number, Pattern, Word, detail, invalid
from hpo.definition.metrics import METRICS
from hpo.definition.networks import ModelSection, OptimizerSection, ScheduleSection
from hpo.definition.problems import Problem, render, shown
from hpo.definition.ranges import FloatRange
from hpo.definition.sections import ExactlyOne, Section
from hpo.definition.variations import (
    is_list,
    problems_with_variations,
    varied,
    without_variations,
)
from hpo.errors import DefinitionError, UsageError
from hpo.studies import valid_name

__all__ = ["StudyDefinition", "problems_in"]

_DEVICE = r"auto|cpu|cuda(:[0-9]{1,3})?"

_Probability = Annotated[float, Number("it is a probability", high=1, ranged=False)]
_Size = Annotated[float, Number("the strength of a jitter is at least 0", ranged=False)]


def _count(why: str, low: int = 1, high: int = 100_000) -> Number:
    return Number(why, low=low, high=high, whole=True, ranged=False)


# --- dataset


class HorizontalFlip(Section):
    """Mirror an image, left to right."""

    probability: _Probability = 0.5


class Rotation(Section):
    """Turn an image by an angle drawn from -degrees to +degrees."""

    degrees: Annotated[float, Number("an angle lies in 0 to 180", high=180, ranged=False)]


class RandomCrop(Section):
    """Pad an image by `padding` pixels on each side and cut it out again somewhere."""

    padding: Annotated[int, _count("a padding is 0 to 1024 pixels", low=0, high=1024)]


class ColorJitter(Section):
    """Change an image's colours by random factors."""

    brightness: _Size = 0.0
    contrast: _Size = 0.0
    saturation: _Size = 0.0
    hue: Annotated[float, Number("a hue lies in 0 to 0.5", high=0.5, ranged=False)] = 0.0


class Augmentation(ExactlyOne):
    """One step of augmentation; `name` says which, `settings` how."""

    noun: ClassVar[str] = "augmentation"

    horizontal_flip: HorizontalFlip | None = None
    rotation: Rotation | None = None
    random_crop: RandomCrop | None = None
    color_jitter: ColorJitter | None = None


class DatasetSection(Section):
    """Which data, and what of its training rows validates: a share, or one fold after another."""

    name: Annotated[str, Pattern("the name of a dataset", r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")]
    validation: (
        Annotated[
            float,
            Number(
                "validation is the share of the training rows that is held out",
                high=1,
                open_low=True,
                open_high=True,
                ranged=False,
            ),
        ]
        | None
    ) = 0.15
    folds: Annotated[int, _count("there are 2 to 100 folds", low=2, high=100)] | None = None
    augment: tuple[Augmentation, ...] = ()

    @classmethod
    def prepared(cls, data: dict[str, Any] | str) -> Any:
        """Folds take the place of the share, which has a default."""
        if isinstance(data, str):
            return data
        given = {key: value for key, value in data.items() if value is not None}
        return {"validation": None, **given} if "folds" in given else given

    @classmethod
    def key_problems(cls, data: dict[str, Any]) -> list[InitErrorDetails]:
        """Either a share or folds."""
        if "folds" not in data or data["validation"] is None:
            return []
        sentence = "with `folds` every row validates once, so `validation` cannot be given too"
        return [detail(sentence, "validation")]

    @property
    def divided(self) -> str:
        """How the validation rows are taken, in words."""
        return f"{self.validation:g}" if self.folds is None else f"{self.folds} folds"


# --- training, search, retrain


class EarlyStoppingSection(Section):
    """Stop after `patience` epochs without a better `metric`, the study's if that is left out."""

    patience: Annotated[int, _count("patience is at least 1 epoch")]
    metric: Annotated[str, Word("a metric", METRICS, ranged=False)] | None = None


class TrainingSection(Section):
    """How every network is trained."""

    batch_size: Annotated[
        IntLeaf, Number("a batch has 1 to 1000000 rows", low=1, high=1_000_000, whole=True)
    ]
    epochs: Annotated[int, _count("a run lasts 1 to 100000 epochs")]
    early_stopping: EarlyStoppingSection | None = None
    label_smoothing: Annotated[
        FloatLeaf, Number("label smoothing is a share below 1", high=1, open_high=True)
    ] = 0.0
    gradient_reset: Annotated[bool, Flag(ranged=False)] = True
    diagnostics: tuple[
        Annotated[str, Word("a diagnostic", ("gradient_norms",), ranged=False)], ...
    ] = ()
    device: Annotated[str, Pattern("auto, cpu, cuda or cuda:N", _DEVICE)] = "auto"
    precision: Annotated[
        str, Word("a precision", ("auto", "float32", "bfloat16"), ranged=False)
    ] = "auto"


class TpeSettings(Section):
    """Tree-structured Parzen estimator; the first `startup_trials` are drawn at random."""

    startup_trials: Annotated[int, _count("startup_trials is 0 to 100000", low=0)] = 10


class RandomSettings(Section):
    """Every trial is drawn at random."""


class GridSettings(Section):
    """Every combination of a finite space, each once."""


class SamplerSection(ExactlyOne):
    """What proposes the next trial."""

    noun: ClassVar[str] = "sampler"

    tpe: TpeSettings | None = None
    random: RandomSettings | None = None
    grid: GridSettings | None = None


class AshaSettings(Section):
    """Asynchronous successive halving: one in `reduction` goes on from each rung."""

    min_epochs: Annotated[int, _count("min_epochs is at least 1")] = 1
    reduction: Annotated[int, _count("a reduction is 2 to 1000", low=2, high=1000)] = 4


class MedianSettings(Section):
    """Prune what is worse than the median of the finished trials at the same epoch."""

    startup_trials: Annotated[int, _count("startup_trials is 0 to 100000", low=0)] = 5
    warmup_epochs: Annotated[int, _count("warmup_epochs is 0 to 100000", low=0)] = 1


class NoSettings(Section):
    """Nothing is pruned."""


class PrunerSection(ExactlyOne):
    """What ends a hopeless trial early."""

    noun: ClassVar[str] = "pruner"

    asha: AshaSettings | None = None
    median: MedianSettings | None = None
    none: NoSettings | None = None


class SearchSection(Section):
    """How long and by what means the space is searched."""

    trials: Annotated[int, _count("a search has 1 to 1000000 trials", high=1_000_000)] = 100
    sampler: SamplerSection = SamplerSection(tpe=TpeSettings())
    pruner: PrunerSection = PrunerSection(asha=AshaSettings())
    retries: Annotated[int, _count("retries are 0 to 100", low=0, high=100)] = 2
    max_failed: Annotated[
        float, Number("max_failed is a share of the trials, 0 to 1", high=1.0, ranged=False)
    ] = 0.8
    metric: Annotated[str, Word("a metric", METRICS, ranged=False)] = "accuracy"
    seed: Annotated[int, _count("a seed lies in 0 to 4294967295", low=0, high=2**32 - 1)] = 0
    look_at_test: Annotated[bool, Flag(ranged=False)] | None = None


class RetrainSection(Section):
    """How the winner is found among the best, and trained."""

    finalists: Annotated[int, _count("there are 1 to 1000 finalists", high=1000)] = 3
    seeds: Annotated[int, _count("there are 1 to 1000 seeds", high=1000)] = 5


class StudyDefinition(Section):
    """A study file, read and checked; what is stored with the study.

    Attributes:
        name: the study's name, from the file's (it is no key of the file).
    """

    not_yet: ClassVar[dict[str, str]] = {
        "name": "a study is named after its file, or by `--name`; leave this key out",
    }

    name: str
    dataset: DatasetSection
    model: ModelSection
    optimizer: OptimizerSection
    schedule: ScheduleSection = ScheduleSection.model_validate({"constant": {}})
    training: TrainingSection
    search: SearchSection = SearchSection()
    retrain: RetrainSection = RetrainSection()
    variations: tuple[dict[str, Any], ...] = ()

    @property
    def looks_at_test(self) -> bool:
        """Whether each run is scored on the test rows; never where anything is searched.

        Nor with folds, where a run has a network for each, and none that is its own.
        """
        closed = self.search.look_at_test is False or self.dataset.folds is not None
        return bool(self.variations) and not closed

    @cached_property
    def runs(self) -> tuple[StudyDefinition, ...]:
        """What is trained: a definition for each variation; this one where there are none."""
        if not self.variations:
            return (self,)
        base = without_variations(self.model_dump(mode="json"))
        return tuple(type(self).model_validate(varied(base, one)) for one in self.variations)

    @classmethod
    def keys(cls) -> list[str]:
        """The sections."""
        return [key for key in cls.model_fields if key != "name"]

    @classmethod
    def prepared(cls, data: dict[str, Any] | str) -> Any:
        """`search:` with nothing below it keeps its default; every variation is one trial."""
        if isinstance(data, str):
            return data
        data = {key: value for key, value in data.items() if value is not None}
        variations, search = data.get("variations"), data.get("search", {})
        if is_list(variations) and variations and isinstance(search, Mapping):
            data["search"] = {"trials": len(variations), "pruner": "none", **search}
        return data

    @classmethod
    def key_problems(cls, data: dict[str, Any]) -> list[InitErrorDetails]:
        """What a study with variations cannot have, and one without."""
        return problems_with_variations(data, cls._problems)

    @classmethod
    def _problems(cls, data: dict[str, Any]) -> list[Problem]:
        try:
            cls.model_validate(data)
        except ValidationError as error:
            return problems_in(error)
        return []

    @field_validator("variations", mode="before")
    @classmethod
    def _are_mappings(cls, variations: object) -> object:
        if not is_list(variations):
            sentence = f"{shown(variations)} stands where a list of mappings is wanted"
            raise invalid([detail(sentence)])
        form = "a variation is a mapping, as in {training.batch_size: 16}; {} is the baseline"
        wrong = [
            detail(f"{shown(one)} stands here; {form}", place)
            for place, one in enumerate(variations)
            if not isinstance(one, Mapping)
        ]
        if wrong:
            raise invalid(wrong)
        return variations

    @model_validator(mode="after")
    def _a_grid_has_steps(self) -> Self:
        if self.search.sampler.grid is None:
            return self
        endless = [
            (path, leaf)
            for path, leaf in self.leaves()
            if isinstance(leaf, FloatRange) and leaf.step is None and leaf.low < leaf.high
        ]
        if endless:
            raise invalid([detail(_stepless(leaf), *path) for path, leaf in endless])
        return self

    @field_validator("name", mode="plain")
    @classmethod
    def _is_a_name(cls, name: object) -> str:
        try:
            return valid_name(str(name))
        except UsageError as error:
            raise invalid([detail(str(error))]) from None

    @model_validator(mode="after")
    def _numpy_can_do_it(self) -> Self:
        if "numpy_cnn" in self.model.families:
            training = self.training
            asked = (self.optimizer, training.precision)
            problems = list(beyond_numpy(*asked, gradient_reset=training.gradient_reset))
            if problems:
                raise invalid(problems)
        return self

    @model_validator(mode="after")
    def _has_what_is_watched(self) -> Self:
        others = [name for name in self.model.families if name != "mlp"]
        if self.training.diagnostics and others:
            sentence = (
                f"gradient norms are those of an mlp, and {others[0]} has none; leave this out"
            )
            raise invalid([detail(sentence, "training", "diagnostics")])
        return self

    def to_json(self) -> str:
        """Everything, defaults included, as one line of JSON; `from_json` gives it back."""
        return json.dumps(self.model_dump(mode="json"))

    @classmethod
    def from_json(cls, text: str) -> StudyDefinition:
        """Read what `to_json` wrote.

        Raises:
            DefinitionError: this is no definition, or one of another version of hpo.
        """
        source = "the stored definition"
        try:
            return cls.model_validate(json.loads(text))
        except ValidationError as error:
            raise DefinitionError(render(problems_in(error), {}, source)) from None
        except (ValueError, RecursionError):
            raise DefinitionError([f"{source}: this is not JSON"]) from None


def _stepless(leaf: FloatRange) -> str:
    low, high = f"{leaf.low:g}", f"{leaf.high:g}"
    return (
        f"{leaf} is continuous, and `sampler: grid` visits every value; give it steps, "
        f"{{float: [{low}, {high}], step: ...}}, or {{choice: [{low}, {high}]}} with more between"
    )


def problems_in(error: ValidationError) -> list[Problem]:
    """Pydantic's errors, whose messages are sentences of ours by then."""
    lines = error.errors(include_url=False, include_input=False, include_context=False)
    return [Problem(line["loc"], line["msg"]) for line in lines]
