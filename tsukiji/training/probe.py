"""The probe of a network: functions that methods call before training."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

import compress
from compress import probing, tree
from compress.method import Probe, Weight
from compress.tree import Array, Params, Path
from tsukiji.data.datasets import Split
from tsukiji.deploy.passes.lower import lower
from tsukiji.models import net as net_lib
from tsukiji.models.spec import Spec
from tsukiji.training import evaluate
from tsukiji.training.losses import LOSSES

Clock: TypeAlias = Callable[[Any, dict[str, Any]], float]  # milliseconds


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
  apply = evaluate.applied(spec, stats)

  def cost(params: Params, batch: tuple[Array, Array]) -> Array:
    inputs, labels = batch
    losses = LOSSES[loss].value(apply(params, inputs), labels, 0.0)
    return jnp.mean(losses)

  def milliseconds(params: Params) -> float:
    assert clock is not None
    filled = probing.filled(params, variables['params'])
    return clock(*lower(spec, {'params': filled, 'batch_stats': stats}))

  found = compress.probe(apply, start, x, loss=cost, batch=(x, y))
  return found._replace(
    dense=weights(dense or spec), milliseconds=milliseconds if clock else None
  )


def weights(spec: Spec) -> dict[Path, Weight]:
  """Return the shape of each weight of a network, and how often it is used."""
  shapes = net_lib.variable_shapes(spec)
  one = jax.ShapeDtypeStruct((1, *spec.input_shape), jnp.float32)
  found = compress.sites(
    lambda params, x, stats: evaluate.applied(spec, stats)(params, x),
    shapes['params'],
    one,
    shapes['batch_stats'],
  )
  return {
    path: Weight(site.shape, site.uses)
    for path, site in found.items()
    if site.is_weight
  }
