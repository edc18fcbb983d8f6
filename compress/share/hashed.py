"""HashedNets: a hash tells which weights share a value."""

import zlib

import jax.numpy as jnp

from compress.method import Ctx, Method
from compress.share import base
from compress.share.codebook import Hashed, hashes
from compress.tree import Array, Path


def hashed(share: float, *, seed: int = 0) -> Method:
  r"""Let a hash tell which weights of a layer share a value.

  $w_i = \xi(i) v_{h(i)}$ with a second hash for the sign, so that nothing but
  the values is stored (HashedNets: Chen+ 2015, arXiv 1504.04788, equations 3
  and 7). A trained weight starts from the values that are nearest to it.

  Args:
    share: Values per weight, in (0, 1].
    seed: Of the hashes, from 0 and under 2**16; layers differ.

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
    kept = jnp.ones(w.shape) if mask is None else mask.astype(w.dtype)
    total = jnp.zeros(buckets).at[at].add(w * sign * kept)
    number = jnp.zeros(buckets).at[at].add(kept)
    return Hashed(total / jnp.maximum(number, 1), own, w.shape)

  return base.sharing(where, hash_)
