"""Applying a network whose weights are compressed, whatever the network is.

Input grids are fields of the weight's node. What meets the weight in a product
passes through it first, and its output may be scaled: any function of
parameters and inputs works unchanged.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from compress import tree
from compress.dataflow import inputs as inputs_lib
from compress.dataflow import interpreter, rules
from compress.dataflow.interpreter import (
  Compute,
  Multiply,
  Operation,
  Product,
  Record,
)
from compress.dataflow.views import View
from compress.tree import Array, Features, Params, Path, Stats

_FEATURE = 'feature of '  # among the names of records


class Observer(NamedTuple):
  """What is computed from the inputs of weights.

  Attributes:
    observe: `(product, x)` -> a tree of arrays, or None.
    merge: Of two uses of a weight -> one.
    along: Stacked over the trips of a loop, whether each multiplies a weight
      of its own -> one.
    empty: Shapes -> that of no input at all, or None.
  """

  observe: Callable[[Product, Array], Any]
  merge: Callable[[Any, Any], Any]
  along: Callable[[Any, bool], Any]
  empty: Callable[[Any], Any] = lambda shapes: None


class Observed(NamedTuple):
  """The outputs of a network and what was observed.

  Attributes:
    outputs: Of the function.
    stats: Of the inputs of each weight, in the order of execution.
    features: Outputs of layers by the path that their parameters share.
  """

  outputs: Any
  stats: Stats
  features: Features


def _joined(before: Array, after: Array) -> Array:
  return jnp.stack(
    [jnp.minimum(before[0], after[0]), jnp.maximum(before[1], after[1])]
  )


def _ends(product: Product, x: Array) -> Array:
  del product
  return jnp.stack([jnp.min(x), jnp.max(x)])


EXTENT = Observer(
  _ends,
  _joined,
  lambda x, own: jnp.stack([jnp.min(x[:, 0]), jnp.max(x[:, 1])]),
  lambda shape: jnp.array([jnp.inf, -jnp.inf], shape.dtype),
)


def apply(fn: Callable[..., Any], params: Params, *inputs: Any) -> Any:
  """Return what a function gives with compressed parameters.

  Args:
    fn: `(params, *inputs)` -> any tree, of dense parameters; a network of any
      framework, or a function that calls one.
    params: A tree of arrays and nodes.
    *inputs: Trees of arrays.

  Returns:
    What `fn` returns, the input of each weight transformed by its node.

  Raises:
    ValueError: If the input of a weight that transforms it cannot be changed.

  Example:
    >>> from compress import init, probe, recipe
    >>> dense, x = (lambda params, x: x @ params['w']), jnp.array([[0.2, 1.0]])
    >>> params = {'w': jnp.eye(2)}
    >>> method = recipe.parse('quantize.uniform(8, 2)')
    >>> params = init(method, params, probe(dense, params, x))
    >>> apply(dense, params, x).tolist()  # inputs in steps of a third
    [[0.3333333432674408, 1.0]]
  """
  return transformed(fn, tree.decode(params), inputs, transforming(params))


def transformed(
  fn: Callable[..., Any],
  dense: Params,
  inputs: tuple[Any, ...],
  nodes: Mapping[Path, Any],
) -> Any:
  """Return what `apply` does, of parameters that are decoded already.

  Args:
    fn: As `apply` takes it.
    dense: Decoded parameters.
    inputs: Its other arguments.
    nodes: Those that transform inputs, by path.
  """
  if not nodes:
    return fn(dense, *inputs)
  return observed(fn, dense, inputs, nodes, None).outputs


def transforming(params: Params) -> dict[Path, tree.Compressed]:
  """Return the nodes that transform the input of their layer, by path."""
  return {
    path: x
    for path, x in tree.paths(params).items()
    if tree.is_node(x) and x.transforms_input
  }


def features(
  fn: Callable[..., Any], params: Params, *inputs: Any
) -> tuple[Any, Features]:
  """Return the outputs of a function and those of its layers.

  The output of a layer is that of the last operation in which one of its
  parameters meets inputs: a product, the sum with the bias, the norm.

  Args:
    fn: As `apply` takes it.
    params: Arrays or nodes.
    *inputs: Trees of arrays.

  Returns:
    What `fn` returns, and the outputs by path, as 'conv1' for 'conv1/kernel'.

  >>> dense = lambda params, x: x @ params['fc']['w'] + params['fc']['b']
  >>> params = {'fc': {'w': jnp.ones((2, 1)), 'b': jnp.ones(1)}}
  >>> features(dense, params, jnp.ones((2, 2)))[1]['fc'].tolist()
  [[3.0], [3.0]]
  """
  dense, nodes = tree.decode(params), transforming(params)
  found = observed(fn, dense, inputs, nodes, None, with_features=True)
  return found.outputs, found.features


def observed(
  fn: Callable[..., Any],
  dense: Params,
  inputs: tuple[Any, ...],
  nodes: Mapping[Path, Any],
  observer: Observer | None = EXTENT,
  with_features: bool = False,
  compute: Compute = interpreter.computed,
) -> Observed:
  """Run a function and observe the inputs of its weights.

  Args:
    fn: As `apply` takes it.
    dense: Decoded parameters.
    inputs: Its other arguments.
    nodes: Those that transform inputs, by path.
    observer: What is computed from the inputs, before they are transformed;
      None for nothing.
    with_features: Whether the outputs of layers are recorded.
    compute: How products are computed, as `windows.multiplied`.

  Returns:
    The outputs, the observations and the features.

  Raises:
    ValueError: As `apply`.
  """
  met: set[Path] = set()
  observing = observer or EXTENT

  def product(
    found: Product, x: Array, multiply: Multiply
  ) -> tuple[Array, Record]:
    path = found.view.path
    met.add(path)
    seen = observer and observer.observe(found, x)
    records = {} if seen is None else {path: seen}
    y = _multiplied(found, nodes.get(path), x, multiply)
    if with_features:
      records |= _feature(found.view, y)
    return y, records

  def other(found: Operation, y: Any) -> tuple[Any, Record]:
    wanted = with_features and found.view.spread
    return y, _feature(found.view, y) if wanted else {}

  def cannot(view: View, why: str) -> None:
    if view.path in nodes:
      raise _unmet(view.path, nodes[view.path], why)

  leaves = tree.paths(dense)
  hook = interpreter.Hook(
    product,
    other,
    lambda name, *both: (
      both[1] if _is_feature(name) else observing.merge(*both)
    ),
    lambda name, *x: None if _is_feature(name) else observing.along(*x),
    lambda name, x: None if _is_feature(name) else observing.empty(x),
    cannot,
    compute,
  )
  outputs, records = rules.run(
    lambda flat, *inputs: fn(
      tree.map_paths(lambda path, _: flat[path], dense), *inputs
    ),
    leaves,
    inputs,
    hook,
  )
  for path, node in nodes.items():
    if path not in met:
      raise _unmet(path, node, 'it is in no product that was found')
  stats = {name: x for name, x in records.items() if not _is_feature(name)}
  return Observed(outputs, stats, _features(records))


def _multiplied(
  product: Product,
  node: Any,
  x: Array,
  multiply: Multiply,
) -> Array:
  """Return the product of a weight with its input as the node changes it."""
  if node is None:
    return multiply(x)
  last, back = inputs_lib.channels_last(product, x)
  y = multiply(back(node.transform_input(last)).astype(x.dtype))
  gain = node.scale_output(last, inputs_lib.mean_of(product))
  if gain is None:
    return y
  return y * inputs_lib.as_output(product, gain).astype(y.dtype)


def _feature(view: View, y: Array) -> Record:
  return {f'{_FEATURE}{view.path.rpartition("/")[0]}': y}


def _features(records: Record) -> Features:
  """Return the features among records, by path."""
  return {
    name.removeprefix(_FEATURE): x
    for name, x in records.items()
    if _is_feature(name)
  }


def _is_feature(name: str) -> bool:
  return name.startswith(_FEATURE)


def _unmet(path: Path, node: Any, why: str) -> ValueError:
  return ValueError(
    f'dataflow.apply at {path}: expected an input that {type(node).__name__} '
    f'can transform, got none: {why}. Leave the weight out with `only`.'
  )
