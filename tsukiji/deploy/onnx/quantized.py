"""Grids in ONNX: inputs as `QuantizeLinear`, kernels as int8 codes.

Engines fuse `DequantizeLinear`, a layer and `QuantizeLinear` to one integer
kernel. The scales are those that were trained: nothing is calibrated again.
"""

from typing import Any, NamedTuple

import numpy as np

from compress.quantize import affine as affine_lib
from compress.quantize.integer_codes import Inputs
from tsukiji.deploy.integer import kernels
from tsukiji.deploy.onnx.builder import Graph

WIDEST = 8  # bits that an integer kernel takes
TOP = 127  # the largest code of a kernel
ROOM = 2.0**30  # for an integer bias in addition to the sums


CODING = 'coding'  # setting of a node whose input is rounded to codes


class Coding(NamedTuple):
  """How the input of a node is rounded to integer codes.

  Attributes:
    inputs: The grid, of at most 8 bits.
    behind: Whether it is the output of an integer kernel. Otherwise ONNX
      Runtime 1.32 would move the rounding before the maxima, and compute them
      in int8 with channels first, 30 times slower; a product prevents that.
    last: Whether a layer with weights is next. Before maxima and transposes,
      codes beyond the grid are not clipped if the type has them: clipping would
      prevent ONNX Runtime from computing maxima with channels last, 14 times
      faster.
  """

  inputs: Inputs
  behind: bool
  last: bool


class Affine(NamedTuple):
  """An input grid: code q represents `step * (q - zero)`, q up to `top`."""

  step: np.float32
  zero: int
  top: int


class Served(NamedTuple):
  """The weights of a layer for an integer kernel.

  Attributes:
    inputs: The grid of the layer's input.
    codes: int8, the shape of the kernel.
    scale: Scale of the codes, float32 `[channels]`.
    bias: int32 `[channels]`, or None.
    unit: Scale of the bias, float32 `[channels]`.
  """

  inputs: Inputs
  codes: np.ndarray
  scale: np.ndarray
  bias: np.ndarray | None
  unit: np.ndarray


def affine(inputs: Inputs) -> Affine:
  """Return an input grid as numbers."""
  step, zero = affine_lib.asymmetric_scale(inputs.low, inputs.high, inputs.bits)
  return Affine(np.float32(step), int(zero), 2**inputs.bits - 1)


def served(kernel: Any, bias: Any) -> Served | None:
  """Return the weights of an integer kernel, None if they do not fit.

  Codes of fewer bits are multiplied by a power of two and their scale is
  divided by it, which makes the unit of the bias finer.

  Args:
    kernel: An array or a frozen node.
    bias: `[channels]`, or None.

  Returns:
    The weights; None for floats, for codes or inputs of more than 8 bits, and
    for a bias that is too large compared with the sums.
  """
  if kernels.misfit(kernel) or kernel.inputs.bits > WIDEST:
    return None
  codes, scale = kernels.codes(kernel)
  largest = int(np.max(np.abs(codes), initial=0))
  if largest > TOP:
    return None
  shift = int(np.log2(TOP / max(largest, 1)))
  codes, scale = codes << shift, scale / 2**shift
  step = float(affine(kernel.inputs).step)
  sizes = np.zeros(len(scale)) if bias is None else np.abs(np.asarray(bias))
  # A channel without a scale is only its bias, with its own step.
  least = np.maximum(sizes / ROOM, 1e-30) / step
  codes = np.where(scale > 0, codes, 0).astype(np.int8)
  scale = np.where(scale > 0, scale, least).astype(np.float32)
  unit = scale * np.float32(step)
  if np.max(sizes / unit) > ROOM * 1.01:
    return None
  return Served(kernel.inputs, codes, scale, _integers(bias, unit), unit)


def _integers(bias: Any, unit: np.ndarray) -> np.ndarray | None:
  if bias is None:
    return None
  return np.round(np.asarray(bias) / unit).astype(np.int32)


def coded(graph: Graph, coding: Coding, x: str) -> str:
  """Quantize a tensor to integer codes; return the name of the dequantized one.

  Args:
    graph: The graph.
    coding: The grid, and what is around it.
    x: Name of the tensor.

  Returns:
    The name.
  """
  step, zero, _ = affine(coding.inputs)
  grid = first = (graph.constant(step), graph.constant(zero, np.uint8))
  if not coding.behind:
    x = graph.add('Mul', x, graph.constant(1 / step))  # twice as fast as Div
    first = (graph.constant(1.0), grid[1])
  codes = graph.add('QuantizeLinear', x, *first)
  if coding.last:
    codes = _ended(graph, coding.inputs, codes)
  return graph.add('DequantizeLinear', codes, *grid)


def entered(graph: Graph, inputs: Inputs, x: str, divisor: float) -> str:
  """Round a tensor to a grid by integer codes, for a float layer.

  Args:
    graph: The graph.
    inputs: The grid, of at most 8 bits.
    x: Name of the tensor, which is not an output of maxima (see `coded`).
    divisor: Divisor of the tensor.

  Returns:
    The name.
  """
  step, zero, _ = affine(inputs)
  least = graph.constant(zero, np.uint8)
  codes = graph.add('QuantizeLinear', x, graph.constant(divisor * step), least)
  codes = _ended(graph, inputs, codes)
  return graph.add('DequantizeLinear', codes, graph.constant(step), least)


def _ended(graph: Graph, inputs: Inputs, codes: str) -> str:
  """Clip codes to the grid, unless the type does."""
  if inputs.bits == WIDEST:
    return codes
  ends = (
    graph.constant(0, np.uint8),
    graph.constant(affine(inputs).top, np.uint8),
  )
  return graph.add('Clip', codes, *ends)


def rounded(graph: Graph, inputs: Inputs, x: str) -> str:
  """Round a tensor to a grid in floats; return the name."""
  step, zero, top = affine(inputs)
  scale = graph.constant(step)
  ends = (graph.constant(-zero), graph.constant(top - zero))
  codes = graph.add('Round', graph.add('Div', x, scale))
  return graph.add('Mul', graph.add('Clip', codes, *ends), scale)


def dequantized(
  graph: Graph, codes: np.ndarray, scale: np.ndarray, axis: int
) -> str:
  """Append integer constants; return the name of the dequantized ones."""
  grid = (graph.constant(codes, codes.dtype), graph.constant(scale))
  zeros = graph.constant(np.zeros(scale.shape), codes.dtype)
  return graph.add('DequantizeLinear', *grid, zeros, axis=axis)
