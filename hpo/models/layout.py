"""Where the numbers of members lie: rows in the wide layers, places in the flat tensors.

A unit of a layer is a row of its wide tensors, `[units, batch]`, so a member's units are one block
of memory, and what is done unit by unit runs along it. A layer's weights lie one member after the
other: the first layers of all members that read the same inputs are one matrix, and neighbours of
one shape are one batched product. What is one number a unit (bias, batch norm) is one vector a
layer. Members that read the same numbers of a batch, all or what dropout leaves of them, are one
matrix in the first layer; one that normalises its inputs has these to itself, as rows it reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from hpo.config import MlpConfig

__all__ = [
    "LayerLayout",
    "Layout",
    "NormLayout",
    "ProductLayout",
    "ReadingLayout",
    "Span",
    "arrange",
]

_Kind = TypeVar("_Kind")


def arrange(configs: Sequence[MlpConfig], streams: Sequence[int]) -> list[int]:
    """The order in which members should lie: batch norm first, then what they read, and shape.

    So batch norm is one range of rows, and members that read the same, have one activation or
    one shape are neighbours. The order is stable; a member's result does not depend on it, only
    the speed does.

    Args:
        streams: for each member, which of the population's batches it reads.
    """
    return sorted(
        range(len(configs)),
        key=lambda index: (
            not configs[index].batch_norm,
            streams[index],
            configs[index].input_batch_norm,
            configs[index].input_dropout,
            configs[index].activation,
            configs[index].widths,
        ),
    )


@dataclass(frozen=True)
class Span:
    """A place in a flat tensor, and the shape of what lies there."""

    start: int
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def view(self, flat: Tensor) -> Tensor:
        """That part of `flat`, in its shape."""
        return flat[self.start : self.start + self.size].view(self.shape)

    def part(self, rows: slice) -> Span:
        """Some of its rows, along the first dimension."""
        row = math.prod(self.shape[1:])
        return Span(self.start + rows.start * row, (rows.stop - rows.start, *self.shape[1:]))


@dataclass
class ProductLayout:
    """Equal products of neighbours: `weights @ what they read`, each written to its own rows.

    Attributes:
        below: the hidden layer that is read; -1 for inputs.
        reading: which of the readings, where that is read.
        count: how many products; members that read the same inputs make one taller matrix.
        inputs: the rows that are read, of all products together.
        outputs: the rows that are written, of all products together.
        weights: `[outputs of all, inputs of each]`.
    """

    below: int
    reading: int
    count: int
    inputs: slice
    outputs: slice
    weights: Span


@dataclass
class NormLayout:
    """Batch norm over the first rows of a layer; one number a unit in each."""

    weight: Span
    bias: Span
    mean: Span
    variance: Span


@dataclass
class ReadingLayout:
    """What the first products of some members read.

    Attributes:
        stream: whose batch.
        dropout: the probability with which its numbers are zeroed in training.
        norm: batch norm of each member, a number for each of its inputs, which then are its own;
            None where all read the same.
    """

    stream: int
    dropout: float
    norm: NormLayout | None = None

    @property
    def is_prepared(self) -> bool:
        """Whether it is something else than the batch."""
        return self.norm is not None or self.dropout > 0


@dataclass
class LayerLayout:
    """One layer of all members that are deep enough to have it.

    Attributes:
        width: units of all of them together.
        normed: how many of these, counted from the first, have batch norm; the others a bias.
        rows_of: each member's units.
        runs: activations, each with the range of neighbouring units that have it.
        dropped: of members with dropout their units, and the probability.
        products: what writes its units.
        bias: of the units that have one.
    """

    width: int
    normed: int
    rows_of: dict[int, slice]
    runs: list[tuple[str, slice]]
    dropped: dict[int, tuple[slice, float]]
    products: list[ProductLayout] = field(default_factory=list)
    bias: Span | None = None
    norm: NormLayout | None = None


class Layout:
    """The plan for some members, in the order given.

    Args:
        streams: for each member, which of the population's batches it reads.

    Attributes:
        readings: what is read of the batches.
        layers: hidden layers, first to last.
        output: the products that write the logits, `outputs` rows a member.
        output_bias: of all members, `[members * outputs]`.
        trained: size of the flat tensor of parameters.
        tracked: size of the flat tensor of running statistics.
        parameters: for each member, its spans among the parameters by their name in
            `Mlp.state_dict()`.
        statistics: likewise among the running statistics.
    """

    def __init__(
        self, configs: Sequence[MlpConfig], inputs: int, outputs: int, streams: Sequence[int]
    ) -> None:
        self.trained = 0
        self.tracked = 0
        self.parameters: list[dict[str, Span]] = [{} for _ in configs]
        self.statistics: list[dict[str, Span]] = [{} for _ in configs]
        self.layers: list[LayerLayout] = []
        self.readings: list[ReadingLayout] = []
        self._reads: dict[int, tuple[int, slice]] = {}  # of each member: which, and its rows there
        self._place_readings(configs, inputs, streams)
        depths = {member: len(config.widths) - 1 for member, config in enumerate(configs)}
        for depth in range(max(depths.values(), default=-1) + 1):
            here = {m: config for m, config in enumerate(configs) if depths[m] >= depth}
            layer = _rows(here, depth)
            self.layers.append(layer)
            names = dict.fromkeys(here, f"layers.{depth}.linear.weight")
            below = dict.fromkeys(here, depth - 1)
            layer.products = self._products(names, below, layer.rows_of)
            self._place_vectors(layer, depth)
        rows = {m: slice(m * outputs, (m + 1) * outputs) for m in range(len(configs))}
        self.output = self._products(dict.fromkeys(rows, "output.weight"), depths, rows)
        self.output_bias = self._trained((len(configs) * outputs,))
        _own(self.parameters, dict.fromkeys(rows, "output.bias"), self.output_bias, rows)

    def _place_readings(
        self, configs: Sequence[MlpConfig], inputs: int, streams: Sequence[int]
    ) -> None:
        """Put together who reads the same, or the same but for a batch norm's scale and shift."""
        readers: dict[tuple[int, bool, float], list[int]] = {}
        for member, (config, stream) in enumerate(zip(configs, streams, strict=True)):
            key = (stream, config.input_batch_norm, config.input_dropout)
            readers.setdefault(key, []).append(member)
        for (stream, norm, dropout), members in readers.items():
            reading = ReadingLayout(stream, dropout)
            own = {member: slice(0, inputs) for member in members}
            if norm:
                own = {m: slice(i * inputs, (i + 1) * inputs) for i, m in enumerate(members)}
                reading.norm = self._place_norm("input.norm", own)
            self._reads |= {m: (len(self.readings), rows) for m, rows in own.items()}
            self.readings.append(reading)

    def _products(
        self, names: Mapping[int, str], below: Mapping[int, int], rows: Mapping[int, slice]
    ) -> list[ProductLayout]:
        """Lay out the weights with which members write some rows, and own them.

        Args:
            names: for each member, what its weights are called.
            below: the layer that it reads.
            rows: what it writes.
        """
        groups: list[list[int]] = []
        for member in rows:
            if groups and self._joins(groups[-1][-1], member, below, rows):
                groups[-1].append(member)
            else:
                groups.append([member])
        products = []
        for members in groups:
            first, last = members[0], members[-1]
            (depth, reading), inputs = self._source(first, below)
            _, end = self._source(last, below)
            outputs = slice(rows[first].start, rows[last].stop)
            weights = self._trained((_length(outputs), _length(inputs)))
            own = {member: _within(rows[member], outputs.start) for member in members}
            _own(self.parameters, names, weights, own)
            products.append(
                ProductLayout(
                    below=depth,
                    reading=reading,
                    count=1 if inputs == end else len(members),
                    inputs=slice(inputs.start, end.stop),
                    outputs=outputs,
                    weights=weights,
                )
            )
        return products

    def _joins(
        self, last: int, member: int, below: Mapping[int, int], rows: Mapping[int, slice]
    ) -> bool:
        """Whether a member's product can be done in one with that of the member before it."""
        place, read = self._source(last, below)
        own_place, own = self._source(member, below)
        if place != own_place or rows[last].stop != rows[member].start:
            return False
        if read == own:
            return True
        # A shallower member that lies between the two keeps them apart.
        return (
            read.stop == own.start
            and _length(read) == _length(own)
            and _length(rows[last]) == _length(rows[member])
        )

    def _source(self, member: int, below: Mapping[int, int]) -> tuple[tuple[int, int], slice]:
        """What a member's product reads: the layer, or -1 and the reading; and its rows there."""
        depth = below[member]
        if depth >= 0:
            return (depth, 0), self.layers[depth].rows_of[member]
        reading, rows = self._reads[member]
        return (depth, reading), rows

    def _place_vectors(self, layer: LayerLayout, depth: int) -> None:
        normed = {m: rows for m, rows in layer.rows_of.items() if rows.stop <= layer.normed}
        biased = {
            member: _within(rows, layer.normed)
            for member, rows in layer.rows_of.items()
            if member not in normed
        }
        if biased:
            layer.bias = self._trained((layer.width - layer.normed,))
            names = dict.fromkeys(biased, f"layers.{depth}.linear.bias")
            _own(self.parameters, names, layer.bias, biased)
        if normed:
            layer.norm = self._place_norm(f"layers.{depth}.norm", normed)

    def _place_norm(self, name: str, rows: Mapping[int, slice]) -> NormLayout:
        """Batch norm of units that lie next to each other, from row 0 on."""
        shape = (sum(map(_length, rows.values())),)
        norm = NormLayout(
            weight=self._trained(shape),
            bias=self._trained(shape),
            mean=self._tracked(shape),
            variance=self._tracked(shape),
        )
        for spans, part, whole in (
            (self.parameters, "weight", norm.weight),
            (self.parameters, "bias", norm.bias),
            (self.statistics, "running_mean", norm.mean),
            (self.statistics, "running_var", norm.variance),
        ):
            _own(spans, dict.fromkeys(rows, f"{name}.{part}"), whole, rows)
        return norm

    def _trained(self, shape: tuple[int, ...]) -> Span:
        span = Span(self.trained, shape)
        self.trained += span.size
        return span

    def _tracked(self, shape: tuple[int, ...]) -> Span:
        span = Span(self.tracked, shape)
        self.tracked += span.size
        return span


def _rows(here: Mapping[int, MlpConfig], depth: int) -> LayerLayout:
    """The units of the members that have a layer there; those with batch norm come first."""
    rows_of: dict[int, slice] = {}
    end = normed = 0
    for member, config in here.items():
        start, end = end, end + config.widths[depth]
        rows_of[member] = slice(start, end)
        normed = end if config.batch_norm else normed
    return LayerLayout(
        width=end,
        normed=normed,
        rows_of=rows_of,
        runs=_merge((here[member].activation, rows) for member, rows in rows_of.items()),
        dropped={m: (rows, here[m].dropout) for m, rows in rows_of.items() if here[m].dropout > 0},
    )


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _within(rows: slice, start: int) -> slice:
    """The same rows, counted from another one on."""
    return slice(rows.start - start, rows.stop - start)


def _merge(runs: Iterable[tuple[_Kind, slice]]) -> list[tuple[_Kind, slice]]:
    """Neighbouring ranges of one kind as one range."""
    merged: list[tuple[_Kind, slice]] = []
    for kind, rows in runs:
        if merged and merged[-1][0] == kind and merged[-1][1].stop == rows.start:
            merged[-1] = (kind, slice(merged[-1][1].start, rows.stop))
        else:
            merged.append((kind, rows))
    return merged


def _own(
    spans: list[dict[str, Span]], names: Mapping[int, str], whole: Span, rows: Mapping[int, slice]
) -> None:
    for member, part in rows.items():
        spans[member][names[member]] = whole.part(part)
