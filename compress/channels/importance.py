"""Importance scores of channels: low scores are pruned first."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.channels.dependency import Group, Slice
from compress.method import Ctx, expect_probe
from compress.random import own
from compress.tree import Array, Params, Path

# Groups -> scores `[channels]` by name of the group.
Importance: TypeAlias = Callable[
  [Sequence[Group], Params, Ctx], dict[str, np.ndarray]
]


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
  # Of double precision: distances are differences of squares.
  rows = _filters(group, params)
  square = np.sum(rows**2, 1)
  apart = square[:, None] + square - 2 * rows @ rows.T
  return np.sqrt(np.maximum(apart, 0)).sum(1)


def bn_scale(group: Group, params: Params, ctx: Ctx) -> np.ndarray:
  """Score by the scale of the batch norm (Liu+ 2017, arXiv 1708.06519)."""
  del ctx
  found = tree.paths(params)
  scales = [np.abs(rows(found[s.path], s)).sum(1) for s in norm_scales(group)]
  if not scales:
    raise ValueError(
      f"score='bn_scale' at {group.name}: expected a norm behind it, got "
      "none. Use score='l2', or select other layers with `layers=`."
    )
  return np.sum(scales, 0)


def norm_scales(group: Group) -> list[Slice]:
  """Return the scales of the norms behind the channels of a group."""
  own = [s for s in group.slices if s.role != 'consumes']
  return [s for s in own if s.path.endswith('scale')]


def taylor(
  groups: Sequence[Group], params: Params, ctx: Ctx
) -> dict[str, np.ndarray]:
  r"""Score by the effect on the loss over calibration data.

  $\mathbb{E}_x (\sum_{s} g_s(x) w_s)^2$ over the parameters $s$ of a channel
  and of the norms behind it: to first order the squared change of the loss of
  one example when it is removed (Molchanov+ 2019, arXiv 1906.10771, equation
  8).
  """
  probe = expect_probe("score='taylor'", ctx)
  parts = {g.name: g.of('produces') + g.of('carries') for g in groups}
  paths = dict.fromkeys(s.path for part in parts.values() for s in part)

  def squares(
    weights: dict[Path, Array], gradients: dict[Path, Array]
  ) -> dict[str, Array]:
    def change(part: Slice) -> Array:
      product = gradients[part.path] * weights[part.path]
      moved = jnp.moveaxis(product, part.axis + 1, 1)
      flat = moved.reshape(*moved.shape[:2], -1).sum(2)  # [examples, entries]
      return flat[:, part.entries].sum(2)

    return {
      name: jnp.sum(sum(map(change, part), jnp.zeros(())) ** 2, axis=0)
      for name, part in parts.items()
    }

  found = probe.reduce(params, tuple(paths), squares, SAMPLES)
  return {name: np.asarray(scores) for name, scores in found.items()}


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


def rows(x: Array, part: Slice) -> np.ndarray:
  """Return the entries of each channel in one array, `[channels, n]`."""
  moved = np.moveaxis(np.asarray(x), part.axis, 0)[part.entries]
  return moved.reshape(len(part.entries), -1)


def _filters(group: Group, params: Params) -> np.ndarray:
  """Return the weights that produce each channel, `[channels, n]` float64.

  Squares of large weights overflow in their own type.
  """
  found = tree.paths(params)
  filters = np.concatenate(
    [
      rows(found[part.path], part)
      for part in group.of('produces')
      if np.ndim(found[part.path]) >= 2
    ],
    axis=1,
  )
  return filters.astype(float)


def _each(score: Callable[[Group, Params, Ctx], np.ndarray]) -> Importance:
  """Return the score of several groups, given that of one."""
  return lambda groups, params, ctx: {
    group.name: score(group, params, ctx) for group in groups
  }


SAMPLES = 256  # examples whose gradients are squared
SCORES: dict[str, Importance] = {
  'bn_scale': _each(bn_scale),
  'fpgm': _each(fpgm),
  'l1': _each(l1),
  'l2': _each(l2),
  'random': _each(random),
  'taylor': taylor,
}
