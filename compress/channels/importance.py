"""Importance scores of channels: low scores are pruned first."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from compress import tree
from compress.channels.dependency import Group, Slice
from compress.method import Ctx, expect_probe
from compress.random import own
from compress.tree import Params

Importance = Callable[[Group, Params, Ctx], np.ndarray]


def l1(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the absolute sum of the filters (Li+ 2017, arXiv 1608.08710)."""
  del ctx
  return np.abs(_filters(group, params)).sum(1)


def l2(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the Euclidean norm of the filters (Li+ 2017)."""
  del ctx
  return np.linalg.norm(_filters(group, params), axis=1)


def fpgm(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the sum of the distances from the other filters (FPGM).

  A filter near the geometric median of all is redundant (He+ 2019, arXiv
  1811.00250, equation 4).
  """
  del ctx
  # Double precision: distances are differences of squares.
  rows = _filters(group, params).astype(float)
  square = np.sum(rows**2, 1)
  apart = square[:, None] + square - 2 * rows @ rows.T
  return np.sqrt(np.maximum(apart, 0)).sum(1)


def bn_scale(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the scale of the batch norm (Liu+ 2017, arXiv 1708.06519)."""
  del ctx
  found = tree.paths(params)
  scales = [
    np.abs(rows(found[part.path], part)).sum(1)
    for part in group.of('carries')
    if part.path.endswith('scale')
  ]
  if not scales:
    raise ValueError(
      f"score='bn_scale' at {group.name}: expected a norm behind it, got "
      "none. Use score='l2', or select other layers with `layers=`."
    )
  return np.sum(scales, 0)


def taylor(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  r"""Score by the effect on the loss over calibration data.

  $\mathbb{E}_x (\sum_{s} g_s(x) w_s)^2$ over the parameters $s$ of a channel
  and of the norms behind it: to first order the squared change of the loss of
  one example when it is removed (Molchanov+ 2019, arXiv 1906.10771, equation
  8).
  """
  probe = expect_probe("score='taylor'", ctx)
  grads = tree.paths(probe.samples(params, SAMPLES))
  found = tree.paths(params)
  total: Any = 0.0
  for part in group.of('produces') + group.of('carries'):
    product = np.asarray(grads[part.path]) * np.asarray(found[part.path])
    moved = np.moveaxis(product, part.axis + 1, 1)
    flat = moved.reshape(*moved.shape[:2], -1).sum(2)  # [samples, entries]
    total = total + flat[:, part.entries].sum(2)
  return np.mean(np.square(total), 0)


def random(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score at random: the control for every other score."""
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
  """Return the weights that produce each channel, `[channels, n]`."""
  found = tree.paths(params)
  return np.concatenate(
    [
      rows(found[part.path], part)
      for part in group.of('produces')
      if np.ndim(found[part.path]) >= 2
    ],
    axis=1,
  )


SAMPLES = 256  # examples whose gradients are squared
SCORES: dict[str, Importance] = {
  'bn_scale': bn_scale,
  'fpgm': fpgm,
  'l1': l1,
  'l2': l2,
  'random': random,
  'taylor': taylor,
}
