"""Channels scaled so that layers use their grids well."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from compress import tree
from compress.channels import budget, dependency, filters, importance
from compress.channels.dependency import Group, Slice
from compress.method import Ctx, Method, Probe, expect_probe
from compress.tree import Array, Params, Path

SAME = 1e-3  # relative change of outputs that rounding of floats explains

DEVIATIONS = 3.0  # that the outputs of a norm reach from their mean


def cross_layer_equalization(*, sweeps: int = 10) -> Method:
  r"""Scale channels so that both layers that share them use their grids well.

  Where what follows a layer is positively homogeneous, as a ReLU is, channel i
  may be divided by $s_i$ in one layer and multiplied in the next. With
  $s_i = \sqrt{r_i^{(1)} / r_i^{(2)}}$ the ranges $r^{(1)}$ of the weights that
  make it and $r^{(2)}$ of those that take it in become equal (Nagel+ 2019,
  arXiv 1906.04721, equations 7 to 11). Where a norm is in between, its scale
  and bias are divided and $r^{(1)} = |\beta| + 3 |\gamma|$. Channels whose
  scaling changes the outputs, as through a tanh, stay as they are.

  It gains most before `quantize.uniform(per='tensor')`; steps a channel make up
  for the ranges of outputs, not for those of inputs.

  Args:
    sweeps: How often the pairs of layers are gone through; a layer is in two.

  Returns:
    The method; it moves arrays in `init` and has no nodes.

  Raises:
    ValueError: If a weight is not a plain array any more, there is no probe, or
      no two layers share channels that may be scaled.
  """
  where = 'quantize.cross_layer_equalization'
  if type(sweeps) is not int or sweeps < 1:
    raise ValueError(f'{where}: expected sweeps from 1, got {sweeps!r}.')

  def init(params: Params, ctx: Ctx) -> Params:
    probe = expect_probe(where, ctx)
    filters.refuse_nodes(where, params)
    found = dependency.groups(probe.apply, budget.full_shapes(params, probe))
    have = tree.paths(params)
    whole = [g for g in found if all(s.path in have for s in g.slices)]
    free = [g for g in whole if _harmless(probe, params, g)]
    if not free:
      raise ValueError(
        f'{where}: expected layers with a ReLU or nothing nonlinear between '
        f'them, got none among {", ".join(g.name for g in found) or "no"} '
        'channels. Leave it out.'
      )
    for _ in range(sweeps):
      for group in free:
        params = scaled(params, group, factors(params, group))
    return params

  return Method(init)


def factors(params: Params, group: Group) -> np.ndarray:
  """Return what each channel is divided by, `[channels]`."""
  arrays = tree.paths(params)
  makers = _makers(group)
  ranges = [_sizes(arrays, part) for part in makers if _counts(arrays, part)]
  if group.of('carries'):
    made = np.sum(ranges, axis=0)
  else:
    made = np.max(ranges, axis=0)
  taken = np.max(
    [_sizes(arrays, part) for part in group.of('consumes')], axis=0
  )
  right = (made > 0) & (taken > 0)
  ratio = np.where(right, made, 1.0) / np.where(right, taken, 1.0)
  return np.sqrt(ratio)


def scaled(params: Params, group: Group, by: np.ndarray) -> Params:
  """Return the network with each channel divided, then multiplied again."""
  parts = {s.path: (s, 1 / by) for s in _makers(group)}
  parts |= {s.path: (s, by) for s in group.of('consumes')}

  def visit(path: Path, x: Any) -> Any:
    return _times(x, *parts[path]) if path in parts else x

  return tree.map_paths(visit, params)


def _makers(group: Group) -> list[Slice]:
  """Return what sets the size of a channel last."""
  return group.of('carries') or group.of('produces')


def _counts(arrays: dict[Path, Any], part: Slice) -> bool:
  """Tell whether an array is one of those whose range is looked at."""
  return arrays[part.path].ndim > 1 or part.role == 'carries'


def _sizes(arrays: dict[Path, Any], part: Slice) -> np.ndarray:
  """Return the range of each channel in one array, `[channels]`."""
  most = np.abs(importance.rows(arrays[part.path], part)).max(axis=1)
  gamma = part.role == 'carries' and part.path.endswith('scale')
  return DEVIATIONS * most if gamma else most


def _times(x: Array, part: Slice, by: np.ndarray) -> Array:
  """Multiply the entries of each channel."""
  factor = np.ones(x.shape[part.axis], np.float32)
  factor[part.entries] = by[:, None]
  shape = [1] * x.ndim
  shape[part.axis] = -1
  return x * jnp.asarray(factor.reshape(shape), x.dtype)


def _harmless(probe: Probe, params: Params, group: Group) -> bool:
  """Tell whether the outputs stay when the channels of a group are scaled."""
  arrays = tree.paths(params)
  makers, takes = _makers(group), group.of('consumes')
  # Another layer on the way, as a depthwise one, has sizes of its own.
  if any(s.role == 'carries' and arrays[s.path].ndim > 1 for s in makers):
    return False
  if not (takes and makers):
    return False
  drawn = np.random.default_rng(0).uniform(0.5, 2.0, group.channels)
  before = np.asarray(probe.apply(params))
  after = np.asarray(probe.apply(scaled(params, group, drawn)))
  return bool(np.abs(after - before).max() <= SAME * np.abs(before).max())
