"""HashedNets: a hash function chooses which weights share a value."""

import zlib

import jax.numpy as jnp

from compress.method import Ctx, Method
from compress.share import base, clustering
from compress.share.codebook import Hashed, hashes
from compress.tree import Array, Path


def hashed(share: float, *, seed: int = 0) -> Method:
  r"""Share the values of each layer among weights chosen by a hash.

  $w_i = \xi(i) v_{h(i)}$ with a second hash for the sign, so that only the
  values are stored (HashedNets: Chen+ 2015, arXiv 1504.04788, equations 3 and
  7). They start as the least-squares fit to the trained weights.

  Args:
    share: Values per weight, in (0, 1].
    seed: Seed of the hashes, in [0, 2**16); layers differ.

  Returns:
    The method.

  Raises:
    ValueError: If an argument is impossible or a weight is quantized already.
  """
  where = 'share.hashed'
  if not 0 < share <= 1:
    raise ValueError(
      f'{where}: expected a share in (0, 1], got {share!r}. It is how many '
      'values there are for each weight.'
    )
  if type(seed) is not int or not 0 <= seed < base.WIDE:
    raise ValueError(f'{where}: expected a seed in [0, 65536), got {seed!r}.')

  def hash_(path: Path, w: Array, mask: Array | None, ctx: Ctx) -> Hashed:
    del ctx
    own = (seed ^ zlib.crc32(path.encode())) % 2**24
    buckets = max(1, round(share * w.size))
    at, sign = hashes(w.shape, buckets, own)
    signed = (w.astype(jnp.float32) * sign).ravel()
    kept = None if mask is None else mask.ravel()
    values = jnp.zeros(buckets)
    for _ in range(2):  # the second sum is about the mean, and exact
      values = clustering.means(signed, at.ravel(), values, kept)
    return Hashed(values.astype(w.dtype), own, w.shape)

  return base.sharing(where, hash_)
