"""The laws of methods, as a check that authors of new ones can run.

  compress.testing.check(my_method())

trains a network of two layers for a few steps and raises an error that says
what is wrong and how to mend it.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from compress import probing, training, tree
from compress.method import Batch, Method, same, zero
from compress.tree import Array, Compressed, Params, Path

STEPS, RATE = 4, 0.05
SIZES = (12, 8, 4)  # of the layers
EXAMPLES = 16


class _Run(NamedTuple):
  start: Params
  before: Params
  after: Params


def check(method: Method, where: str = 'method') -> None:
  """Check that a method keeps the laws of `docs/design.md`.

  Args:
    method: To be checked, on a network of two dense layers.
    where: Its name, for errors.

  Raises:
    ValueError: If it changes nothing, changes the shape or type of a weight,
      changes the structure while training, has arrays that do not train or get
      no gradient, or freezes to something else than it decodes to.

  >>> from compress import quantize
  >>> check(quantize.uniform(4))
  """
  run = _train(method)
  _expect_same_arrays(where, run)
  _expect_a_change(where, method, run)
  for path, name, node in _nodes(run.before):
    _expect_trainable(f'{where} at {path}', name, node)
  _expect_moved(where, run)
  _expect_same_frozen(where, run.after)


def _apply(params: Params, x: Array) -> Array:
  x = jax.nn.relu(x @ params['first']['kernel'] + params['first']['bias'])
  y: Array = x @ params['last']['kernel'] + params['last']['bias']
  return y


def _loss(params: Params, batch: Any) -> tuple[Array, Batch]:
  x, labels, teacher = batch
  outputs = _apply(params, x)
  losses = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
  return jnp.mean(losses), Batch(x, labels, outputs, teacher)


def _train(method: Method) -> _Run:
  """Train the network for a few steps."""
  drawn = np.random.default_rng(0)
  pairs = zip(
    ('first', 'last'), zip(SIZES, SIZES[1:], strict=False), strict=True
  )
  start = {
    name: {
      'bias': jnp.float32(drawn.normal(size=wide) / 4),
      'kernel': jnp.float32(drawn.normal(size=(given, wide)) / given**0.5),
    }
    for name, (given, wide) in pairs
  }
  x = jnp.float32(drawn.normal(size=(EXAMPLES, SIZES[0])))
  labels = jnp.arange(EXAMPLES) % SIZES[-1]
  batch = x, labels, 3 * jax.nn.one_hot(labels, SIZES[-1])
  probe = probing.probe(_apply, start, x, _loss, batch)
  key, tx = jax.random.key(0), optax.adam(RATE)
  params = training.init(method, start, probe, STEPS, key)
  before, opt = params, tx.init(training.trainable(params))
  slope = training.value_and_grad(_loss, method, has_aux=True)

  @jax.jit
  def step(params: Params, opt: Any, i: Array) -> Any:
    run: Any = {'step': i, 'steps': STEPS, 'key': jax.random.fold_in(key, i)}
    _, grads = slope(params, batch, **run)
    free = training.trainable(params)
    updates, opt = tx.update(grads.trainable, opt, free)
    return training.update(method, params, updates, grads, **run), opt

  for i in range(STEPS):
    params, opt = step(params, opt, jnp.int32(i))
  return _Run(start, before, params)


def _expect_same_arrays(where: str, run: _Run) -> None:
  for params, when in ((run.before, 'init'), (run.after, 'training')):
    decoded = tree.paths(jax.eval_shape(tree.decode, params))
    for path, x in tree.paths(run.start).items():
      y = decoded[path]
      if (x.shape, x.dtype) != (y.shape, y.dtype):
        raise ValueError(
          f'{where} at {path}: expected {x.dtype}{list(x.shape)} after {when}, '
          f'got {y.dtype}{list(y.shape)}. `decode` returns the array that the '
          'node stands for.'
        )
  before, after = map(jax.tree.structure, (run.before, run.after))
  if str(before) != str(after):
    raise ValueError(
      f'{where}: expected an `update` that keeps the structure, got another '
      'one. Change the values of fields only; what is static stays.'
    )


def _expect_a_change(where: str, method: Method, run: _Run) -> None:
  begun = tree.paths(run.before)
  known = method.update is not same or method.loss is not zero
  if known or any(tree.is_node(x) for x in begun.values()):
    return
  start = tree.paths(run.start)
  if not all(_equal(x, start[path]) for path, x in begun.items()):
    return
  raise ValueError(
    f'{where}: expected a method that changes something, got one that leaves '
    'every weight as it was. Return nodes from `init`, or say which weights '
    'stay, with compress.unchanged.warn_unchanged.'
  )


def _equal(x: Any, y: Any) -> bool:
  return bool(np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True))


def _nodes(params: Params) -> Iterator[tuple[Path, str, Compressed]]:
  """Yield the path, the kind and the node of every node, outermost first."""
  for path, x in tree.paths(params).items():
    while tree.is_node(x):
      yield path, type(x).__name__, x
      x = getattr(x, x.inner[0]) if x.inner else None


def _expect_trainable(where: str, name: str, node: Compressed) -> None:
  fields = {f.name for f in dataclasses.fields(node)}  # type: ignore[arg-type]
  for field in (*node.trainable, *node.inner):
    if field not in fields:
      raise ValueError(
        f'{where}: expected {name}.{field} to be a field, got '
        f'{sorted(fields)}. Correct `trainable` and `inner`.'
      )
  for field in node.inner:
    value = getattr(node, field)
    floating = not tree.is_node(value) and jnp.issubdtype(
      value.dtype, jnp.floating
    )
    if floating and field not in node.trainable:
      raise ValueError(
        f'{where}: expected {name}.{field} to train, got a node that does not '
        f"name it. Add trainable = ('{field}',) to the class."
      )


def _expect_moved(where: str, run: _Run) -> None:
  """Check that every array of floats that trains has moved."""
  before, after = (
    jax.tree_util.tree_flatten_with_path(training.trainable(x))[0]
    for x in (run.before, run.after)
  )
  for (place, x), (_, y) in zip(before, after, strict=True):
    if jnp.issubdtype(x.dtype, jnp.floating) and x.size and _equal(x, y):
      raise ValueError(
        f'{where} at {tree.join(place)}: expected a gradient, got zeros. '
        'Rounding has none: use straight_through(rounded, w) in `decode`.'
      )


def _expect_same_frozen(where: str, params: Params) -> None:
  frozen = tree.paths(tree.decode(tree.freeze(params)))
  for path, x in tree.paths(tree.decode(params)).items():
    if not _equal(x, frozen[path]):
      raise ValueError(
        f'{where} at {path}: expected `freeze` to decode to the same bits, got '
        'others. Return self where nothing smaller does.'
      )
