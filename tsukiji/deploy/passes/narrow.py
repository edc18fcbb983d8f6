"""Removal of the channels that methods have cut from a network.

Operators of a graph infer sizes from their inputs, so that the graph stays and
only its weights become narrower.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.channels import sliced
from compress.channels.sliced import Sliced
from compress.dataflow import transformed, transforming
from tsukiji.deploy.passes.absorb import Weights
from tsukiji.graph import evaluate
from tsukiji.graph.nodes import Graph, Input, Node, Ref, input_name

EXAMPLES = 4
NOISE = 1e3  # large for any activation
TOLERANCE = 1e-3  # of outputs without the removed channels, relative
ROUNDINGS = 8  # of the dtype of the outputs, where they are more


def narrowed(graph: Graph, params: Any) -> tuple[Graph, Weights]:
  """Return a network without the channels that methods removed.

  Args:
    graph: The network with all of its channels.
    params: Its arrays and nodes; entries may be `Sliced`.

  Returns:
    The graph and its frozen weights, by path. Where the outputs without the
    channels are others, their weights are stored among zeros, with a warning.
  """
  frozen = tree.freeze(params)
  found = graph, tree.paths(sliced.filled(frozen))
  if tree.find(Sliced, frozen):
    small = tree.map_paths(lambda _, x: sliced.unsliced(x), frozen)
    gone = {path: sliced.removed(x) for path, x in tree.paths(frozen).items()}
    less = _without(*found, gone), tree.paths(tree.freeze(small))
    if _same(found, less):
      found = less
    else:
      warnings.warn(
        'lower: expected channels that can go, got other outputs without them. '
        'They are stored as zeros.',
        stacklevel=3,
      )
  graph, weights = found
  return graph, {path: weights[path] for path in graph.parameters}


def _without(
  graph: Graph, weights: Weights, gone: Mapping[str, np.ndarray]
) -> Graph:
  """Return a graph whose constants lack the entries of removed channels.

  As running statistics: a constant is combined with channels one by one. With
  noise in the numbers that put out removed channels, exactly these change,
  since nothing takes them.

  Args:
    graph: The network.
    weights: 0 where channels are removed.
    gone: Which numbers put out removed channels, by path.
  """
  dense, inputs = tree.decode(weights), _random(graph)
  base, *others = (
    _values(
      graph, {k: _noisy(x, gone[k], size) for k, x in dense.items()}, inputs
    )
    for size in (0, NOISE, -NOISE)
  )

  def left(const: np.ndarray, args: Sequence[Ref]) -> np.ndarray:
    """Return the entries of a constant that meet channels that remain."""
    changed = np.zeros(const.shape, bool)
    for ref in args:
      for other in others:
        changed |= _changed(other(ref), base(ref), const.shape)
    for axis in range(const.ndim):
      rest = tuple(i for i in range(const.ndim) if i != axis)
      const = np.compress(~changed.all(rest), const, axis)
      changed = np.compress(~changed.all(rest), changed, axis)
    return const

  def visit(node: Node) -> Node:
    args = [x for x in node.inputs if not isinstance(x, np.ndarray)]
    return node._replace(
      inputs=tuple(
        left(x, args) if isinstance(x, np.ndarray) and x.size > 1 else x
        for x in node.inputs
      )
    )

  return graph._replace(nodes=tuple(map(visit, graph.nodes)))


def _values(
  graph: Graph, params: Weights, inputs: Sequence[Any]
) -> Callable[[Ref], np.ndarray]:
  """Return the function from what nodes read to its value."""
  values = evaluate.evaluate(graph, params, inputs, EXAMPLES)[1]
  names = params | {input_name(i): x for i, x in enumerate(inputs)}

  def read(ref: Ref) -> np.ndarray:
    found = names[ref] if isinstance(ref, str) else values[cast(int, ref)]
    return np.asarray(found, np.float64)

  return read


def _noisy(x: Any, where: np.ndarray, size: float) -> Any:
  """Return an array with noise at some of its numbers."""
  noise = np.random.default_rng(0).uniform(0.5, 1.5, x.shape)
  return jnp.where(where, jnp.asarray(size * noise, x.dtype), x)


def _changed(
  x: np.ndarray, base: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray:
  """Return where two values differ that meet a constant, `shape` bool."""
  try:
    wide = np.broadcast_shapes(x.shape, shape)
  except ValueError:  # no elementwise operator
    return np.zeros(shape, bool)
  far = np.abs(x - base) > TOLERANCE * (1 + np.abs(base))
  last = wide[len(wide) - len(shape) :]
  far = np.broadcast_to(far, wide).reshape(-1, *last).any(0)
  alone = tuple(i for i, n in enumerate(shape) if n == 1)
  return np.asarray(np.any(far, alone, keepdims=True))


def _same(one: tuple[Graph, Weights], other: tuple[Graph, Weights]) -> bool:
  """Return whether two networks have the same outputs for random inputs."""
  inputs = _random(one[0])
  try:
    pairs = zip(_outputs(*one, inputs), _outputs(*other, inputs), strict=True)
    return all(_near(a, b) for a, b in pairs)
  except (TypeError, ValueError):  # shapes that do not fit
    return False


def _random(graph: Graph) -> list[Any]:
  """Return random examples."""
  generator = np.random.default_rng(0)

  def drawn(x: Input) -> Any:
    shape = (EXAMPLES, *x.shape)
    if jnp.issubdtype(x.dtype, jnp.floating):
      return jnp.asarray(generator.normal(size=shape), x.dtype)
    return jnp.asarray(generator.integers(0, 2, shape), x.dtype)

  return [*map(drawn, graph.inputs)]


def _near(a: Any, b: Any) -> bool:
  if a.shape != b.shape or not jnp.issubdtype(a.dtype, jnp.floating):
    return a.shape == b.shape and bool(jnp.all(a == b))
  relative = max(TOLERANCE, ROUNDINGS * float(jnp.finfo(a.dtype).eps))
  x, y = (np.asarray(z, np.float64) for z in (a, b))
  scale = np.max(np.abs(x), initial=1e-6)
  return bool(np.max(np.abs(x - y), initial=0) <= relative * scale)


def _outputs(graph: Graph, weights: Weights, inputs: list[Any]) -> list[Any]:
  def run(dense: Any, *inputs: Any) -> Any:
    return evaluate.run(graph, dense, *inputs)

  grids = transforming(weights)
  return jax.tree.leaves(
    transformed(run, tree.decode(weights), tuple(inputs), grids)
  )
