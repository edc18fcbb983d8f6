"""Cross-layer equalization: weight ranges balanced between layers."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from compress import kinds, tree
from compress.channels import budget, dependency, importance
from compress.channels.dependency import Group, Slice
from compress.errors import shorten
from compress.method import Ctx, Method, Probe, expect_probe
from compress.quantize import homogeneity
from compress.tree import Array, Params, Path

DEVIATIONS = 3.0  # range of the outputs of a norm, in standard deviations


def cross_layer_equalization(*, sweeps: int = 10) -> Method:
  r"""Equalize the weight ranges of channels across layers.

  If the function between two layers is positively homogeneous, such as ReLU,
  channel i can be divided by $s_i$ in the first layer and multiplied by it in
  the second. With $s_i = \sqrt{r_i^{(1)} / r_i^{(2)}}$ the ranges $r^{(1)}$ of
  the weights that produce it and $r^{(2)}$ of those that consume it become
  equal (Nagel+ 2019, arXiv 1906.04721, equations 7 to 11). With a norm in
  between, its scale and bias are divided and $r^{(1)} = |\beta| + 3 |\gamma|$.
  Other channels, such as the inputs of a tanh, are not changed: `homogeneity`
  compares the operations of the traced network with a list of homogeneous
  ones.

  It is most effective before `quantize.uniform(per='tensor')`: a step per
  channel adapts to the ranges of outputs, but not to those of inputs.

  Args:
    sweeps: Number of passes over the pairs of layers.

  Returns:
    The method. It changes arrays in `init` and adds no nodes.

  Raises:
    ValueError: If a weight is not a plain array, there is no probe, or no two
      layers share channels that can be scaled.
  """
  where = 'quantize.cross_layer_equalization'
  if type(sweeps) is not int or sweeps < 1:
    raise ValueError(f'{where}: expected sweeps from 1, got {sweeps!r}.')

  def init(params: Params, ctx: Ctx) -> Params:
    probe = expect_probe(where, ctx)
    kinds.refuse(where, kinds.ARRAYS, params)
    full = budget.full_shapes(params, probe)
    found = dependency.groups(probe.apply, full, probe.examples)
    blocked = _blocked(probe, params, full, found)
    scalable = [group for group in found if not blocked[group.name]]
    if not scalable:
      why = [f'{name} ({reason})' for name, reason in blocked.items()]
      raise ValueError(
        f'{where}: expected channels with homogeneous functions as ReLU '
        'between layers, got '
        f'{shorten(", ".join(why), 120) or "no channels"}. Leave it out.'
      )
    for _ in range(sweeps):
      for group in scalable:
        params = scaled(params, group, factors(params, group))
    return params

  return Method(init)


def factors(params: Params, group: Group) -> np.ndarray:
  """Return the divisor of each channel, `[channels]`."""
  arrays = tree.paths(params)
  producers = _producers(group)
  ranges = [
    _ranges(arrays, part) for part in producers if _has_range(arrays, part)
  ]
  if group.of('carries'):
    made = np.sum(ranges, axis=0)
  else:
    made = np.max(ranges, axis=0)
  taken = np.max(
    [_ranges(arrays, part) for part in group.of('consumes')], axis=0
  )
  valid = (made > 0) & (taken > 0)
  ratio = np.where(valid, made, 1.0) / np.where(valid, taken, 1.0)
  by = np.sqrt(ratio)
  fits = [_fits(arrays[p], *parts) for p, parts in _parts(group, by).items()]
  return np.where(np.all(fits, axis=0), by, 1.0)


def scaled(params: Params, group: Group, by: np.ndarray) -> Params:
  """Divide each channel in its producers and multiply it in its consumers."""
  parts = _parts(group, by)

  def visit(path: Path, x: Any) -> Any:
    return _times(x, *parts[path]) if path in parts else x

  return tree.map_paths(visit, params)


def _parts(group: Group, by: np.ndarray) -> dict[Path, tuple[Slice, Any]]:
  """Return the factors of the channels in each array."""
  parts = {s.path: (s, 1 / by) for s in _producers(group)}
  return parts | {s.path: (s, by) for s in group.of('consumes')}


def _fits(x: Array, part: Slice, by: np.ndarray) -> np.ndarray:
  """Return whether the scaled channels do not overflow, `[channels]`."""
  largest = np.abs(importance.rows(x, part).astype(float)).max(axis=1)
  fits: np.ndarray = largest * by <= float(jnp.finfo(x.dtype).max)
  return fits


def _producers(group: Group) -> list[Slice]:
  """Return the last slices that determine the size of a channel."""
  return group.of('carries') or group.of('produces')


def _has_range(arrays: dict[Path, Any], part: Slice) -> bool:
  """Return whether an array contributes to the range; a bias does not."""
  return arrays[part.path].ndim > 1 or part.role == 'carries'


def _ranges(arrays: dict[Path, Any], part: Slice) -> np.ndarray:
  """Return the range of each channel in one array, `[channels]`."""
  rows = importance.rows(arrays[part.path], part).astype(float)
  largest = np.abs(rows).max(axis=1)
  gamma = part.role == 'carries' and part.path.endswith('scale')
  return DEVIATIONS * largest if gamma else largest


def _times(x: Array, part: Slice, by: np.ndarray) -> Array:
  """Multiply the entries of each channel."""
  factor = np.ones(x.shape[part.axis])
  factor[part.entries] = by[:, None]
  shape = [1] * x.ndim
  shape[part.axis] = -1
  # A factor may overflow where its products do not.
  return jnp.asarray(np.asarray(x, float) * factor.reshape(shape), x.dtype)


def _blocked(
  probe: Probe, params: Params, full: Params, found: list[Group]
) -> dict[str, str]:
  """Return why the channels of each group cannot be scaled, '' if they can."""
  arrays = tree.paths(params)
  reason = homogeneity.reasons(
    lambda params: probe.apply(params, *probe.examples), full
  )

  def why(group: Group) -> str:
    producers, takes = _producers(group), group.of('consumes')
    if any(arrays.get(s.path) is None for s in group.slices):
      return 'not among these weights'
    if not (takes and producers):
      return 'no layer on each side'
    # A depthwise layer in between has a range of its own.
    if any(s.role == 'carries' and arrays[s.path].ndim > 1 for s in producers):
      return 'a depthwise layer'
    made, taken = ({s.path for s in part} for part in (producers, takes))
    if made & taken:
      return 'a layer on both sides'
    return reason(made, taken)

  return {group.name: why(group) for group in found}
