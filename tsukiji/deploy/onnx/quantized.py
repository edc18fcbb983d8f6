"""Grids in ONNX: inputs as `QuantizeLinear`, kernels as int8 codes.

Engines fuse `DequantizeLinear`, a layer and `QuantizeLinear` to one integer
kernel. The scales are those that were trained: nothing is calibrated again.
"""

from typing import Any, NamedTuple

import numpy as np

from compress import tree
from compress.quantize import affine as affine_lib
from compress.quantize.integer_codes import Inputs
from tsukiji.deploy.integer import kernels as whole
from tsukiji.deploy.onnx.builder import Graph

WIDEST = 8  # bits that an integer kernel takes
TOP = 127  # the largest code of a kernel
ROOM = 2.0**30  # for a whole bias beside the sums


class Affine(NamedTuple):
  """An input grid: code q stands for `step * (q - zero)`, q up to `top`."""

  step: np.float32
  zero: int
  top: int


class Served(NamedTuple):
  """A layer's weights as an integer kernel takes them.

  Attributes:
    inputs: The grid of the layer's input.
    codes: int8, the shape of the kernel.
    scale: Of the codes, float32 `[channels]`.
    bias: int32 `[channels]`, or None.
    unit: What 1 of the bias stands for, float32 `[channels]`.
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


def served_of(params: dict[str, Any], least: float) -> dict[str, Served]:
  """Return the weights that an integer kernel takes, by layer.

  Args:
    params: Arrays and frozen nodes.
    least: Products in a sum from which integers are wanted.

  Returns:
    The weights.
  """
  found = {
    name: served(held['kernel'], held.get('bias'))
    for name, held in params.items()
    if 'kernel' in held and np.prod(tree.shape_of(held['kernel'])[:-1]) >= least
  }
  return {name: x for name, x in found.items() if x is not None}


def served(kernel: Any, bias: Any) -> Served | None:
  """Return weights for an integer kernel, None where it cannot take them.

  Codes of fewer bits are multiplied by a power of two, and their scale is
  divided by it: the kernel is the same, the unit of the bias is finer.

  Args:
    kernel: An array or a frozen node.
    bias: `[channels]`, or None.

  Returns:
    The weights; None for floats, for more than 8 bits of codes or inputs, and
    where a bias is too large beside its sums.
  """
  if whole.misfit(kernel) or kernel.inputs.bits > WIDEST:
    return None
  codes, scale = whole.codes(kernel)
  most = int(np.max(np.abs(codes), initial=0))
  if most > TOP:
    return None
  shift = int(np.log2(TOP / max(most, 1)))
  codes, scale = codes << shift, scale / 2**shift
  step = float(affine(kernel.inputs).step)
  sizes = np.zeros(len(scale)) if bias is None else np.abs(np.asarray(bias))
  # A channel without a scale is its bias alone, on a step of its own.
  least = np.maximum(sizes / ROOM, 1e-30) / step
  codes = np.where(scale > 0, codes, 0).astype(np.int8)
  scale = np.where(scale > 0, scale, least).astype(np.float32)
  unit = scale * np.float32(step)
  if np.max(sizes / unit) > ROOM * 1.01:
    return None
  return Served(kernel.inputs, codes, scale, _whole(bias, unit), unit)


def _whole(bias: Any, unit: np.ndarray) -> np.ndarray | None:
  if bias is None:
    return None
  return np.round(np.asarray(bias) / unit).astype(np.int32)


def coded(
  graph: Graph, inputs: Inputs, x: str, *, behind: bool, last: bool
) -> str:
  """Put a tensor on a grid by integers; return the name of what they stand for.

  Args:
    graph: What is appended to.
    inputs: The grid, of at most 8 bits.
    x: Name of the tensor.
    behind: Whether it is made of integers. Of one that is not, ONNX Runtime
      1.32 would round what the maxima are of, and take int8 ones of tensors
      with channels first, 30 times as slow; a product holds it off.
    last: Whether sums come next. Before maxima and moves codes beyond the grid
      may stay, if the type has them: ending them would keep ONNX Runtime from
      taking maxima with channels last, 14 times as fast.

  Returns:
    The name.
  """
  step, zero, _ = affine(inputs)
  held = first = (graph.hold(step), graph.hold(zero, np.uint8))
  if not behind:
    x = graph.add('Mul', x, graph.hold(1 / step))  # twice as fast as Div
    first = (graph.hold(1.0), held[1])
  codes = graph.add('QuantizeLinear', x, *first)
  if last:
    codes = _ended(graph, inputs, codes)
  return graph.add('DequantizeLinear', codes, *held)


def entered(graph: Graph, inputs: Inputs, x: str, divisor: float) -> str:
  """Put a tensor on a grid by way of codes, for a layer of floats.

  Args:
    graph: What is appended to.
    inputs: The grid, of at most 8 bits.
    x: Name of the tensor, which is not that of maxima (see `coded`).
    divisor: What it is to be divided by before.

  Returns:
    The name.
  """
  step, zero, _ = affine(inputs)
  least = graph.hold(zero, np.uint8)
  codes = graph.add('QuantizeLinear', x, graph.hold(divisor * step), least)
  codes = _ended(graph, inputs, codes)
  return graph.add('DequantizeLinear', codes, graph.hold(step), least)


def _ended(graph: Graph, inputs: Inputs, codes: str) -> str:
  """End codes where the grid does; the widest ends where the type does."""
  if inputs.bits == WIDEST:
    return codes
  ends = (graph.hold(0, np.uint8), graph.hold(affine(inputs).top, np.uint8))
  return graph.add('Clip', codes, *ends)


def rounded(graph: Graph, inputs: Inputs, x: str) -> str:
  """Put a tensor on a grid by floats; return the name."""
  step, zero, top = affine(inputs)
  held = graph.hold(step)
  ends = (graph.hold(-zero), graph.hold(top - zero))
  codes = graph.add('Round', graph.add('Div', x, held))
  return graph.add('Mul', graph.add('Clip', codes, *ends), held)


def dequantized(
  graph: Graph, codes: np.ndarray, scale: np.ndarray, axis: int
) -> str:
  """Hold whole numbers; return the name of the floats that they stand for."""
  held = (graph.hold(codes, codes.dtype), graph.hold(scale))
  zeros = graph.hold(np.zeros(scale.shape), codes.dtype)
  return graph.add('DequantizeLinear', *held, zeros, axis=axis)
