"""Where the numbers of members lie: columns in the wide layers, places in the flat tensors.

A layer's weights lie one member after the other, so the first layers of all members, which share
their input, are one matrix. What is one number a column (bias, batch norm) is one vector a layer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from torch import Tensor

from hpo.config import MlpConfig

__all__ = ["LayerLayout", "Layout", "NormLayout", "Span", "arrange"]

_Kind = TypeVar("_Kind")


def arrange(configs: Sequence[MlpConfig], streams: Sequence[int]) -> list[int]:
    """The order in which members should lie: batch norm first, then by stream and activation.

    So batch norm is one range of columns, and members that read one stream or have one activation
    are neighbours. The order is stable; a member's result does not depend on it, only the speed
    does.

    Args:
        streams: for each member, which of the population's batches it reads.
    """
    return sorted(
        range(len(configs)),
        key=lambda index: (
            not configs[index].batch_norm,
            streams[index],
            configs[index].activation,
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

    def part(self, columns: slice) -> Span:
        """Some of the columns of a span with one number a column."""
        return Span(self.start + columns.start, (columns.stop - columns.start,))


@dataclass
class NormLayout:
    """Batch norm over the first columns of a layer; one number a column in each."""

    weight: Span
    bias: Span
    mean: Span
    variance: Span


@dataclass
class LayerLayout:
    """One hidden layer of all members that are deep enough to have it.

    Attributes:
        width: columns of all of them together.
        normed: how many of these, counted from the first, have batch norm.
        columns_of: each member's columns.
        inputs_of: each member's columns in the layer below; empty in the first layer.
        runs: activations, each with the range of neighbouring columns that have it.
        weights: each member's matrix, `[units, inputs]`.
        shared: in the first layer, neighbours that read one stream as one matrix: the stream,
            their columns, and their weights `[columns, inputs]`.
        bias: of the columns without batch norm.
    """

    width: int
    normed: int
    columns_of: dict[int, slice]
    inputs_of: dict[int, slice]
    runs: list[tuple[str, slice]]
    weights: dict[int, Span] = field(default_factory=dict)
    shared: list[tuple[int, slice, Span]] = field(default_factory=list)
    bias: Span | None = None
    norm: NormLayout | None = None


class Layout:
    """The plan for some members, in the order given.

    Args:
        streams: for each member, which of the population's batches it reads.

    Attributes:
        layers: the hidden layers, first to last.
        output_weights: each member's `[outputs, units of its last layer]`.
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
        for depth in range(max((len(config.widths) for config in configs), default=0)):
            self.layers.append(self._columns(configs, depth))
            self._place(depth, inputs, streams)
        self.output_weights = []
        for member, config in enumerate(configs):
            weight = self._trained((outputs, config.widths[-1] if config.widths else inputs))
            self.parameters[member]["output.weight"] = weight
            self.output_weights.append(weight)
        self.output_bias = self._trained((len(configs) * outputs,))
        columns = {m: slice(m * outputs, (m + 1) * outputs) for m in range(len(configs))}
        _own(self.parameters, "output.bias", self.output_bias, columns)

    def _columns(self, configs: Sequence[MlpConfig], depth: int) -> LayerLayout:
        columns_of: dict[int, slice] = {}
        end = normed = 0
        for member, config in enumerate(configs):
            if len(config.widths) > depth:
                start, end = end, end + config.widths[depth]
                columns_of[member] = slice(start, end)
                normed = end if config.batch_norm else normed
        return LayerLayout(
            width=end,
            normed=normed,
            columns_of=columns_of,
            inputs_of=self.layers[-1].columns_of if self.layers else {},
            runs=_merge((configs[m].activation, columns) for m, columns in columns_of.items()),
        )

    def _place(self, depth: int, inputs: int, streams: Sequence[int]) -> None:
        layer, prefix, first = self.layers[depth], f"layers.{depth}", self.trained
        for member, columns in layer.columns_of.items():
            below = layer.inputs_of.get(member, slice(0, inputs))
            shape = (columns.stop - columns.start, below.stop - below.start)
            layer.weights[member] = self._trained(shape)
            self.parameters[member][f"{prefix}.linear.weight"] = layer.weights[member]
        if depth == 0:
            for stream, columns in _merge((streams[m], c) for m, c in layer.columns_of.items()):
                start = first + columns.start * inputs
                span = Span(start, (columns.stop - columns.start, inputs))
                layer.shared.append((stream, columns, span))
        plain = {
            m: slice(c.start - layer.normed, c.stop - layer.normed)
            for m, c in layer.columns_of.items()
            if c.start >= layer.normed
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
        normed = {m: c for m, c in layer.columns_of.items() if c.stop <= layer.normed}
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


def _merge(runs: Iterable[tuple[_Kind, slice]]) -> list[tuple[_Kind, slice]]:
    """Neighbouring ranges of one kind as one range."""
    merged: list[tuple[_Kind, slice]] = []
    for kind, columns in runs:
        if merged and merged[-1][0] == kind:
            merged[-1] = (kind, slice(merged[-1][1].start, columns.stop))
        else:
            merged.append((kind, columns))
    return merged


def _own(
    spans: list[dict[str, Span]], name: str, whole: Span, columns: Mapping[int, slice]
) -> None:
    for member, part in columns.items():
        spans[member][name] = whole.part(part)
