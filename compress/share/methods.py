"""Shared weights: few numbers that stand for many, and train as their sum."""

import zlib
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from compress import random, tree
from compress.method import Ctx, Method
from compress.prune.masked import Masked, expect_name
from compress.quantize.uniform import refuse_grids
from compress.share import clustering
from compress.share.codebook import Hashed, Products, Shared, hashes
from compress.tree import Array, Params, Path

# Path, weight, what of it is kept (None is all), context -> node.
Share: TypeAlias = Callable[[Path, Array, Array | None, Ctx], Any]
WIDE = 2**16  # as many codes as a 16-bit index has


def kmeans(
  clusters: int | None = None,
  *,
  bits: int | None = None,
  start: str = 'linear',
  sweeps: int = clustering.SWEEPS,
) -> Method:
  r"""Let the weights of each layer share a few values, which then train.

  k-means over the weights of a layer, then training of the centroids: the
  gradient of one is the sum of those of its weights (Han+ 2016, arXiv
  1510.00149, section 3). After `prune.weights` only what is left is clustered
  and zeros stay zeros; the packed file range codes masks and indices.

  Args:
    clusters: Values a layer, from 1; or give `bits`.
    bits: Width of an index, 1 to 15: `2**bits` clusters.
    start: Where centroids start: 'linear' (the paper's best), 'density' or
      'random'.
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
  _expect_whole(where, 'sweeps', sweeps)

  def share(path: Path, w: Array, mask: Array | None, ctx: Ctx) -> Shared:
    left = w.size if mask is None else _number(mask)
    if count > left:
      raise ValueError(
        f'{where} at {path}: expected at most as many clusters as there are '
        f'weights, {left}, got {count}. Ask for fewer, or prune less.'
      )
    kept = jnp.ones(w.size, bool) if mask is None else mask.ravel()
    values = w.ravel()
    key = None if ctx.key is None else random.own(ctx.key, path)
    first = clustering.started(values, kept, count, start, key)
    found = clustering.lloyd(values, kept, first, sweeps)
    index = (clustering.nearest(values, found) + 1).reshape(w.shape)
    return Shared(found, index.astype(_width(count + 1)))

  return sharing(where, share)


def product(
  clusters: int = 16,
  length: int = 4,
  *,
  codebooks: int = 1,
  sweeps: int = clustering.SWEEPS,
) -> Method:
  """Let pieces of the inputs of each channel be one of a few.

  Product quantization (Gong+ 2014, arXiv 1412.6115, section 3.3): the inputs
  of a kernel are cut to pieces of `length` and the pieces clustered; the
  codewords then train. An index takes log2(clusters) / length bits a weight.

  Args:
    clusters: Codewords a codebook, from 1.
    length: Inputs a piece, from 1; the last one is filled up with zeros.
    codebooks: Each is for as many neighbouring pieces as the others; as many
      as pieces is the paper's, which only wide layers pay for.
    sweeps: As `kmeans`.

  Returns:
    The method.

  Raises:
    ValueError: As `kmeans`, or if there are more codebooks than pieces.
  """
  where = 'share.product'
  for what, n in (
    ('clusters', clusters),
    ('length', length),
    ('codebooks', codebooks),
    ('sweeps', sweeps),
  ):
    _expect_whole(where, what, n)

  def share(path: Path, w: Array, mask: Array | None, ctx: Ctx) -> Products:
    del mask  # what it covers is 0 whatever the piece is
    flat = w.reshape(-1, w.shape[-1])
    pieces = -(-len(flat) // length)
    members = pieces // max(codebooks, 1) * w.shape[-1]
    if codebooks > pieces or clusters > members:
      raise ValueError(
        f'{where} at {path}: expected at most {pieces} codebooks of at most '
        f'{members} clusters, got {codebooks} of {clusters}. Ask for fewer, or '
        'for shorter pieces.'
      )
    padded = jnp.pad(flat, ((0, pieces * length - len(flat)), (0, 0)))
    rows = padded.reshape(pieces, length, -1).transpose(0, 2, 1)
    book = np.arange(pieces) * codebooks // pieces
    values, index = [], []
    if ctx.key is None:
      raise ValueError(
        f'{where}: expected a key in the context, got None. Pass '
        'Ctx(key=jax.random.key(seed)).'
      )
    key = random.own(ctx.key, path)
    for i, own in enumerate(jax.random.split(key, codebooks)):
      part = rows[book == i]
      these = part.reshape(-1, length)
      values.append(clustering.lloyd_rows(these, clusters, own, sweeps))
      near = clustering.closest(these, values[-1])
      index.append(near.reshape(len(part), -1))
    codes = jnp.concatenate(index).astype(_width(clusters))
    return Products(jnp.stack(values), codes, w.shape)

  return sharing(where, share)


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
  if type(seed) is not int or not 0 <= seed < WIDE:
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

  return sharing(where, hash_)


def sharing(where: str, share: Share) -> Method:
  """Return the method that puts a node on each weight, given its mask.

  Args:
    where: Its name, for errors.
    share: Makes the node.

  Returns:
    The method.
  """

  def init(params: Params, ctx: Ctx) -> Params:
    refuse_grids(where, params)

    def visit(path: Path, x: Any, mask: Array | None) -> Any:
      if tree.is_node(x):
        mask = x.mask if isinstance(x, Masked) else mask
        return tree.descend(lambda p, y: visit(p, y, mask), path, x)
      if not tree.is_weight(x):
        return x
      own = mask if mask is not None and mask.shape == x.shape else None
      return share(path, x, own, ctx)

    return tree.map_paths(lambda path, x: visit(path, x, None), params)

  return Method(init)


def _count(where: str, clusters: int | None, bits: int | None) -> int:
  """Return how many clusters one of two arguments asks for."""
  if (clusters is None) == (bits is None):
    raise ValueError(
      f'{where}: expected clusters or bits, got {clusters!r} and {bits!r}.'
    )
  if bits is None:
    _expect_whole(where, 'clusters', clusters)
    assert clusters is not None
    if clusters >= WIDE:
      raise ValueError(
        f'{where}: expected fewer than {WIDE} clusters, got {clusters}.'
      )
    return clusters
  if type(bits) is not int or not 1 <= bits <= 15:
    raise ValueError(f'{where}: expected bits in 1 to 15, got {bits!r}.')
  return int(2**bits)


def _expect_whole(where: str, what: str, n: Any) -> None:
  if type(n) is not int or n < 1:
    raise ValueError(f'{where}: expected {what} from 1, got {n!r}.')


def _number(mask: Array) -> int:
  """Return how many weights a mask keeps; all of them where it is traced."""
  if isinstance(mask, jax.core.Tracer):
    return mask.size
  return int(np.sum(np.asarray(mask)))


def _width(codes: int) -> Any:
  """Return the integers that number the codes."""
  return jnp.uint8 if codes <= 2**8 else jnp.uint16
