r"""Between two binary layers: comparisons of integers.

A product of signs is an integer. If the signs of a function of it are all that
follows, they are one comparison: for a norm,
$\mathrm{sign}(\gamma (a - \mu) / \sigma + \beta)$ changes at
$\mu - \beta \sigma / \gamma$, downwards if $\gamma < 0$.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from compress.tree import Array
from tsukiji.deploy.integer.settled import Settled
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Node, Ref
from tsukiji.graph.operators import BINARY, UNARY

Stage: TypeAlias = Callable[[Array], Array]
EACH = {*UNARY, *BINARY, 'cast', 'ipow', 'round', 'select'}
MOVES = {'expand', 'reshape', 'rev', 'slice', 'transpose'}
POOL = 'reduce_window_max'


@struct.dataclass
class Threshold:
  """The integer at which a sign changes, by channel.

  Attributes:
    least: The smallest integer of the other sign, `[channels]` int32.
    rising: Whether the sign is +1 from there on, else below, `[channels]`.
  """

  least: Array
  rising: Array

  def __call__(self, sums: Array) -> Array:
    """Return True for +1, the shape of `sums` `[..., channels]`."""
    return (sums >= self.least) == self.rising


def threshold(fn: Stage, size: int, channels: int) -> Threshold | None:
  """Return the threshold at which the sign of a function changes.

  The function is evaluated at every integer, so that its rounding is exact.

  Args:
    fn: Float32 `[integers, channels]` to the same shape.
    size: The integers are those in [-size, size].
    channels: Number of channels.

  Returns:
    The threshold, or None if a sign changes more than once.

  >>> threshold(lambda a: 3 - 2 * a, 4, 1)
  Threshold(least=Array([2], ...), rising=Array([False], dtype=bool))
  """

  @jax.jit
  def turns(sums: Array) -> tuple[Threshold, Array]:
    up = fn(sums.astype(jnp.float32)) >= 0
    rising = up[-1] >= up[0]
    before = jnp.sum(up != rising, axis=0, dtype=jnp.int32)
    found = Threshold(before - size, rising)
    return found, jnp.all(found(sums) == up)

  found, right = turns(_integers(size, channels))
  return found if bool(right) else None


def _integers(size: int, channels: int) -> Array:
  sums = jnp.arange(-size, size + 1)[:, None]
  return jnp.broadcast_to(sums, (len(sums), channels))


class Source(NamedTuple):
  """A product of signs.

  Attributes:
    value: Its sums, as float32, to the result of the product.
    size: Upper bound of the magnitude of a sum.
    channels: Number of sums an output.
  """

  value: Stage
  size: int
  channels: int


class Comparison(NamedTuple):
  """How signs follow from the sums of a product.

  Attributes:
    source: Index of the product.
    early: Maxima that are taken of the sums, in order.
    turns: The signs of what is left.
    late: Nodes that move or pool the signs, in order.
  """

  source: int
  early: tuple[Node, ...]
  turns: Threshold
  late: tuple[Node, ...]


def comparison(
  net: Settled, sources: Mapping[int, Source], x: Ref, turn: Array | None
) -> Comparison | None:
  """Return how the signs of a value follow from the sums of a product.

  A maximum commutes with what follows it if all that rises, and with what is
  before it likewise: it is taken of the signs if nothing but moves is behind
  it, else of the sums.

  Args:
    net: The network.
    sources: Products of signs by their nodes, channels last.
    x: The value.
    turn: Where its sign changes, `[channels]`; None for 0.

  Returns:
    The comparison; None if the value is no function of one sum and constants,
    or its signs do not follow from one comparison.
  """
  graph, path = net.graph, _path(net, sources, x)
  if path is None:
    return None
  source, each, moves = sources[path.source], path.each, path.moves
  last = max((path.depth[i] for i in each), default=0)
  early, late = moves[:last], moves[last:]
  ends = [graph.nodes[i].op for i in late]
  if any(graph.nodes[i].op != POOL for i in early) or (
    turn is not None and {*ends} - {POOL}
  ):
    return None

  def upto(x: Ref) -> Stage:
    return lambda sums: _evaluated(graph, path, source.value(sums))[x]

  if not all(
    _rises(upto(graph.nodes[i].inputs[0]), source.size, source.channels)
    for i in early
  ):
    return None
  whole, at = upto(x), 0.0 if turn is None else turn
  turns = threshold(lambda sums: whole(sums) - at, source.size, source.channels)
  if turns is None:
    return None
  first, then = (tuple(graph.nodes[i] for i in part) for part in (early, late))
  return Comparison(path.source, first, turns, then)


class _Path(NamedTuple):
  """The nodes between a product and a value, in order.

  Attributes:
    source: Index of the product.
    each: Nodes that take each number alone.
    moves: Nodes that move or pool numbers, one behind the other.
    depth: How many of `moves` are before a node, and itself.
  """

  source: int
  each: tuple[int, ...]
  moves: tuple[int, ...]
  depth: dict[int, int]


def _path(net: Settled, sources: Mapping[int, Source], x: Ref) -> _Path | None:
  """Return the nodes between a value and the one product it follows from."""
  nodes = net.graph.nodes
  todo, found, ends = [x], set[int](), set[int]()
  while todo:
    at = todo.pop()
    if isinstance(at, np.ndarray) or at in found:
      continue
    if not isinstance(at, int):
      return None
    if at in sources:
      ends.add(at)
    elif _is_followed(nodes[at]):
      found.add(at)
      todo += nodes[at].inputs
    else:
      return None
  if len(ends) != 1:
    return None
  (source,) = ends
  return _ordered(net, source, sorted(found), sources[source].channels)


def _is_followed(node: Node) -> bool:
  if node.op == POOL:
    sizes = node.attrs['sizes']
    return bool(sizes[0] == sizes[-1] == 1)
  return node.op in EACH or node.op in MOVES


def _ordered(
  net: Settled, source: int, found: list[int], channels: int
) -> _Path | None:
  """Return a path if no node meets numbers of different places."""
  depth = {source: 0}
  each, moves = [], []
  for i in found:
    node = net.graph.nodes[i]
    refs = [ref for ref in node.inputs if isinstance(ref, int)]
    depths = {depth[ref] for ref in refs}
    if len(depths) != 1 or not all(
      _is_by_channel(ref, channels) for ref in node.inputs
    ):
      return None
    (depth[i],) = depths
    if node.op in EACH:
      each.append(i)
      if {net.shapes[ref] for ref in refs} != {net.shapes[i]}:
        return None
      continue
    moves.append(i)
    depth[i] += 1
    if depth[i] != len(moves):
      return None
  return _Path(source, tuple(each), tuple(moves), depth)


def _is_by_channel(x: Ref, channels: int) -> bool:
  """Return whether what a node reads is the same for all places."""
  if not isinstance(x, np.ndarray):
    return True
  return x.size == 1 or x.shape[-1:] == (x.size,) == (channels,)


def _evaluated(graph: Graph, path: _Path, x: Array) -> dict[Any, Array]:
  """Return the results of a path at `[integers, channels]` of its source."""
  known: dict[Any, Array] = {path.source: x}

  def read(ref: Ref) -> Any:
    return ref.reshape(-1) if isinstance(ref, np.ndarray) else known[ref]

  for i in sorted((*path.each, *path.moves)):
    node = graph.nodes[i]
    args = [*map(read, node.inputs)]
    known[i] = evaluate.value(node, args, {}, 1) if i in path.each else args[0]
  return known


def _rises(fn: Stage, size: int, channels: int) -> bool:
  """Return whether a function never falls from an integer to the next."""
  values = jax.jit(fn)(_integers(size, channels).astype(jnp.float32))
  return bool(jnp.all(values[1:] >= values[:-1]))
