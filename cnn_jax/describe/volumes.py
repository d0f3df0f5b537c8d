"""The volume table: a row for each layer, and their sum."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import overload

from cnn_jax.describe import formats
from cnn_jax.describe.receptive import Field


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerRow:
    """One layer of a model. All counts are for one example.

    Attributes:
      layer: names from the model down to the layer, e.g. `'encoder/C1'`; the function's where a pool is not a layer.
      kind: the layer's class, e.g. `'Conv'`; `'function'` for a pool that is not a layer.
      kernel: extent of the window in each spatial dimension; None for a layer without one.
      stride: step of the window in each spatial dimension; None for a layer without one.
      padding: (before, after) in each spatial dimension: how many zeros stand around the input, or around the
        spread-out input of a transposed convolution (elements of the input itself with 'CIRCULAR' and 'REFLECT');
        None for a layer without a window.
      output: shape of the output volume, channels last.
      parameters: number of trainable values; 0 where an earlier row has counted them already.
      connections: as LeCun et al. (1998) count them: for each unit of the output the weights that feed it, and one
        more for its bias. Units of plain pools have one for each element of the window, units of `Subsample` these
        and a bias, units of `RadialBasis` one for each input. Padding counts as input. Other layers have 0.
      multiply_adds: products of a weight and an input, each added to a sum. Convolutions and dense layers have them,
        `Subsample` has one for each unit and `RadialBasis` one for each connection; biases, pools and all other
        layers count none. Padding counts as input.
      receptive_field: what a unit of the output sees of the input along each spatial axis; None where this is not to be
        had as size, stride and offset, or not known: behind transposed convolutions with a stride, dilated inputs,
        'CIRCULAR' or 'REFLECT' padding, masks that leave positions out, loops and operations that move elements
        about; and for inputs without spatial axes.
      memory: bytes of the output in float32.
      dense_parameters: of a convolution, the parameters that a dense layer between the same two volumes would need,
        with a bias for each unit if the convolution has biases; None for other layers.
    """

    layer: str
    kind: str
    kernel: tuple[int, ...] | None = None
    stride: tuple[int, ...] | None = None
    padding: tuple[tuple[int, int], ...] | None = None
    output: tuple[int, ...] = ()
    parameters: int = 0
    connections: int = 0
    multiply_adds: int = 0
    receptive_field: tuple[Field, ...] | None = None
    memory: int = 0
    dense_parameters: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Volumes(Sequence[LayerRow]):
    """The layers of a model as a sequence of rows, in the order in which they finish.

    Printed it is a table of text, in a notebook one of HTML.

    Attributes:
      model: the model's class, e.g. `'LeNet5'`.
      input: shape of one example, e.g. (32, 32, 1).
      rows: the rows.
    """

    model: str
    input: tuple[int, ...]
    rows: tuple[LayerRow, ...]

    @property
    def total(self) -> LayerRow:
        """All rows as one called `'total'`: the sums of what is counted, and the last output volume."""
        dense = [row.dense_parameters for row in self.rows if row.dense_parameters is not None]
        return LayerRow(
            layer="total",
            kind="",
            output=next((row.output for row in reversed(self.rows) if row.kind), self.input),
            parameters=sum(row.parameters for row in self.rows),
            connections=sum(row.connections for row in self.rows),
            multiply_adds=sum(row.multiply_adds for row in self.rows),
            memory=sum(row.memory for row in self.rows),
            dense_parameters=sum(dense) if dense else None,
        )

    @overload
    def __getitem__(self, index: int) -> LayerRow: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[LayerRow, ...]: ...
    def __getitem__(self, index: int | slice) -> LayerRow | tuple[LayerRow, ...]:
        return self.rows[index]

    def __len__(self) -> int:
        return len(self.rows)

    def text(self, width: int = 100) -> str:
        """The table for a terminal of `width` columns, and what sharing weights saves.

        A wider table is given without connections, and if it still is too wide without kinds, and so on until layers,
        output volumes and parameters are left.
        """
        return formats.text(self, width)

    def markdown(self) -> str:
        """The table in GitHub's Markdown, and what sharing weights saves."""
        return formats.markdown(self)

    def html(self) -> str:
        """The table as an HTML fragment that needs nothing else, and what sharing weights saves."""
        return formats.html(self)

    def __str__(self) -> str:
        return self.text()

    def _repr_html_(self) -> str:
        return self.html()
