"""The probe of a network: functions that methods call before training."""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from compress import dataflow, tree
from compress.method import Probe, Statistic, Weight
from compress.tree import Array, Params, Path, Stats
from tsukiji.data.datasets import Split
from tsukiji.deploy.passes.lower import lower
from tsukiji.models import net as net_lib
from tsukiji.models import spec as sp
from tsukiji.models.net import Net
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate
from tsukiji.training.losses import LOSSES

Clock: TypeAlias = Callable[[Spec, dict[str, Any]], float]  # milliseconds

SHOWN = 4  # examples of `Probe.apply`
PART = 64  # examples per part for layer inputs
GRADIENTS = 16  # examples per part for gradients


def probe(
  spec: Spec,
  variables: dict[str, Any],
  split: Split,
  examples: int = 1024,
  *,
  dense: Spec | None = None,
  clock: Clock | None = None,
  loss: str = 'cross_entropy',
) -> Probe:
  """Return the probe of a network, in evaluation mode.

  Args:
    spec: The network.
    variables: Its parameters (arrays or nodes) and batch statistics.
    split: Where the first `examples` are taken from; never the test set.
    examples: Number of examples.
    dense: The network that budgets are shares of; by default this one.
    clock: Measures the milliseconds of a lowered network; optional.
    loss: One of `losses.LOSSES`.

  Returns:
    The probe. Its functions compute on demand.
  """
  stats = variables['batch_stats']
  start = tree.decode(variables['params'])
  x, y = (part[:examples] for part in split)

  def cost(dense: Params, x: Array, y: Array) -> Array:
    run: Callable[..., Any] = Net(spec).apply
    outputs = run({'params': dense, 'batch_stats': stats}, x)
    return jnp.mean(LOSSES[loss].value(outputs, y, 0.0))

  def apply(params: Params) -> Array:
    dense = tree.filled(params, start)
    network = {'params': dense, 'batch_stats': stats}
    run: Callable[..., Any] = Net(spec).apply
    logits: Array = run(network, jnp.asarray(x[:SHOWN]))
    return logits

  def milliseconds(params: Params) -> float:
    assert clock is not None
    filled = _filled(params, variables['params'])
    return clock(*lower(spec, {'params': filled, 'batch_stats': stats}))

  def ranges(params: Params) -> Stats:
    network = {'params': _filled(params, start), 'batch_stats': stats}
    return evaluate.calibrate(spec, network, split, examples)

  mean, slope = jax.jit(cost), jax.jit(jax.grad(cost))
  return Probe(
    apply,
    lambda params: mean(tree.filled(params, start), x, y),
    lambda params: slope(tree.filled(params, start), x, y),
    reducer(cost, start, x, y),
    uses(spec),
    dense=weights(dense or spec),
    milliseconds=milliseconds if clock else None,
    inputs=functools.partial(
      _inputs, spec, {'params': start, 'batch_stats': stats}, x
    ),
    ranges=ranges,
  )


def reducer(
  cost: Callable[[Params, Array, Array], Array], start: Params, x: Any, y: Any
) -> Callable[[Params, tuple[Path, ...], Statistic, int], Any]:
  """Return `Probe.reduce` of a network.

  Args:
    cost: Dense parameters, inputs, labels -> mean loss, `()`.
    start: The parameters that stand for what is None.
    x: Inputs of the calibration examples, `[examples, ...]`.
    y: Their labels.

  Returns:
    The function.
  """

  @functools.partial(jax.jit, static_argnums=(0, 1))
  def reduced(
    paths: tuple[Path, ...],
    statistic: Statistic,
    dense: Params,
    x: Array,
    y: Array,
  ) -> Any:
    return _mean_over_examples(cost, paths, statistic, dense, x, y)

  def reduce(
    params: Params, paths: tuple[Path, ...], statistic: Statistic, count: int
  ) -> Any:
    dense = tree.filled(params, start)
    shown = jnp.asarray(x[:count]), jnp.asarray(y[:count])
    return reduced(paths, statistic, dense, *shown)

  return reduce


def _mean_over_examples(
  cost: Callable[[Params, Array, Array], Array],
  paths: tuple[Path, ...],
  statistic: Statistic,
  dense: Params,
  x: Array,
  y: Array,
) -> Any:
  """Return the mean of a statistic of single gradients; see `Probe.reduce`."""
  found = tree.paths(dense)
  # Sums of squares are neither exact nor finite in 16 bits.
  weights = {path: _in_32_bits(found[path]) for path in paths}
  size = max(n for n in range(1, GRADIENTS + 1) if len(x) % n == 0)

  def gradient(pair: tuple[Array, Array]) -> dict[Path, Array]:
    def single(weights: dict[Path, Array]) -> Array:
      filled = tree.map_paths(
        lambda path, w: weights.get(path, w).astype(w.dtype), dense
      )
      return cost(filled, pair[0][None], pair[1][None])

    return jax.grad(single)(weights)

  def add(total: Any, part: tuple[Array, Array]) -> tuple[Any, None]:
    # One by one: a convolution under vmap becomes a grouped one, and slow.
    sums = statistic(weights, jax.lax.map(gradient, part))
    return jax.tree.map(jnp.add, total, sums), None

  x_parts, y_parts = (a.reshape(-1, size, *a.shape[1:]) for a in (x, y))
  shapes = jax.eval_shape(
    lambda part: statistic(weights, jax.lax.map(gradient, part)),
    (x_parts[0], y_parts[0]),
  )
  zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
  total, _ = jax.lax.scan(add, zeros, (x_parts, y_parts))
  return jax.tree.map(lambda a: a / len(x), total)


def _in_32_bits(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _inputs(
  spec: Spec,
  variables: dict[str, Any],
  x: Any,
  params: Params,
  see: dataflow.See,
  count: int,
) -> dict[Path, Any]:
  """Return the observations of layer inputs; see `compress.method.Probe`."""
  filled = _filled(params, variables['params'])
  network = {**variables, 'params': tree.decode(filled)}
  size = max(1, min(PART, count, len(x)))
  parts = max(1, min(count, len(x)) // size)
  shown = jnp.asarray(x[: parts * size]).reshape(parts, size, *x.shape[1:])
  order: list[Path] = []

  def part(x: Array) -> dict[Path, Any]:
    run: Callable[..., Any] = Net(spec).apply
    found = dataflow.apply(lambda: run(network, x), filled, see)[1]
    order[:] = found  # a traced dictionary comes back sorted
    return found

  found = jax.lax.map(part, shown)
  return {path: found[path] for path in order}


def _filled(params: Params, start: Params) -> Params:
  """Return arrays and nodes, with what is None that of the start."""
  given = tree.paths(params)
  return tree.map_paths(lambda path, x: given.get(path, x), start)


def weights(spec: Spec) -> dict[Path, Weight]:
  """Return the shape of each weight of a network, and how often it is used."""
  shapes = tree.paths(net_lib.variable_shapes(spec)['params'])
  return {
    path: Weight(shapes[path].shape, count)
    for path, count in uses(spec).items()
  }


def uses(spec: Spec) -> dict[Path, int]:
  """Return how often each entry of a weight is multiplied for one example."""
  return {
    f'{step.layer.name}/kernel': functools.reduce(
      lambda n, side: n * side, step.after[:-1], 1
    )
    for step in sp.walk(spec)
    if isinstance(step.layer, sp.Conv | sp.Dense)
  }
