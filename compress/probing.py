"""What methods may ask of a network before training, for any function."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from compress import dataflow, tree
from compress.dataflow import EXTENT, Observer, arranged, windows
from compress.dataflow.interpreter import Compute
from compress.method import Batch, Probe, Statistic
from compress.tree import Array, Params, Path, Stats

SHOWN = 4  # examples of `Probe.examples`
PART = 64  # examples per part for layer inputs
GRADIENTS = 16  # examples per part for gradients, at most
NUMBERS = 2**27  # of the gradients of a part, at most: 512 MiB


def probe(
  apply: Callable[..., Any],
  params: Params,
  inputs: Any,
  loss: Callable[[Params, Any], Any] | None = None,
  batch: Any = None,
) -> Probe:
  """Return what methods may ask of a network: inputs, losses, gradients.

  Some convolutions of millions of multiplications are computed as products of
  matrices (`dataflow.windows`), which changes the rounding of these numbers.

  Args:
    apply: `(params, *inputs)` -> outputs, in evaluation mode; a pure function
      of any framework.
    params: Arrays, or nodes of `compress.init`.
    inputs: Calibration examples, never of the test set: one input
      `[examples, ...]`, or a tuple of all.
    loss: `(params, batch)` -> the mean loss over a batch, or that and anything
      else; for methods that ask for the loss or its gradients.
    batch: Of the loss: any tree with the examples along first axes.

  Returns:
    The probe. Its functions compute on demand.

  Raises:
    ValueError: If there is no example.

  >>> dense = lambda params, x: x @ params['w'].T
  >>> found = probe(dense, {'w': jnp.ones((2, 3))}, jnp.ones((8, 3)))
  >>> found.sites['w'].kind, found.ranges({'w': jnp.ones((3, 2))})['w'].tolist()
  ('dot', [1.0, 1.0])
  """
  given = inputs if isinstance(inputs, tuple) else (inputs,)
  if not _count(given):
    raise ValueError(
      'compress.probe: expected at least one example, got 0. Calibrate on some '
      'of those that the network is trained on.'
    )
  few = _examples(given, slice(SHOWN))
  sites = dataflow.sites(apply, params, *few)
  like = arranged.arrange(params, sites)
  start = jax.jit(tree.decode)(arranged.seen(like))

  def back(dense: Params) -> Params:
    """Return dense parameters in the layout of the network."""
    return tree.decode(arranged.restored(dense, like))

  def run(params: Params, *inputs: Any) -> Any:
    return apply(back(tree.filled(params, start)), *inputs)

  def cost(compute: Compute) -> Callable[[Params, Any], Array]:
    return lambda dense, batch: _cost(loss, back(dense), batch, compute)

  usual = cost(windows.multiplied)
  mean, slope = jax.jit(usual), jax.jit(jax.grad(usual))
  observe, *at_end = (
    functools.partial(
      _observe, lambda dense, *x: apply(back(dense), *x), start, part
    )
    for part in (given, *_rest(given))
  )
  return Probe(
    run,
    few,
    lambda params: mean(tree.filled(params, start), batch),
    lambda params: slope(tree.filled(params, start), batch),
    reducer(cost(windows.in_loop), start, batch),
    sites,
    observe=observe,
    ranges=lambda params: _ranges([observe, *at_end], params),
    batch=None if loss is None else batch_of(loss, params, batch),
  )


def _cost(
  loss: Callable[[Params, Any], Any] | None,
  dense: Params,
  batch: Any,
  compute: Compute,
) -> Array:
  """Return the mean loss over a batch, with products computed in some way."""
  if loss is None:
    raise ValueError(
      'compress.probe: expected a loss, which this method asks for, got '
      'none. Pass probe(..., loss=loss, batch=batch).'
    )
  found = dataflow.observed(
    lambda dense, batch: _value(loss(dense, batch)),
    dense,
    (batch,),
    {},
    None,
    compute=compute,
  )
  value: Array = found.outputs
  return value


def _value(found: Any) -> Array:
  """Return the loss of what a function with or without more returns."""
  return found[0] if isinstance(found, tuple) else found


def batch_of(
  loss: Callable[[Params, Any], Any], params: Params, batch: Any
) -> Batch | None:
  """Return the shapes of the `Batch` among what a loss returns, if any."""

  def run(params: Params, batch: Any) -> Batch | None:
    found = dataflow.observed(
      loss, tree.decode(params), (batch,), {}, None, with_features=True
    )
    return with_features(found_batch(found.outputs), found.features)

  shapes: Batch | None = jax.eval_shape(run, params, batch)
  return shapes


def found_batch(outputs: Any) -> Batch | None:
  """Return the first `Batch` in a tree."""
  leaves = jax.tree.leaves(outputs, is_leaf=lambda x: isinstance(x, Batch))
  return next((x for x in leaves if isinstance(x, Batch)), None)


def with_features(batch: Batch | None, found: Any) -> Batch | None:
  """Return a batch with the features of the network, unless it has some."""
  if batch is None or batch.features is not None:
    return batch
  return batch._replace(features=found)


def _count(examples: Any) -> int:
  leaves = jax.tree.leaves(examples)
  return int(leaves[0].shape[0]) if leaves and jnp.ndim(leaves[0]) else 1


def _examples(given: Any, part: slice) -> Any:
  """Return some of the examples of a tree; what is no example stays."""
  count = _count(given)
  return jax.tree.map(
    lambda x: x[part] if jnp.ndim(x) and len(x) == count else x, given
  )


def _observe(
  fn: Callable[..., Any],
  start: Params,
  given: tuple[Any, ...],
  params: Params,
  observer: Observer,
  count: int,
) -> dict[Path, Any]:
  """Return the observations of layer inputs; see `Probe.observe`."""
  nodes = filled(params, start)
  dense = tree.decode(nodes)
  every = _count(given)
  size = max(1, min(PART, count, every))
  parts = max(1, min(count, every) // size)
  is_example = jax.tree.map(
    lambda x: bool(jnp.ndim(x)) and len(x) == every, given
  )
  shown = jax.tree.map(
    lambda x, is_cut: (
      jnp.asarray(x[: parts * size]).reshape(parts, size, *x.shape[1:])
      if is_cut
      else None
    ),
    given,
    is_example,
  )
  order: list[Path] = []

  def part(shown: Any) -> dict[Path, Any]:
    inputs = tree.merge(shown, _without(given, is_example))
    grids = dataflow.transforming(nodes)
    found = dataflow.observed(
      fn, dense, inputs, grids, observer, compute=windows.multiplied
    ).stats
    order[:] = found  # a traced dictionary comes back sorted
    return found

  found = jax.lax.map(part, shown)
  return {path: found[path] for path in order}


def _without(given: Any, is_example: Any) -> Any:
  return jax.tree.map(
    lambda x, is_cut: None if is_cut else x, given, is_example
  )


def filled(params: Params, start: Params) -> Params:
  """Return arrays and nodes, with what is None that of the start."""
  given = tree.paths(params)
  return tree.map_paths(lambda path, x: given.get(path, x), start)


def _rest(given: Any) -> list[Any]:
  """Return the last examples, if whole parts leave some out."""
  count = _count(given)
  cut = count > PART and count % PART
  return [_examples(given, slice(-PART, None))] if cut else []


def _ranges(
  observes: list[Callable[..., dict[Path, Array]]], params: Params
) -> Stats:
  """Return the extents over several observations, which may overlap."""

  @jax.jit
  def observed(params: Params) -> Stats:
    found = [observe(params, EXTENT, 1 << 30) for observe in observes]
    joined = {
      path: jnp.concatenate([x[path] for x in found]) for path in found[0]
    }
    return {
      path: jnp.stack([jnp.min(x[:, 0]), jnp.max(x[:, 1])])
      for path, x in joined.items()
    }

  return observed(params)


def reducer(
  cost: Callable[[Params, Any], Array], start: Params, batch: Any
) -> Callable[[Params, tuple[Path, ...], Statistic, int], Any]:
  """Return `Probe.reduce` of a network.

  Args:
    cost: Dense parameters, a batch -> mean loss, `()`.
    start: The parameters that stand for what is None.
    batch: The calibration examples, a tree `[examples, ...]`.

  Returns:
    The function.
  """

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def reduced(
    paths: tuple[Path, ...], statistic: Statistic, dense: Params, batch: Any
  ) -> Any:
    return _mean_over_examples(cost, paths, statistic, dense, batch)

  def reduce(
    params: Params, paths: tuple[Path, ...], statistic: Statistic, count: int
  ) -> Any:
    dense = tree.filled(params, start)
    few = jax.tree.map(jnp.asarray, _examples(batch, slice(count)))
    return reduced(paths, statistic, dense, few)

  return reduce


def _mean_over_examples(
  cost: Callable[[Params, Any], Array],
  paths: tuple[Path, ...],
  statistic: Statistic,
  dense: Params,
  batch: Any,
) -> Any:
  """Return the mean of a statistic of single gradients; see `Probe.reduce`."""
  found = tree.paths(dense)
  # Sums of squares are neither exact nor finite in 16 bits.
  weights = {path: _in_32_bits(found[path]) for path in paths}
  count = _count(batch)
  most = NUMBERS // max(1, sum(w.size for w in weights.values()))
  most = max(1, min(GRADIENTS, most))
  size = max(n for n in range(1, most + 1) if count % n == 0)

  def gradient(example: Any) -> dict[Path, Array]:
    def single(weights: dict[Path, Array]) -> Array:
      filled = tree.map_paths(
        lambda path, w: weights.get(path, w).astype(w.dtype), dense
      )
      return cost(filled, jax.tree.map(lambda x: x[None], example))

    return jax.grad(single)(weights)

  def add(total: Any, part: Any) -> tuple[Any, None]:
    # One by one: a convolution under vmap becomes a grouped one, and slow.
    sums = statistic(weights, jax.lax.map(gradient, part))
    return jax.tree.map(jnp.add, total, sums), None

  parts = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), batch)
  shapes = jax.eval_shape(
    lambda part: statistic(weights, jax.lax.map(gradient, part)),
    jax.tree.map(lambda x: x[0], parts),
  )
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  total, _ = jax.lax.scan(add, zeros, parts)
  return jax.tree.map(lambda a: a / count, total)


def _in_32_bits(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
