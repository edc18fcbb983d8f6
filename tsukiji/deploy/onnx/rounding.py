"""What products do to their inputs: grids and signs."""

import math
from typing import Any, TypeAlias

import numpy as np

from compress import tree
from compress.binary.inputs import Signed
from compress.channels.sliced import Sliced
from compress.quantize.integer_codes import Inputs, Quantized
from compress.tree import Compressed
from tsukiji.deploy.onnx import quantized
from tsukiji.deploy.onnx.axes import Tensor
from tsukiji.deploy.onnx.writer import Writer

Grid: TypeAlias = Inputs | Signed


def grid_of(kernel: Any) -> Grid | None:
  """Return the grid or the signs to which a layer rounds its input.

  Args:
    kernel: An array, a frozen node, or the weights of an integer kernel.

  Returns:
    The grid; None if nothing is rounded, or inputs or outputs are changed in
    another way.
  """
  node = kernel
  while tree.is_node(node):
    if isinstance(node, Quantized):
      return node.inputs
    if isinstance(node, Signed):
      return None if node.sized and node is not kernel else node
    kind = type(node)
    known = (
      kind.transform_input is Compressed.transform_input
      and kind.scale_output is Compressed.scale_output
    )
    if not (known or isinstance(node, Sliced)) or not node.inner:
      return None
    node = getattr(node, node.inner[0])
  return None


def entered(w: Writer, x: Tensor, kernel: Any, axis: int) -> Tensor:
  """Return the input of a product as its kernel takes it.

  Args:
    w: The writer.
    x: The input, which may have to be divided yet; of an integer kernel,
      already rounded to the grid.
    kernel: Node of the kernel, its integer weights, or None.
    axis: Axis of the channels in the model.

  Returns:
    The rounded or binarized tensor, divided.
  """
  grid = grid_of(kernel)
  if isinstance(grid, Signed):
    return _signed(w, w.divided(x), grid, axis)
  if grid is None:
    return w.divided(x)
  if x.divisor is not None and grid.bits <= quantized.WIDEST:
    name = quantized.entered(w.builder, grid, x.name, x.divisor)
    return x._replace(name=name, divisor=None)
  x = w.divided(x)
  return x._replace(name=quantized.rounded(w.builder, grid, x.name))


def _signed(w: Writer, x: Tensor, grid: Signed, axis: int) -> Tensor:
  """Return the signs of a tensor, perhaps about thresholds."""
  turned = x.name
  if grid.threshold is not None:
    threshold = np.asarray(grid.threshold)
    channels = x.shape[x.axes[axis]] or 1
    tiled = np.tile(threshold, channels // threshold.size)
    tiled = tiled if x.places is None else tiled[x.places]
    rest = (1,) * (len(x.shape) - axis - 1)
    turned = w.add('Sub', turned, w.constant(tiled.reshape(-1, *rest)).name)
  ends = (w.constant(value, np.float32).name for value in (0, 1, -1))
  zero, up, down = ends
  signs = w.add('Where', w.add('GreaterOrEqual', turned, zero), up, down)
  return x._replace(name=signs)


def sizes(
  w: Writer, x: Tensor, kernel: Any, axis: int, window: Any = None
) -> str:
  """Return the mean magnitude of the inputs of each output, '' for none.

  Args:
    w: The writer.
    x: The input of the product as `entered` takes it.
    kernel: As there.
    axis: As there.
    window: Settings of the convolution, None of a matrix.
  """
  if not isinstance(kernel, Signed) or not kernel.sized:
    return ''
  size = w.add('Abs', w.divided(x).name)
  mean = w.add('ReduceMean', size, axes=[axis], keepdims=1)
  if window is None:
    return mean
  sides = window['kernel_shape']
  box = w.constant(np.full((1, 1, *sides), 1 / math.prod(sides)), np.float32)
  return w.add('Conv', mean, box.name, **{**window, 'group': 1})
