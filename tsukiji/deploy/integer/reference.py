"""Integer-only inference: the reference for hardware without floats.

`compile.compiled` translates a network of integer codes to a graph of integer
operations, which `run` interprets (Jacob+ 2018, arXiv 1712.05877, section 2.2).
Accumulators and biases are int32. Maxima and sums apply to accumulators, which
are then rescaled by a fixed-point multiplier to the grid of the next layer's
input. Only the images before rounding and the scale of the outputs are floats.

Accumulators have as many bits behind the binary point as fit, in the paper
none, so that integer biases are precise on narrow grids. Given the same input
codes, rescaled codes differ from those of the float network by at most 1, and
rarely, near ties: a multiplier has 31 bits and is applied with two roundings,
and ties are rounded away from 0.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tsukiji.deploy.integer.fixed_point import Fixed, times
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Ref, input_name

ROUNDED, RESCALED = 'rounded', 'rescaled'


@dataclasses.dataclass(frozen=True)
class Integer:
  """A network in integer arithmetic.

  Attributes:
    graph: Its operations: those of graphs, `rounded` and `rescaled`; weights
      are int32 constants.
    products: The node of each product, by the path of its weight.
    scale: The value of 1 in the outputs.
  """

  graph: Graph
  products: Mapping[str, int]
  scale: float

  def __call__(self, images: Any) -> np.ndarray:
    """Return the outputs for images `[batch, *shape]`, int32."""
    return run(self.graph, images)[-1]


def run(graph: Graph, images: Any) -> list[np.ndarray]:
  """Return the results of all nodes.

  Args:
    graph: Of `Integer`.
    images: `[batch, *shape]`.

  Returns:
    Arrays: int32, or float32 before `rounded`.
  """
  x = np.asarray(images)
  values: list[np.ndarray] = []

  def read(ref: Ref) -> Any:
    if isinstance(ref, int):
      return values[ref]
    return x if isinstance(ref, str) and ref == input_name(0) else ref

  for node in graph.nodes:
    args = [*map(read, node.inputs)]
    special = SPECIAL.get(node.op)
    values.append(
      special(*args, **node.attrs)
      if special
      else np.asarray(evaluate.value(node, args, {}, len(x)))
    )
  return values


def rounded(
  x: np.ndarray, scale: np.ndarray, zero: int, top: int
) -> np.ndarray:
  """Return codes minus their zero point: the last operation on floats."""
  codes = np.round(x.astype(np.float32) / scale) + zero
  clipped = np.clip(codes, 0, top).astype(np.int32)
  return np.asarray(clipped - np.int32(zero))


def rescaled(
  x: np.ndarray,
  multiplier: np.ndarray,
  shift: np.ndarray,
  low: int,
  high: int,
) -> np.ndarray:
  """Return accumulators as the codes of a grid minus its zero point."""
  return np.asarray(np.clip(times(x, Fixed(multiplier, shift)), low, high))


SPECIAL: dict[str, Callable[..., np.ndarray]] = {
  ROUNDED: rounded,
  RESCALED: rescaled,
}
