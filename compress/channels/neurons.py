"""Data-free pruning of neurons: similar neurons are merged."""

import functools
import math
import re

import jax.numpy as jnp
import numpy as np

from compress import kinds, tree
from compress.channels import budget, dependency, importance, sliced
from compress.channels.dependency import Group
from compress.method import Ctx, Method, expect_probe
from compress.tree import Params


def neurons(
  share: float | None = None, *, layers: str = '.*', multiple: int = 1
) -> Method:
  r"""Merge the most similar neurons, without data.

  If two neurons have equal weights $W_i = W_j$, one can be removed without a
  change after its outgoing weights are added to those of the other,
  $a_i \leftarrow a_i + a_j$. Otherwise the change is bounded by the saliency
  $s_{ij} = \langle a_j^2 \rangle \, \| W_i - W_j \|^2$ (bias included). The
  pair with the lowest saliency is merged first (Srinivas & Babu 2015, arXiv
  1507.06149, section 3). The filters of a convolution are merged in the same
  way.

  Args:
    share: Smallest share of neurons to remove in each layer, in [0, 1); None
      stops when the lowest saliency exceeds the mode of the saliencies of the
      trained layer.
    layers: Regular expression for the names of the layers to prune.
    multiple: Widths are multiples of it, in layers that wide.

  Returns:
    The method. It uses the structure of the network, not the data.

  Raises:
    ValueError: If an argument is impossible or no layer can be pruned:
      neurons with a norm behind them cannot be merged.
  """
  if not (isinstance(multiple, int) and multiple >= 1):
    raise ValueError(
      f'prune.neurons: expected a multiple from 1, got {multiple!r}. Widths '
      'are multiples of it.'
    )
  if share is not None and not 0 <= share < 1:
    raise ValueError(
      f'prune.neurons: expected a share in [0, 1), got {share!r}. It is the '
      'share of the neurons to remove.'
    )

  def init(params: Params, ctx: Ctx) -> Params:
    probe = expect_probe('prune.neurons', ctx)
    kinds.refuse('prune.neurons', kinds.ARRAYS, params)
    found = dependency.groups(
      probe.apply, budget.full_shapes(params, probe), probe.examples
    )
    have = tree.paths(params)
    plain = [
      g
      for g in found
      if not g.of('carries')
      and '+' not in g.name
      and all(s.path in have for s in g.slices)
    ]
    chosen = [g for g in plain if re.fullmatch(layers, g.name)]
    if not chosen:
      names = ', '.join(g.name for g in plain) or 'none'
      raise ValueError(
        f'prune.neurons: expected layers to prune, got {layers!r} of {names}. '
        'A layer must have no norm behind it and its own neurons, and is '
        'pruned as a whole: leave out `only`.'
      )
    keeps = []
    for group in chosen:
      params, keep = _merged(params, group, share, multiple)
      keeps.append(keep)
    cuts = zip(chosen, keeps, strict=True)
    return functools.reduce(lambda p, c: sliced.cut(p, *c), cuts, params)

  return Method(init)


def merge(
  incoming: np.ndarray,
  outgoing: np.ndarray,
  count: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
  """Remove neurons one by one, each merged at the lowest saliency.

  Args:
    incoming: Weights into each neuron, bias included, `[neurons, n]`.
    outgoing: Weights out of each neuron, `[neurons, m]`.
    count: Number to remove; None stops at the mode of the saliencies.

  Returns:
    Which neurons remain, `[neurons]` bool, and the new outgoing weights.
  """
  incoming = np.asarray(incoming, float)  # for differences of squares
  square = np.sum(incoming**2, 1)
  apart = square[:, None] + square - 2 * incoming @ incoming.T
  apart = np.maximum(apart, 0)
  out = np.array(outgoing, float)
  saliency = apart * np.mean(out**2, 1)  # [remains, removed]
  np.fill_diagonal(saliency, np.inf)
  limit = math.inf
  if count is None:
    finite = saliency[np.isfinite(saliency)]
    sizes, edges = np.histogram(finite, bins=100)
    limit, count = float(edges[np.argmax(sizes)]), len(apart) - 1
  keep = np.ones(len(apart), bool)
  for _ in range(count):
    i, j = np.unravel_index(np.argmin(saliency), saliency.shape)
    if saliency[i, j] > limit:
      break
    out[i] += out[j]
    keep[j] = False
    saliency[j], saliency[:, j] = np.inf, np.inf
    saliency[:, i] = np.where(keep, apart[:, i] * np.mean(out[i] ** 2), np.inf)
    saliency[i, i] = np.inf
  return keep, out


def _merged(
  params: Params, group: Group, share: float | None, multiple: int
) -> tuple[Params, np.ndarray]:
  """Return the arrays after merging one layer, and which neurons remain."""
  arrays = tree.paths(params)
  consumers = group.of('consumes')
  incoming = np.concatenate(
    [importance.rows(arrays[s.path], s) for s in group.of('produces')], axis=1
  )
  outgoing = [importance.rows(arrays[s.path], s) for s in consumers]
  joined = np.concatenate(outgoing, axis=1)
  if share is None:
    left = int(merge(incoming, joined)[0].sum())
    width = math.ceil(left / multiple) * multiple
  else:
    left = math.floor((1 - share) * group.channels + 1e-9)
    width = max(1, left // multiple) * multiple
  width = min(group.channels, width)
  keep, merged = merge(incoming, joined, group.channels - width)
  ends = np.cumsum([rows.shape[1] for rows in outgoing])[:-1]
  parts = np.split(merged * keep[:, None], ends, axis=1)
  new = {
    s.path: _written(arrays[s.path], s, rows)
    for s, rows in zip(consumers, parts, strict=True)
  }
  return tree.map_paths(lambda path, x: new.get(path, x), params), keep


def _written(
  x: tree.Array, part: dependency.Slice, rows: np.ndarray
) -> tree.Array:
  """Return an array with the entries of each channel replaced."""
  moved = np.moveaxis(np.array(x), part.axis, 0)
  moved[part.entries] = rows.reshape(*part.entries.shape, *moved.shape[1:])
  return jnp.asarray(np.moveaxis(moved, 0, part.axis), x.dtype)
