"""A network in integers: the reference for hardware without floats.

`to_integer.compiled` turns a lowered network of integer codes into a list of
integer operations; `run` interprets it in NumPy (Jacob+ 2018, arXiv 1712.05877,
section 2.2). Accumulators and biases are int32. They pass activations and pools
as they are, which are monotone or sums, and are rescaled by a fixed-point
multiplier to the grid of the next layer's input. The only floats are the images
before they are rounded, and the one step that the logits are counted in.

Accumulators have as many bits behind the binary point as fit, where the paper
has none, so that whole biases are no loss to narrow grids. Given the same input
codes, the rescaled codes differ from those of the network in floats by at most
1, where rounding falls on the other side of a tie: a multiplier has 31 bits and
is applied with two roundings, and ties go away from 0. Hardly any do.
"""

import dataclasses
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from tsukiji.deploy.integer.fixed_point import Fixed, times
from tsukiji.models import spec as sp
from tsukiji.models.spec import Layer, Spec


class Rounded(NamedTuple):
  """Images to codes less their zero point: the last operation on floats."""

  scale: np.float32
  zero: int
  top: int


class Weighted(NamedTuple):
  """A convolution or a dense layer: `(x * kernel << shift) + bias`."""

  layer: sp.Conv | sp.Dense
  kernel: np.ndarray
  bias: np.ndarray
  shift: int


class Rescaled(NamedTuple):
  """Accumulators to the codes of a grid less its zero point."""

  by: Fixed
  low: int
  high: int


class Branched(NamedTuple):
  """Paths of the same input, added or concatenated."""

  paths: tuple[tuple['Operation', ...], ...]
  merge: str


# The layers among them have nothing to compute with but maxima and sums.
Operation: TypeAlias = Rounded | Weighted | Rescaled | Branched | Layer


@dataclasses.dataclass(frozen=True)
class Integer:
  """A network that computes in integers.

  Attributes:
    spec: The network.
    operations: In order.
    scale: What 1 of a logit stands for.
  """

  spec: Spec
  operations: tuple[Operation, ...]
  scale: float

  def __call__(self, images: Any) -> np.ndarray:
    """Return the logits of images `[batch, *input_shape]`, int32."""
    return run(self.operations, np.asarray(images))


def run(operations: tuple[Operation, ...], x: np.ndarray) -> np.ndarray:
  """Interpret operations.

  Args:
    operations: What `to_integer.compiled` made.
    x: Images, or int32 in the middle of a network.

  Returns:
    int32.
  """
  for operation in operations:
    x = _apply(operation, x)
  return x


def _apply(operation: Operation, x: np.ndarray) -> np.ndarray:
  match operation:
    case sp.Standardise():
      mean = np.asarray(operation.mean, np.float32)
      return (x.astype(np.float32) - mean) / np.asarray(
        operation.std, np.float32
      )
    case Rounded():
      codes = np.round(x.astype(np.float32) / operation.scale) + operation.zero
      clipped = np.clip(codes, 0, operation.top).astype(np.int32)
      return np.asarray(clipped - np.int32(operation.zero))
    case Weighted():
      return _weighted(operation, x)
    case Rescaled():
      codes = times(x, operation.by)
      return np.asarray(np.clip(codes, operation.low, operation.high))
    case Branched():
      outs = [run(path, x) for path in operation.paths]
      if operation.merge == 'concat':
        return np.concatenate(outs, axis=-1)
      return np.asarray(np.sum(outs, axis=0, dtype=np.int32))
    case sp.Act():
      return np.asarray(np.maximum(x, 0))
    case sp.Pool():
      return _pooled(operation, x)
    case sp.GlobalMean():
      return np.asarray(x.sum(axis=(1, 2), dtype=np.int32))
    case sp.Flatten():
      return x.reshape(len(x), -1)
  raise TypeError(f'integer: expected an operation, got {operation!r}.')


def _weighted(operation: Weighted, x: np.ndarray) -> np.ndarray:
  layer = operation.layer
  if isinstance(layer, sp.Dense):
    return (x @ operation.kernel << operation.shift) + operation.bias
  found = jax.lax.conv_general_dilated(
    jnp.asarray(x),
    jnp.asarray(operation.kernel),
    layer.strides,
    layer.padding,
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=layer.groups,
    preferred_element_type=jnp.int32,
  )
  return (np.asarray(found) << operation.shift) + operation.bias


def _pooled(layer: sp.Pool, x: np.ndarray) -> np.ndarray:
  """Take maxima or sums over windows; a mean is a sum of smaller steps."""
  windows = np.lib.stride_tricks.sliding_window_view(
    x, layer.window, axis=(1, 2)
  )[:, :: layer.strides[0], :: layer.strides[1]]
  if layer.kind == 'max':
    return windows.max(axis=(-2, -1))
  return np.asarray(windows.sum(axis=(-2, -1), dtype=np.int32))
