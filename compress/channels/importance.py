"""What a channel is worth: a group -> a score a channel, high is kept."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from compress import tree
from compress.channels.dependency import Group, Slice
from compress.method import Ctx, expect_probe
from compress.random import own
from compress.tree import Params

Rank = Callable[[Group, Params, Ctx], np.ndarray]


def l1(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the absolute sum of the filters (Li+ 2017, arXiv 1608.08710)."""
  del ctx
  return np.abs(_filters(group, params)).sum(1)


def l2(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the Euclidean norm of the filters (Li+ 2017)."""
  del ctx
  return np.linalg.norm(_filters(group, params), axis=1)


def median(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the distances from the other filters, summed.

  A filter close to all others, near their geometric median, is replaceable
  (He+ 2019, arXiv 1811.00250, equation 4).
  """
  del ctx
  rows = _filters(group, params).astype(float)  # differences of squares
  square = np.sum(rows**2, 1)
  apart = square[:, None] + square - 2 * rows @ rows.T
  return np.sqrt(np.maximum(apart, 0)).sum(1)


def norm(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the scale of the norm behind (Liu+ 2017, arXiv 1708.06519)."""
  del ctx
  found = tree.paths(params)
  scales = [
    np.abs(rows(found[part.path], part)).sum(1)
    for part in group.of('carries')
    if part.path.endswith('scale')
  ]
  if not scales:
    raise ValueError(
      f"score='norm' at {group.name}: expected a norm behind the layer, got "
      "none. Use score='l2', or choose other layers with `layers=`."
    )
  return np.sum(scales, 0)


def taylor(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  r"""Score by the influence on the loss over calibration data.

  $\mathbb{E}_x (\sum_{s} g_s(x) w_s)^2$ over the parameters $s$ that make and
  carry a channel, to first order the square of what removing it does to the
  loss of one example (Molchanov+ 2019, arXiv 1906.10771, equation 8).
  """
  probe = expect_probe("score='taylor'", ctx)
  grads = tree.paths(probe.samples(params, SAMPLES))
  found = tree.paths(params)
  total: Any = 0.0
  for part in group.of('makes') + group.of('carries'):
    product = np.asarray(grads[part.path]) * np.asarray(found[part.path])
    moved = np.moveaxis(product, part.axis + 1, 1)
    flat = moved.reshape(*moved.shape[:2], -1).sum(2)  # [samples, entries]
    total = total + flat[:, part.entries].sum(2)
  return np.mean(np.square(total), 0)


def random(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by chance: the control that every other score has to beat."""
  del params
  if ctx.key is None:
    raise ValueError(
      "score='random': expected a key in the context, got None. Pass "
      'Ctx(key=jax.random.key(seed)).'
    )
  key = own(ctx.key, group.name)
  return np.asarray(jax.random.uniform(key, (group.channels,)))


def rows(x: Any, part: Slice) -> np.ndarray:
  """Return the entries of each channel in one array, `[channels, n]`."""
  moved = np.moveaxis(np.asarray(x), part.axis, 0)[part.entries]
  return moved.reshape(len(part.entries), -1)


def _filters(group: Group, params: Params) -> np.ndarray:
  """Return the weights that make each channel, `[channels, n]`."""
  found = tree.paths(params)
  return np.concatenate(
    [
      rows(found[part.path], part)
      for part in group.of('makes')
      if np.ndim(found[part.path]) >= 2
    ],
    axis=1,
  )


SAMPLES = 256  # examples whose gradients are squared
RANKS: dict[str, Rank] = {
  'l1': l1,
  'l2': l2,
  'median': median,
  'norm': norm,
  'random': random,
  'taylor': taylor,
}
