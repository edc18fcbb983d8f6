"""Affine functions of constants in a graph."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from compress import tree
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Ref, is_input, reads, users

OPERATORS = ('add', 'sub', 'mul', 'div', 'neg')


class Affine(NamedTuple):
  """The function $g x + s$ that some nodes compute, by channel.

  Attributes:
    nodes: The nodes, in order.
    gain: $g$, `[channels]` or `()` float64.
    shift: $s$, likewise.
    gains: Paths of parameters in $g$.
    shifts: Paths of parameters that are added.
  """

  nodes: tuple[int, ...] = ()
  gain: Any = np.ones(())
  shift: Any = np.zeros(())
  gains: tuple[str, ...] = ()
  shifts: tuple[str, ...] = ()

  @property
  def is_sum(self) -> bool:
    """Whether nothing is multiplied."""
    return bool(np.all(self.gain == 1))


class Chains:
  """The affine functions of constants that follow the nodes of a graph."""

  shape: Callable[[Ref], Any]  # and type, of what is read

  def __init__(self, graph: Graph, weights: dict[str, Any]) -> None:
    """Find what depends on weights alone.

    Args:
      graph: The network.
      weights: Arrays and nodes, by path.
    """
    self._nodes = graph.nodes
    self._users: dict[Any, list[int]] = dict(enumerate(users(graph)))
    for i, node in enumerate(graph.nodes):
      for ref in filter(is_input, node.inputs):
        self._users.setdefault(ref, []).append(i)
    self._reads = reads(graph)
    self._weights = weights
    self._values: dict[int, Any] = {}
    self.shape = evaluate.shapes_of(graph, weights)
    self._fixed: list[bool] = []
    for node in graph.nodes:
      plain = 'body' not in node.attrs and node.op != 'item'
      self._fixed.append(plain and all(map(self.is_fixed, node.inputs)))

  def once(self, path: str) -> bool:
    """Return whether a weight is read once."""
    return self._reads[path] == 1

  def is_free(self, path: str, chain: Affine) -> bool:
    """Return whether no other node reads a path."""
    inside = (*chain.gains, *chain.shifts).count(path)
    return self._reads[path] == inside

  def reader(self, chain: Affine) -> int | None:
    """Return the one node that reads the result, if one node alone does."""
    read = self._users.get(chain.nodes[-1], []) if chain.nodes else []
    single = len(read) == 1 and read[0] < len(self._nodes)
    return read[0] if single else None

  def after(self, ref: Ref, axis: int = -1) -> list[Affine]:
    """Return the longest affine function that each reader of a value begins.

    Args:
      ref: A node or an input.
      axis: That of the channels, from the last, -1.
    """
    if self.is_fixed(ref) or not _is_float(self.shape(ref)):
      return []
    return [
      self._longest(Affine(), ref, first, axis)
      for first in self._users.get(ref, ())
    ]

  def _longest(self, chain: Affine, last: Ref, after: int, axis: int) -> Affine:
    """Return an affine function with all nodes that go on with it."""
    more = self._step(chain, last, after, axis)
    if more is None:
      return chain
    read = self._users.get(after, [])
    return more if len(read) != 1 else self._longest(more, after, read[0], axis)

  def _step(
    self, chain: Affine, last: Ref, after: int, axis: int
  ) -> Affine | None:
    """Return an affine function followed by a node; None if it is none."""
    if after == len(self._nodes):  # an output
      return None
    node = self._nodes[after]
    one, other = self.shape(last), self.shape(after)
    same = getattr(other, 'shape', None) == one.shape and _is_float(other)
    if node.op not in OPERATORS or not same:
      return None
    nodes, left = (*chain.nodes, after), node.inputs[0]
    first = not isinstance(left, np.ndarray) and left == last
    if node.op == 'neg':
      return chain._replace(nodes=nodes, gain=-chain.gain, shift=-chain.shift)
    other = node.inputs[1 if first else 0]
    if not self.is_fixed(other) or (node.op == 'div' and not first):
      return None
    v = _by_channel(self._value(other), axis)
    if v is None:
      return None
    paths = self._paths(other)
    if node.op in ('mul', 'div'):
      v = v if node.op == 'mul' else 1 / v
      gain, shift = chain.gain * v, chain.shift * v
      return Affine(nodes, gain, shift, (*chain.gains, *paths), chain.shifts)
    sign = -1 if node.op == 'sub' and not first else 1
    shift = sign * chain.shift + (-v if node.op == 'sub' and first else v)
    shifts = (*chain.shifts, *paths)
    return Affine(nodes, sign * chain.gain, shift, chain.gains, shifts)

  def is_fixed(self, ref: Ref) -> bool:
    """Return whether a value depends on weights alone."""
    if isinstance(ref, str):
      return not is_input(ref)
    return isinstance(ref, np.ndarray) or self._fixed[ref]

  def _value(self, ref: Ref) -> Any:
    """Return what depends on weights alone."""
    if isinstance(ref, str):
      return tree.decode(self._weights[ref])
    if isinstance(ref, np.ndarray):
      return ref
    if ref not in self._values:
      node = self._nodes[ref]
      args = [*map(self._value, node.inputs)]
      self._values[ref] = evaluate.value(node, args, {}, 1)
    return self._values[ref]

  def _paths(self, ref: Ref) -> tuple[str, ...]:
    """Return the parameters that something depends on."""
    if isinstance(ref, str):
      return (ref,)
    if isinstance(ref, np.ndarray):
      return ()
    return tuple(p for x in self._nodes[ref].inputs for p in self._paths(x))


def _by_channel(value: Any, axis: int) -> np.ndarray | None:
  """Return values as `[channels]` or `()`; None if they differ elsewhere."""
  x = np.asarray(value, np.float64)
  if x.size == 1:
    return x.reshape(())
  others = [n for i, n in enumerate(x.shape) if i - x.ndim != axis]
  return x.reshape(-1) if np.prod(others) == 1 else None


def _is_float(x: Any) -> bool:
  """Return whether a value is one array of float32."""
  return getattr(x, 'dtype', None) == jnp.float32
