"""Compilation of a network of integer codes to the operations of `reference`.

The nodes of the network stay, on integers whose value of 1 is known
(`translation`). New are shifts and integer biases behind products with weights,
and rescalings before them and before sums.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from compress.quantize import affine
from compress.quantize.integer_codes import Inputs
from tsukiji.deploy.integer import kernels as coded
from tsukiji.deploy.integer.fixed_point import LIMIT
from tsukiji.deploy.integer.forms import Form, along
from tsukiji.deploy.integer.reference import ROUNDED, Integer
from tsukiji.deploy.integer.settled import Settled, settled
from tsukiji.deploy.integer.translation import (
  FRACTION,
  Held,
  Real,
  Writer,
  expect_room,
  translated,
  unfit,
)
from tsukiji.deploy.passes.absorb import product_of
from tsukiji.graph.multiplies import layer_of
from tsukiji.graph.nodes import Graph, Node, Ref, input_name, users

FINE = 10  # maximum bits behind the binary point of an accumulator
PRODUCTS = ('dot', 'conv')


def compiled(graph: Graph, variables: Mapping[str, Any]) -> Integer:
  """Return a network as integer operations.

  Args:
    graph: The network, of one input and one output.
    variables: `{'params': ...}` by path, whose kernels are `Quantized`, with a
      step per channel or tensor and input grids.

  Returns:
    The network.

  Raises:
    ValueError: If an operator is not supported, a kernel has no codes or no
      input grid, or an accumulator may exceed 32 bits.
  """
  net, writer = settled(graph, variables), Writer()
  graph, name = net.graph, input_name(0)
  ends = (len(graph.inputs), len(graph.outputs))
  if ends != (1, 1):
    raise unfit('the ends', 'an input and an output', ends)
  known: dict[Any, Held | Real] = {name: Real(name, net.shapes[name])}
  products: dict[str, int] = {}
  for i, node in enumerate(graph.nodes):
    if i in known:
      continue  # a bias, which is added with its product
    if node.op in PRODUCTS:
      x = _read(known, node.inputs[0])
      weight = _weight(net, i, x)
      products[weight.path], known[i] = _multiplied(writer, node, weight, x)
      if weight.end is not None:
        known[weight.end] = known[i]
    else:
      args = [_read(known, ref) for ref in node.inputs]
      known[i] = translated(writer, node, args, net.shapes[i])
  last = _read(known, graph.outputs[0])
  if not isinstance(last, Held):
    raise unfit('the output', 'a layer with weights before it', 'none')
  reach = last.form.scale * last.form.bound
  common = float(np.max(reach)) / 2**FRACTION or 1.0
  end = writer.rescaled(last.ref, last.form.scale / common)
  made = Graph(tuple(writer.nodes), (end,), graph.inputs)
  return Integer(made, products, common)


def _read(known: Mapping[Any, Held | Real], ref: Ref) -> Any:
  """Return what a node reads."""
  if isinstance(ref, np.ndarray):
    return ref
  if ref not in known:
    raise unfit(layer_of(str(ref)), 'a weight of products alone', ref)
  return known[ref]


class _Weight(NamedTuple):
  """A weight in integers.

  Attributes:
    path: Of the kernel.
    codes: int32 `[..., channels]`.
    scale: The value of code 1, `[channels]`.
    bias: `[channels]`.
    inputs: The grid of the input.
    shape: Of the product, for one example.
    axis: Of it, along which there are channels.
    end: The node that adds the bias, or None.
  """

  path: str
  codes: np.ndarray
  scale: np.ndarray
  bias: np.ndarray
  inputs: Inputs
  shape: tuple[int, ...]
  axis: int
  end: int | None

  @property
  def layer(self) -> str:
    """Name of the layer."""
    return layer_of(self.path)


def _weight(net: Settled, i: int, x: Any) -> _Weight:
  """Return the weight of a product with a value and the bias behind it."""
  node, shape = net.graph.nodes[i], net.shapes[i]
  path = node.inputs[1]
  if not (isinstance(path, str) and isinstance(x, Held | Real)):
    where = f'{node.op} behind {getattr(x, "layer", "the input")}'
    raise unfit(where, 'a product of a value with a weight', 'others')
  layer, kernel = layer_of(path), net.params[path]
  reason = coded.misfit(kernel)
  if reason is not None:
    raise unfit(layer, *reason)
  codes, scale = coded.codes(kernel)
  product = product_of(node, net.params)
  if product is None or product.channels != -1:
    raise unfit(layer, 'a kernel with its channels last', node.attrs['dims'])
  axis = len(shape) + product.axis
  end, bias = _bias(net, i, axis)
  return _Weight(path, codes, scale, bias, kernel.inputs, shape, axis, end)


def _bias(net: Settled, i: int, axis: int) -> tuple[int | None, np.ndarray]:
  """Return the node that adds constants to a product alone, and these."""
  shape, ndim = net.shapes[i], len(net.shapes[i])
  none = None, np.zeros(shape[axis])
  at, *others = users(net.graph)[i]
  if others or at == len(net.graph.nodes):
    return none
  node = net.graph.nodes[at]
  found = [x for x in node.inputs if isinstance(x, np.ndarray)]
  if node.op != 'add' or len(found) != 1 or net.shapes[at] != shape:
    return none
  (bias,) = found
  whole = bias.reshape((1,) * (ndim - bias.ndim) + bias.shape)
  if whole.size != whole.shape[axis]:
    return none
  return at, np.zeros(shape[axis]) + whole.ravel()


def _multiplied(
  writer: Writer, node: Node, weight: _Weight, x: Held | Real
) -> tuple[int, Held]:
  """Append a product, its input on its grid and its bias.

  Returns:
    The index of the product alone, and the result.
  """
  grid, codes, bias = weight.inputs, weight.codes, weight.bias
  step, zero = (
    np.asarray(x)
    for x in affine.asymmetric_scale(grid.low, grid.high, grid.bits)
  )
  top, middle = 2**grid.bits - 1, int(zero)
  if isinstance(x, Held):
    by = x.form.scale / float(step)
    first = writer.rescaled(x.ref, by, -middle, top - middle)
  else:
    scale = np.float32(step)
    first = writer.add(ROUNDED, x.ref, scale=scale, zero=middle, top=top)
  sizes = np.abs(codes).reshape(-1, codes.shape[-1]).sum(axis=0)
  largest = sizes * float(max(middle, top - middle))
  expect_room(weight.layer, largest)
  shift = _shift(float(np.max(largest)))
  # A channel without a scale is only its bias; a large bias needs a large unit.
  least = np.maximum(np.abs(bias) / 2**FRACTION, 1e-30)
  unit = weight.scale * float(step) / 2**shift
  unit, is_bias = np.where(weight.scale > 0, unit, least), weight.scale == 0
  bias_codes = np.round(bias / unit)
  bound = np.where(is_bias, 0, largest * 2.0**shift) + np.abs(bias_codes)
  expect_room(weight.layer, bound)
  attrs = {
    k: v for k, v in node.attrs.items() if k not in ('dtype', 'precision')
  }
  at = writer.add(node.op, first, np.where(is_bias, 0, codes), **attrs)
  ndim = len(weight.shape)
  added, *form = along(weight.axis, ndim, bias_codes, unit, bound)
  shifted = writer.add('mul', at, np.array(2**shift, np.int32))
  ref = writer.add('add', shifted, added.astype(np.int32))
  return at, Held(ref, weight.shape, Form(*form), weight.layer)


def _shift(largest: float) -> int:
  """Return the number of bits by which accumulators can be shifted."""
  room = np.floor(np.log2(LIMIT / 2 / max(largest, 1.0)))
  return int(np.clip(room, 0, FINE))
