"""Integer-only inference: the reference for hardware without floats.

`compile.compiled` translates a lowered network of integer codes to a list of
integer operations, which `run` interprets in NumPy (Jacob+ 2018, arXiv
1712.05877, section 2.2). Accumulators and biases are int32. Activations and
pools, which are monotone or sums, apply to accumulators, which are then
rescaled by a fixed-point multiplier to the grid of the next layer's input. Only
the images before rounding and the scale of the logits are floats.

Accumulators have as many bits behind the binary point as fit, in the paper
none, so that integer biases are precise on narrow grids. Given the same input
codes, rescaled codes differ from those of the float network by at most 1, and
rarely, near ties: a multiplier has 31 bits and is applied with two roundings,
and ties are rounded away from 0.
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
  """Images to codes minus their zero point: the last operation on floats."""

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
  """Accumulators to the codes of a grid minus its zero point."""

  by: Fixed
  low: int
  high: int


class Branched(NamedTuple):
  """Paths of the same input, added or concatenated."""

  paths: tuple[tuple['Operation', ...], ...]
  merge: str


# The layers among them compute only maxima and sums.
Operation: TypeAlias = Rounded | Weighted | Rescaled | Branched | Layer


@dataclasses.dataclass(frozen=True)
class Integer:
  """A network in integer arithmetic.

  Attributes:
    spec: The network.
    operations: The operations, in order.
    scale: The value of 1 in the logits.
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
    operations: Operations of `compile.compiled`.
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
