"""k-means: the weights of each layer share a few values."""

import jax
import jax.numpy as jnp
import numpy as np

from compress import random
from compress.errors import expect_name
from compress.method import Ctx, Method
from compress.share import base, clustering
from compress.share.codebook import Shared
from compress.tree import Array, Path


def kmeans(
  clusters: int | None = None,
  *,
  bits: int | None = None,
  start: str = 'linear',
  sweeps: int = clustering.SWEEPS,
) -> Method:
  r"""Cluster the weights of each layer, and train the centroids.

  The gradient of a centroid is the sum of those of its weights (Han+ 2016,
  arXiv 1510.00149, section 3). After `prune.weights` only the weights that are
  left are clustered and zeros stay zeros; the packed file range codes masks and
  indices.

  Args:
    clusters: Values per layer, from 1; or give `bits`.
    bits: Width of an index, 1 to 15: `2**bits` clusters.
    start: How centroids are initialized: 'linear' (best in the paper),
      'density' or 'random'.
    sweeps: Sweeps of Lloyd's algorithm, from 1.

  Returns:
    The method.

  Raises:
    ValueError: If an argument is impossible, a layer has fewer weights than
      there are clusters, or a weight is quantized already.
  """
  where = 'share.kmeans'
  count = _count(where, clusters, bits)
  expect_name(where, 'start', start, clustering.STARTS)
  base.expect_count(where, 'sweeps', sweeps)

  def share(path: Path, w: Array, mask: Array | None, ctx: Ctx) -> Shared:
    left = w.size if mask is None else _number(mask)
    if count > left:
      raise ValueError(
        f'{where} at {path}: expected at most as many clusters as there are '
        f'weights, {left}, got {count}. Ask for fewer, or prune less.'
      )
    kept = jnp.ones(w.size, bool) if mask is None else mask.ravel()
    values = w.ravel().astype(jnp.float32)
    key = None if ctx.key is None else random.own(ctx.key, path)
    first = clustering.started(values, kept, count, start, key)
    found = clustering.lloyd(values, kept, first, sweeps).astype(w.dtype)
    near = clustering.nearest(values, found.astype(jnp.float32))
    index = (near + 1).reshape(w.shape)
    return Shared(found, index.astype(base.index_dtype(count + 1)))

  return base.sharing(where, share)


def _count(where: str, clusters: int | None, bits: int | None) -> int:
  """Return the number of clusters that one of two arguments gives."""
  if (clusters is None) == (bits is None):
    raise ValueError(
      f'{where}: expected clusters or bits, got {clusters!r} and {bits!r}.'
    )
  if bits is None:
    base.expect_count(where, 'clusters', clusters)
    assert clusters is not None
    if clusters >= base.WIDE:
      raise ValueError(
        f'{where}: expected fewer than {base.WIDE} clusters, got {clusters}.'
      )
    return clusters
  if type(bits) is not int or not 1 <= bits <= 15:
    raise ValueError(f'{where}: expected bits in 1 to 15, got {bits!r}.')
  return int(2**bits)


def _number(mask: Array) -> int:
  """Return how many weights a mask keeps; all of them if it is traced."""
  if isinstance(mask, jax.core.Tracer):
    return mask.size
  return int(np.sum(np.asarray(mask)))
