"""Where the numbers of members lie: rows in the wide layers, places in the flat tensors.

A unit of a layer is a row of its wide tensors, `[units, batch]`, so a member's units are one block
of memory, and what is done unit by unit runs along it. A layer's weights lie one member after the
other: the first layers of all members that read the same batch are one matrix, and neighbours of
one shape are one batched product. What is one number a unit (bias, batch norm) is one vector a
layer. A member that normalises its inputs, or drops some, has them as units of a first layer that
has no product.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from hpo.config import MlpConfig

__all__ = ["IDENTITY", "LayerLayout", "Layout", "NormLayout", "ProductLayout", "Span", "arrange"]

IDENTITY = "identity"
"""The activation of prepared inputs."""

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
        pulls: whether something that is trained lies below.
        inputs: the rows that are read, of all products together.
        outputs: the rows that are written, of all products together.
        weights: `[outputs of all, inputs of each]`.
    """

    below: int
    stream: int
    count: int
    pulls: bool
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


@dataclass(frozen=True)
class _Stage:
    """One layer of a member: prepared inputs, or a hidden layer."""

    name: str
    width: int
    linear: bool
    norm: bool
    activation: str
    dropout: float


@dataclass
class LayerLayout:
    """One layer of all members that are deep enough to have it.

    Attributes:
        width: units of all of them together.
        normed: how many of these, counted from the first, have batch norm.
        biased: where those end that have a bias instead; units after them have neither.
        rows_of: each member's units.
        runs: activations, each with the range of neighbouring units that have it.
        dropped: of members with dropout their units, and the probability.
        products: what writes its units.
        copies: units that are inputs, each range with the stream that it reads.
        bias: of the units that have one.
    """

    width: int
    normed: int
    biased: int
    rows_of: dict[int, slice]
    runs: list[tuple[str, slice]]
    dropped: dict[int, tuple[slice, float]]
    products: list[ProductLayout] = field(default_factory=list)
    copies: list[tuple[int, slice]] = field(default_factory=list)
    bias: Span | None = None
    norm: NormLayout | None = None


class Layout:
    """The plan for some members, in the order given.

    Args:
        streams: for each member, which of the population's batches it reads.

    Attributes:
        layers: prepared inputs and hidden layers, first to last.
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
        self._only_dropped = {
            member
            for member, config in enumerate(configs)
            if config.prepares_input and not config.input_batch_norm
        }
        stages = [_stages(config, inputs) for config in configs]
        for depth in range(max(map(len, stages), default=0)):
            here = {m: own[depth] for m, own in enumerate(stages) if len(own) > depth}
            layer = _rows(here)
            self.layers.append(layer)
            linear = {m: rows for m, rows in layer.rows_of.items() if here[m].linear}
            names = {m: f"{here[m].name}.linear.weight" for m in linear}
            layer.products = self._products(names, dict.fromkeys(linear, depth - 1), linear)
            layer.copies = _merge(
                (streams[m], rows) for m, rows in layer.rows_of.items() if m not in linear
            )
            self._place_vectors(here, layer)
        rows = {m: slice(m * outputs, (m + 1) * outputs) for m in range(len(configs))}
        depths = {member: len(own) - 1 for member, own in enumerate(stages)}
        self.output = self._products(dict.fromkeys(rows, "output.weight"), depths, rows)
        self.output_bias = self._trained((len(configs) * outputs,))
        _own(self.parameters, dict.fromkeys(rows, "output.bias"), self.output_bias, rows)

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
            depth, inputs = below[first], self._read(first, below)
            outputs = slice(rows[first].start, rows[last].stop)
            weights = self._trained((_length(outputs), _length(inputs)))
            own = {member: _within(rows[member], outputs.start) for member in members}
            _own(self.parameters, names, weights, own)
            products.append(
                ProductLayout(
                    below=depth,
                    stream=self._streams[first] if depth < 0 else 0,
                    count=1 if depth < 0 else len(members),
                    pulls=self._pulls(first, depth),
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
        depth = below[member]
        if below[last] != depth or rows[last].stop != rows[member].start:
            return False
        if self._pulls(last, depth) != self._pulls(member, depth):
            return False
        if depth < 0:
            return self._streams[last] == self._streams[member]
        read, own = self._read(last, below), self._read(member, below)
        # A shallower member that lies between the two keeps them apart.
        return (
            read.stop == own.start
            and _length(read) == _length(own)
            and (_length(rows[last]) == _length(rows[member]))
        )

    def _pulls(self, member: int, below: int) -> bool:
        return below > 0 or (below == 0 and member not in self._only_dropped)

    def _read(self, member: int, below: Mapping[int, int]) -> slice:
        depth = below[member]
        return self.layers[depth].rows_of[member] if depth >= 0 else self._inputs

    def _place_vectors(self, here: Mapping[int, _Stage], layer: LayerLayout) -> None:
        biased = {
            member: _within(rows, layer.normed)
            for member, rows in layer.rows_of.items()
            if layer.normed <= rows.start < layer.biased
        }
        if biased:
            names = {member: f"{here[member].name}.linear.bias" for member in biased}
            layer.bias = self._trained((layer.biased - layer.normed,))
            _own(self.parameters, names, layer.bias, biased)
        if layer.normed:
            layer.norm = self._place_norm(here, layer)

    def _place_norm(self, here: Mapping[int, _Stage], layer: LayerLayout) -> NormLayout:
        shape = (layer.normed,)
        norm = NormLayout(
            weight=self._trained(shape),
            bias=self._trained(shape),
            mean=self._tracked(shape),
            variance=self._tracked(shape),
        )
        normed = {m: rows for m, rows in layer.rows_of.items() if rows.stop <= layer.normed}
        for spans, name, whole in (
            (self.parameters, "weight", norm.weight),
            (self.parameters, "bias", norm.bias),
            (self.statistics, "running_mean", norm.mean),
            (self.statistics, "running_var", norm.variance),
        ):
            names = {member: f"{here[member].name}.norm.{name}" for member in normed}
            _own(spans, names, whole, normed)
        return norm

    def _trained(self, shape: tuple[int, ...]) -> Span:
        span = Span(self.trained, shape)
        self.trained += span.size
        return span

    def _tracked(self, shape: tuple[int, ...]) -> Span:
        span = Span(self.tracked, shape)
        self.tracked += span.size
        return span


def _stages(config: MlpConfig, inputs: int) -> list[_Stage]:
    norm, drop = config.input_batch_norm, config.input_dropout
    first = [_Stage("input", inputs, False, norm, IDENTITY, drop)] if config.prepares_input else []
    hidden = (
        _Stage(f"layers.{i}", width, True, config.batch_norm, config.activation, config.dropout)
        for i, width in enumerate(config.widths)
    )
    return [*first, *hidden]


def _rows(here: Mapping[int, _Stage]) -> LayerLayout:
    """The units of some members: those with batch norm, those with a bias, those with neither."""
    rows_of: dict[int, slice] = {}
    end = normed = biased = 0
    for member in sorted(here, key=lambda m: (not here[m].norm, not here[m].linear)):
        stage = here[member]
        start, end = end, end + stage.width
        rows_of[member] = slice(start, end)
        normed = end if stage.norm else normed
        biased = end if stage.norm or stage.linear else biased
    return LayerLayout(
        width=end,
        normed=normed,
        biased=biased,
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
