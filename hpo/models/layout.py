"""Where the numbers of members lie: rows in the wide layers, places in the flat tensors.

A unit of a layer is a row of its wide tensors, `[units, batch]`, so a member's units are one block
of memory, and what is done unit by unit runs along it. A layer's weights lie one member after the
other: the first layers of all members that read the same batch are one matrix, and neighbours of
one shape are one batched product. What is one number a unit (bias, batch norm) is one vector a
layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from hpo.config import MlpConfig

__all__ = ["LayerLayout", "Layout", "NormLayout", "ProductLayout", "Span", "arrange"]

_Kind = TypeVar("_Kind")


def arrange(configs: Sequence[MlpConfig], streams: Sequence[int]) -> list[int]:
    """The order in which members should lie: batch norm first, then stream, activation, widths.

    So batch norm is one range of rows, and members that read one stream, have one activation or
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
        below: the hidden layer that is read; -1 for the batch itself.
        stream: which batch, where that is read.
        count: how many products; members that read the batch make one taller matrix.
        inputs: the rows that are read, of all products together.
        outputs: the rows that are written, of all products together.
        weights: `[outputs of all, inputs of each]`.
    """

    below: int
    stream: int
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
class LayerLayout:
    """One hidden layer of all members that are deep enough to have it.

    Attributes:
        width: units of all of them together.
        normed: how many of these, counted from the first, have batch norm.
        rows_of: each member's units.
        runs: activations, each with the range of neighbouring units that have it.
        products: what writes its units.
        bias: of the units without batch norm.
    """

    width: int
    normed: int
    rows_of: dict[int, slice]
    runs: list[tuple[str, slice]]
    products: list[ProductLayout] = field(default_factory=list)
    bias: Span | None = None
    norm: NormLayout | None = None


class Layout:
    """The plan for some members, in the order given.

    Args:
        streams: for each member, which of the population's batches it reads.

    Attributes:
        layers: the hidden layers, first to last.
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
        self._inputs = slice(0, inputs)
        self._streams = streams
        for depth in range(max((len(config.widths) for config in configs), default=0)):
            layer = _rows(configs, depth)
            self.layers.append(layer)
            depths = dict.fromkeys(layer.rows_of, depth - 1)
            name = f"layers.{depth}.linear.weight"
            layer.products = self._products(name, depths, layer.rows_of)
            self._place_vectors(depth, layer)
        rows = {m: slice(m * outputs, (m + 1) * outputs) for m in range(len(configs))}
        depths = {member: len(config.widths) - 1 for member, config in enumerate(configs)}
        self.output = self._products("output.weight", depths, rows)
        self.output_bias = self._trained((len(configs) * outputs,))
        _own(self.parameters, "output.bias", self.output_bias, rows)

    def _products(
        self, name: str, below: Mapping[int, int], rows: Mapping[int, slice]
    ) -> list[ProductLayout]:
        """Lay out the weights with which members write some rows, and own them by that name.

        Args:
            below: for each member, the layer that it reads.
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
            depth, inputs = below[first], self._read(first, below)
            outputs = slice(rows[first].start, rows[last].stop)
            weights = self._trained((_length(outputs), _length(inputs)))
            own = {member: _within(rows[member], outputs.start) for member in members}
            _own(self.parameters, name, weights, own)
            products.append(
                ProductLayout(
                    below=depth,
                    stream=self._streams[first] if depth < 0 else 0,
                    count=1 if depth < 0 else len(members),
                    inputs=slice(inputs.start, self._read(last, below).stop),
                    outputs=outputs,
                    weights=weights,
                )
            )
        return products

    def _joins(
        self, last: int, member: int, below: Mapping[int, int], rows: Mapping[int, slice]
    ) -> bool:
        """Whether a member's product can be done in one with that of the member before it."""
        if below[last] != below[member]:
            return False
        if below[member] < 0:
            return self._streams[last] == self._streams[member]
        read, own = self._read(last, below), self._read(member, below)
        # A shallower member that lies between the two keeps them apart.
        return (
            read.stop == own.start
            and _length(read) == _length(own)
            and (_length(rows[last]) == _length(rows[member]))
        )

    def _read(self, member: int, below: Mapping[int, int]) -> slice:
        depth = below[member]
        return self.layers[depth].rows_of[member] if depth >= 0 else self._inputs

    def _place_vectors(self, depth: int, layer: LayerLayout) -> None:
        prefix = f"layers.{depth}"
        plain = {
            member: _within(rows, layer.normed)
            for member, rows in layer.rows_of.items()
            if rows.start >= layer.normed
        }
        if plain:
            layer.bias = self._trained((layer.width - layer.normed,))
            _own(self.parameters, f"{prefix}.linear.bias", layer.bias, plain)
        if layer.normed:
            layer.norm = self._place_norm(f"{prefix}.norm", layer)

    def _place_norm(self, prefix: str, layer: LayerLayout) -> NormLayout:
        shape = (layer.normed,)
        norm = NormLayout(
            weight=self._trained(shape),
            bias=self._trained(shape),
            mean=self._tracked(shape),
            variance=self._tracked(shape),
        )
        normed = {m: rows for m, rows in layer.rows_of.items() if rows.stop <= layer.normed}
        _own(self.parameters, f"{prefix}.weight", norm.weight, normed)
        _own(self.parameters, f"{prefix}.bias", norm.bias, normed)
        _own(self.statistics, f"{prefix}.running_mean", norm.mean, normed)
        _own(self.statistics, f"{prefix}.running_var", norm.variance, normed)
        return norm

    def _trained(self, shape: tuple[int, ...]) -> Span:
        span = Span(self.trained, shape)
        self.trained += span.size
        return span

    def _tracked(self, shape: tuple[int, ...]) -> Span:
        span = Span(self.tracked, shape)
        self.tracked += span.size
        return span


def _rows(configs: Sequence[MlpConfig], depth: int) -> LayerLayout:
    rows_of: dict[int, slice] = {}
    end = normed = 0
    for member, config in enumerate(configs):
        if len(config.widths) > depth:
            start, end = end, end + config.widths[depth]
            rows_of[member] = slice(start, end)
            normed = end if config.batch_norm else normed
    runs = _merge((configs[member].activation, rows) for member, rows in rows_of.items())
    return LayerLayout(width=end, normed=normed, rows_of=rows_of, runs=runs)


def _length(rows: slice) -> int:
    return int(rows.stop - rows.start)


def _within(rows: slice, start: int) -> slice:
    """The same rows, counted from another one on."""
    return slice(rows.start - start, rows.stop - start)


def _merge(runs: Iterable[tuple[_Kind, slice]]) -> list[tuple[_Kind, slice]]:
    """Neighbouring ranges of one kind as one range."""
    merged: list[tuple[_Kind, slice]] = []
    for kind, rows in runs:
        if merged and merged[-1][0] == kind:
            merged[-1] = (kind, slice(merged[-1][1].start, rows.stop))
        else:
            merged.append((kind, rows))
    return merged


def _own(spans: list[dict[str, Span]], name: str, whole: Span, rows: Mapping[int, slice]) -> None:
    for member, part in rows.items():
        spans[member][name] = whole.part(part)
